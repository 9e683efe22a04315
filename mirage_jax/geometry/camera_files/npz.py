"""Read and write npz and npy files that may come from strangers: no pickle, sizes checked first.

Read next: ``geometry.py``, ``trajectory.py``, ``npy.py``.
"""

import math
import os
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from mirage_jax.atomic import replacing

MAX_ARRAY_BYTES = 4 << 30
MAX_CAMERA_BYTES = 256 << 20


def read_npz(
    path: str | os.PathLike[str],
    required: Collection[str],
    optional: Collection[str] = (),
    max_array_bytes: int = MAX_ARRAY_BYTES,
) -> dict[str, np.ndarray]:
    """Read the named arrays of an npz archive; other arrays are not touched.

    Args:
      path: the archive.
      required: names that must be there.
      optional: names that are read if present.
      max_array_bytes: largest array accepted, checked on the header before memory is taken.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not an npz archive, truncated, an array missing, too large, or holding objects.
    """
    members = array_names(path)
    missing = sorted(set(required) - members)
    if missing:
        raise ValueError(
            f"{path}: arrays are missing: got {sorted(members)[:20]}, expected also {missing}. "
            "Check that this is the right kind of npz file."
        )
    wanted = [*required, *(name for name in optional if name in members)]
    return {name: _read_member(path, name, max_array_bytes) for name in wanted}


def array_names(path: str | os.PathLike[str]) -> set[str]:
    """Return the names of the arrays of an npz archive, without reading them."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such file. Check the path.")
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except Exception as error:  # a broken archive makes zipfile raise many kinds
        raise _broken(path, error) from error


def choose_array(path: str | os.PathLike[str], wanted: Sequence[str], holds: str) -> str:
    """Return the first of the wanted arrays that an archive has, or else its only array.

    Args:
        path: of the archive.
        wanted: names, the best first.
        holds: what the array is to be, for the error.

    Raises:
        ValueError: several arrays, none of them wanted.
    """
    names = array_names(path)
    chosen = next((name for name in wanted if name in names), None)
    if chosen is None and len(names) == 1:
        (chosen,) = names
    if chosen is None:
        raise ValueError(
            f"{path}: does not say which array is {holds}: got {sorted(names)[:20]}, expected one "
            f"called {' or '.join(wanted)}, or a single array. Save it under such a name."
        )
    return chosen


def array_shape(path: str | os.PathLike[str], name: str) -> tuple[int, ...]:
    """Return the shape of one array of an npz archive, without reading it."""
    with _opened(path, name)[0] as stream:
        return _announced(stream, f"{path}: array {name!r}", 1 << 62, 1 << 62)[0]


def first_of_array(path: str | os.PathLike[str], name: str) -> np.ndarray:
    """Return the first entry of one array of an npz archive; the rest is not inflated."""
    stream, size = _opened(path, name)
    with stream:
        shape, order, dtype = _announced(stream, f"{path}: array {name!r}", size, 1 << 62)
        if order or not shape or not shape[0]:
            return read_npz(path, [name])[name][0]
        count = math.prod(shape[1:])
        if count * dtype.itemsize > MAX_CAMERA_BYTES:
            raise _too_large(f"{path}: array {name!r}", shape, dtype, MAX_CAMERA_BYTES)
        try:
            content = stream.read(count * dtype.itemsize)
            return np.frombuffer(content, dtype, count).reshape(shape[1:])
        except Exception as error:  # as in _read_array
            raise _broken(path, error) from error


def read_npy(path: Path, max_bytes: int = MAX_CAMERA_BYTES) -> np.ndarray:
    """Read one array from a .npy file.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not a .npy file, truncated, too large, or holding objects.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. Check the path.")
    with path.open("rb") as stream:
        _announced(stream, str(path), os.path.getsize(path), max_bytes)
        stream.seek(0)
        return _read_array(stream, path)


def _read_member(path: str | os.PathLike[str], name: str, max_bytes: int) -> np.ndarray:
    """Read one array after its header was checked."""
    stream, size = _opened(path, name)
    with stream:
        _announced(stream, f"{path}: array {name!r}", size, max_bytes)
    with _opened(path, name)[0] as stream:
        return _read_array(stream, path)


def _opened(path: str | os.PathLike[str], name: str) -> tuple[IO[bytes], int]:
    """Return a stream of one array of an archive, and how many bytes it announces."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.open(f"{name}.npy"), archive.getinfo(f"{name}.npy").file_size
    except Exception as error:  # as above: an encrypted or half overwritten member
        raise _broken(path, error) from error


def _announced(
    stream: IO[bytes], where: str, available: int, max_bytes: int
) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, Fortran order and type of a header; raise unless it fits into what is there."""
    try:
        version = np.lib.format.read_magic(stream)
        first = version == (1, 0)
        read_header = np.lib.format.read_array_header_1_0
        read_header = read_header if first else np.lib.format.read_array_header_2_0
        shape, order, dtype = read_header(stream)
        size = math.prod(shape) * dtype.itemsize
        plain = min(shape, default=0) >= 0
    except Exception as error:  # the header is Python text: its parser raises many kinds
        raise _broken(where, error) from error
    if dtype.hasobject:
        raise ValueError(
            f"{where} holds Python objects: got dtype {dtype}, expected numbers. Objects need "
            "pickle, which can run code; save plain arrays."
        )
    if not plain or size > min(max_bytes, available):
        raise _too_large(where, shape, dtype, max_bytes)
    return shape, order, dtype


def _too_large(where: str, shape: tuple[int, ...], dtype: np.dtype, max_bytes: int) -> ValueError:
    size = math.prod(shape) * dtype.itemsize
    return ValueError(
        f"{where} is too large: got {shape} {dtype} = {size} bytes, expected at most "
        f"{max_bytes} and no more than the file holds. Store fewer or smaller frames."
    )


def _read_array(stream: IO[bytes], path: str | os.PathLike[str]) -> np.ndarray:
    try:
        return np.lib.format.read_array(stream, allow_pickle=False)
    except Exception as error:  # damaged compressed data: zlib, zipfile and numpy errors
        raise _broken(path, error) from error


def _broken(path: str | os.PathLike[str], error: Exception) -> ValueError:
    return ValueError(
        f"{path}: cannot be read as arrays: got {error or type(error).__name__}, expected a "
        "complete file written by numpy.save or numpy.savez. It may be truncated; copy it again."
    )


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """Write arrays to a compressed npz in one step; entries that are None are left out."""
    present = {name: np.asarray(value) for name, value in arrays.items() if value is not None}
    for name, array in present.items():
        if array.dtype.hasobject:
            raise TypeError(
                f"array {name!r} holds Python objects: got dtype {array.dtype}, expected numbers. "
                "Convert it before writing."
            )
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **present)  # type: ignore[arg-type]
