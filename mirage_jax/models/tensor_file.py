"""Safetensors files tensor by tensor: read where they lie, written slice by slice.

Conventions: a file is 8 bytes of header length (little endian), a JSON header, then the tensors
back to back, row-major and little endian. Reading a header costs no tensor; a `StoredTensor` reads
its own bytes with seek and read, so that memory follows what is held and never the size of the
file. `TensorWriter` needs only shapes to lay a file out, and moves it in place when it is whole.

Read next: `files.py` for our parameter files, `convert/sources.py` for other people's.
"""

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ml_dtypes
import numpy as np

from mirage_jax.atomic import replacing

DTYPES: Mapping[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_CODES = {dtype: code for code, dtype in DTYPES.items()}
_MAX_HEADER = 100_000_000  # bytes; the limit of the format's own library


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: known by its shape, read on demand.

    Attributes:
      path: the file.
      offset: byte of its first element.
      shape: its axes.
      dtype: of its elements.
      strides: steps of each axis in elements; None means row-major.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype
    strides: tuple[int, ...] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor once read."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> np.ndarray:
        """Return the tensor as a fresh, contiguous array."""
        if self.strides is None or not math.prod(self.shape):
            return self._elements(math.prod(self.shape)).reshape(self.shape)
        steps = zip(self.shape, self.strides, strict=True)
        span = 1 + sum((size - 1) * step for size, step in steps)
        size = self.dtype.itemsize
        view = np.lib.stride_tricks.as_strided(
            self._elements(span), self.shape, [step * size for step in self.strides]
        )
        return np.array(view, order="C")

    def layer(self, index: int) -> "StoredTensor":
        """Return entry `index` of the leading axis of a row-major tensor."""
        shape = self.shape[1:]
        offset = self.offset + index * math.prod(shape) * self.dtype.itemsize
        return dataclasses.replace(self, shape=shape, offset=offset)

    def _elements(self, count: int) -> np.ndarray:
        size = count * self.dtype.itemsize
        raw = np.fromfile(self.path, np.uint8, size, offset=self.offset)
        if raw.size != size:
            raise ValueError(
                f"cannot read {self.path} - got {raw.size} bytes at {self.offset}, expected "
                f"{size} - it may have been cut while it was read: fetch it again"
            )
        return raw.view(self.dtype)


def stored_tensors(path: str | os.PathLike) -> dict[str, StoredTensor]:
    """Return the tensors of a safetensors file by name, without reading any.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is not a whole safetensors file.
    """
    path = Path(path)
    header, start = _read_header(path)
    header.pop("__metadata__", None)
    length = path.stat().st_size - start
    tensors = {name: _stored(path, name, entry, start, length) for name, entry in header.items()}
    return dict(sorted(tensors.items(), key=lambda item: item[1].offset))


def mapped_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Return the tensors of a safetensors file as read-only views of the mapped file.

    Bytes are read when they are looked at; the map ends with the last of its views.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is not a whole safetensors file.
    """
    tensors = stored_tensors(path)
    raw = np.memmap(path, np.uint8, "r").view(np.ndarray)
    return {
        name: raw[tensor.offset : tensor.offset + tensor.nbytes]
        .view(tensor.dtype)
        .reshape(tensor.shape)
        for name, tensor in tensors.items()
    }


def stored_metadata(path: str | os.PathLike) -> dict[str, str]:
    """Return the strings in the header of a safetensors file.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is not a safetensors file.
    """
    return dict(_read_header(Path(path))[0].get("__metadata__", {}))


class TensorWriter:
    """A safetensors file laid out from shapes alone and filled in any order.

    Used as a context manager; the file appears, whole, when the block ends without an error, and
    nothing is left behind when it ends with one.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        layout: Mapping[str, Any],
        metadata: Mapping[str, str] | None = None,
    ):
        """Lay out the file.

        Args:
          path: file to write; its folder is made if needed.
          layout: name -> anything with `.shape` and `.dtype`.
          metadata: strings for the header.

        Raises:
          ValueError: if a dtype has no place in a safetensors file.
        """
        self.path = Path(path)
        # Wide elements first, so that each tensor starts at a multiple of its element's size.
        names = sorted(layout, key=lambda n: (-np.dtype(layout[n].dtype).itemsize, n))
        entries: dict[str, Any] = {}
        self._left: dict[str, int] = {}
        offset = 0
        for name in names:
            shape, dtype = tuple(map(int, layout[name].shape)), np.dtype(layout[name].dtype)
            size = math.prod(shape) * dtype.itemsize
            span = [offset, offset + size]
            entries[name] = {"dtype": _code(name, dtype), "shape": shape, "data_offsets": span}
            self._left[name], offset = size, offset + size
        if metadata:
            entries = {"__metadata__": dict(sorted(metadata.items())), **entries}
        text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        self._header = len(text).to_bytes(8, "little") + text
        self._tensors = {
            name: _stored(self.path, name, entries[name], len(self._header), offset)
            for name in names
        }

    def __enter__(self) -> Self:
        """Open a temporary file beside the target."""
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(replacing(self.path))
            self._file = stack.enter_context(temporary.open("wb", buffering=0))
            _write_all(self._file, memoryview(self._header))
            self._open = stack.pop_all()
        return self

    def write(self, name: str, array: np.ndarray, layer: int | None = None) -> None:
        """Write a tensor, or entry `layer` of its leading axis.

        Raises:
          ValueError: if shape or dtype are not those of the layout.
        """
        tensor = self._tensors[name] if layer is None else self._tensors[name].layer(layer)
        if (array.shape, array.dtype) != (tensor.shape, tensor.dtype):
            raise ValueError(
                f"{name} in {self.path}: got {array.shape} {array.dtype}, expected {tensor.shape} "
                f"{tensor.dtype}; lay the file out with the shapes that are written"
            )
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._file.seek(tensor.offset)
        _write_all(self._file, memoryview(data))
        self._left[name] -= data.size

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Move the file in place if the block succeeded; remove it otherwise."""
        if error is not None:
            self._open.__exit__(kind, error, traceback)
            return
        with self._open:
            self._check_whole()

    def _check_whole(self) -> None:
        unfinished = [name for name, left in self._left.items() if left]
        if unfinished:
            raise ValueError(
                f"{self.path}: not all bytes were written of {', '.join(unfinished)}; write every "
                "layer once"
            )


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    if not path.is_file():
        raise FileNotFoundError(
            f"weights not found - got {path} - expected a .safetensors file - "
            "check the path, or train or convert the weights first"
        )
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(_MAX_HEADER, path.stat().st_size - 8):
            raise _broken(path, f"a header of {length} bytes does not fit")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise _broken(path, f"its header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise _broken(path, "its header is not an object")
    return header, 8 + length


def _stored(path: Path, name: str, entry: Any, start: int, length: int) -> StoredTensor:
    try:
        dtype, shape = DTYPES[entry["dtype"]], tuple(map(int, entry["shape"]))
        begin, end = map(int, entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(path, f"the entry of {name} is {entry!r}") from error
    whole = 0 <= begin <= end <= length and min(shape, default=0) >= 0
    if not whole or end - begin != math.prod(shape) * dtype.itemsize:
        raise _broken(path, f"{name} of shape {shape} does not fit bytes {begin} to {end}")
    return StoredTensor(path, start + begin, shape, dtype)


def _broken(path: Path, why: str) -> ValueError:
    return ValueError(
        f"cannot read {path} ({why}) - expected a whole safetensors file - "
        "it may be truncated or a Git LFS pointer: fetch it again"
    )


def _code(name: str, dtype: np.dtype) -> str:
    if dtype not in _CODES:
        raise ValueError(
            f"{name}: got dtype {dtype}, expected one of {', '.join(map(str, _CODES))}"
        )
    return _CODES[dtype]


def _write_all(file: Any, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]
