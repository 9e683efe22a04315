"""Reads the description of tensors in a PyTorch file without running any of it.

Conventions: such a description is a program for a stack machine that may name and call anything.
Here its instructions are only looked at, one after the other: those in `_STEPS` are understood,
names in `_GLOBALS` stand for themselves, and calls to names in `_CALLS` build plain tuples, dicts
and `TensorRecord`s. Anything else ends the reading with an error that names it. No code of the
file is ever imported or called.

Read next: `torch_file.py`, which finds the values that a `TensorRecord` talks about.
"""

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from mirage_jax.models.tensor_file import DTYPES

_TYPED = {
    "Double": "F64", "Float": "F32", "Half": "F16", "BFloat16": "BF16", "Long": "I64",
    "Int": "I32", "Short": "I16", "Char": "I8", "Byte": "U8", "Bool": "BOOL",
}  # fmt: skip
_NAMED = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64",
    "int32": "I32", "int16": "I16", "int8": "I8", "uint64": "U64", "uint32": "U32",
    "uint16": "U16", "uint8": "U8", "bool": "BOOL", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}  # fmt: skip
# Names that stand for a dtype; storage without one gets it from the tensor.
_GLOBALS: Mapping[str, np.dtype | None] = {
    **{f"torch.{name}Storage": DTYPES[code] for name, code in _TYPED.items()},
    **{f"torch.{name}": DTYPES[code] for name, code in _NAMED.items()},
    "torch.storage.UntypedStorage": None,
}


class StorageRecord(NamedTuple):
    """A run of values in the file: its name, and the dtype if the file says one."""

    key: str
    dtype: np.dtype | None


class TensorRecord(NamedTuple):
    """A tensor as the file describes it; offset and strides count elements."""

    storage: StorageRecord
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Global(NamedTuple):
    name: str


def read_description(data: bytes, where: str) -> Any:
    """Return what the description of a PyTorch file says.

    Args:
      data: contents of its member `data.pkl`.
      where: begins messages, e.g. the path of the file.

    Returns:
      Dicts, lists, tuples, strings, numbers and `TensorRecord`s.

    Raises:
      ValueError: if it asks for anything but tensors in plain containers, or is damaged.
    """
    machine = _Machine(where)
    try:
        for opcode, argument, _ in pickletools.genops(data):
            step = _STEPS.get(opcode.name)
            if step is None:
                raise _refused(where, f"the instruction {opcode.name}")
            step(machine, argument)
        return machine.stack.pop()
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"cannot read {where} ({type(error).__name__}: {error}) - expected the tensors of a "
            "PyTorch file - it may be damaged: fetch it again"
        ) from error


class _Machine:
    """Stack, marks and memo of the description being read."""

    def __init__(self, where: str):
        self.where = where
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError("too few values on the stack")
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return values

    def since_mark(self) -> list[Any]:
        return self.pop(len(self.stack) - self.marks.pop())

    def mark(self) -> None:
        self.marks.append(len(self.stack))

    def remember(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def name(self, name: str) -> None:
        if name not in _GLOBALS and name not in _CALLS:
            raise _refused(self.where, f"the name {name}")
        self.push(_Global(name))

    def call(self) -> None:
        function, arguments = self.pop(2)
        if not isinstance(function, _Global) or function.name not in _CALLS:
            raise _refused(self.where, f"a call of {function!r}")
        self.push(_CALLS[function.name](*arguments))

    def storage(self) -> None:
        kind, dtype, key, *_ = self.stack.pop()
        if kind != "storage":
            raise _refused(self.where, f"a reference to {kind!r}")
        self.push(StorageRecord(key, _GLOBALS[dtype.name]))

    def extend_dict(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise _refused(self.where, f"items for a {type(target).__name__}")
        target.update(zip(values[::2], values[1::2], strict=True))

    def extend_list(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise _refused(self.where, f"entries for a {type(target).__name__}")
        target.extend(values)

    def set_state(self) -> None:
        target, _ = self.pop(2)
        if not isinstance(target, dict):  # state dicts carry version numbers, of no use to us
            raise _refused(self.where, f"state for a {type(target).__name__}")
        self.push(target)


def _ordered_dict(items: Any = ()) -> dict[Any, Any]:
    return dict(tuple(item) for item in items)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> TensorRecord:
    if not isinstance(storage, StorageRecord) or storage.dtype is None:
        raise TypeError("a tensor without typed storage")
    return TensorRecord(storage, storage.dtype, offset, tuple(shape), tuple(strides))


def _untyped_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> TensorRecord:
    found = _GLOBALS[dtype.name]
    if not isinstance(storage, StorageRecord) or found is None:
        raise TypeError("a tensor without storage or dtype")
    return TensorRecord(storage, found, offset, tuple(shape), tuple(strides))


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


_CALLS: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _untyped_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": lambda sizes=(): tuple(sizes),
    "torch.device": lambda *parts: ":".join(map(str, parts)),
}

_Step = Callable[[_Machine, Any], None]
_VALUES = (
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES",
)  # fmt: skip
_STEPS: Mapping[str, _Step] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda m, _: None),
    **dict.fromkeys(_VALUES, lambda m, value: m.push(value)),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), lambda m, i: m.remember(i)),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda m, i: m.push(m.memo[i])),
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "MARK": lambda m, _: m.mark(),
    "TUPLE": lambda m, _: m.push(tuple(m.since_mark())),
    "TUPLE1": lambda m, _: m.push(tuple(m.pop(1))),
    "TUPLE2": lambda m, _: m.push(tuple(m.pop(2))),
    "TUPLE3": lambda m, _: m.push(tuple(m.pop(3))),
    "SETITEM": lambda m, _: m.extend_dict(m.pop(2)),
    "SETITEMS": lambda m, _: m.extend_dict(m.since_mark()),
    "APPEND": lambda m, _: m.extend_list(m.pop(1)),
    "APPENDS": lambda m, _: m.extend_list(m.since_mark()),
    "GLOBAL": lambda m, name: m.name(name.replace(" ", ".")),
    "STACK_GLOBAL": lambda m, _: m.name(".".join(m.pop(2))),
    "BINPERSID": lambda m, _: m.storage(),
    "REDUCE": lambda m, _: m.call(),
    "BUILD": lambda m, _: m.set_state(),
}


def _refused(where: str, what: str) -> ValueError:
    return ValueError(
        f"cannot read {where} - got {what}, expected nothing but tensors in dicts and lists - it "
        "is not run, since it could do anything; if you trust the file, save its weights alone "
        "as safetensors where they come from, or in PyTorch: "
        "safetensors.torch.save_file(state_dict, path)"
    )
