"""Read and write npz archives that may come from strangers: no pickle, sizes checked first.

Read next: ``geometry_npz.py``, ``trajectory_npz.py``.
"""

import os
import zipfile
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from mirage_jax.atomic import replacing

MAX_ARRAY_BYTES = 4 << 30


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
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such file. Check the path.")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy") for name in archive.namelist()}
            missing = sorted(set(required) - members)
            if missing:
                raise ValueError(
                    f"{path}: arrays are missing: got {sorted(members)}, expected also {missing}. "
                    "Check that this is the right kind of npz file."
                )
            wanted = [*required, *(name for name in optional if name in members)]
            return {name: _read_member(archive, path, name, max_array_bytes) for name in wanted}
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise ValueError(
            f"{path}: cannot be read as an npz archive: got {error}, expected a complete file "
            "written by numpy.savez. It may be truncated; copy it again."
        ) from error


def _read_member(
    archive: zipfile.ZipFile, path: str | os.PathLike[str], name: str, max_bytes: int
) -> np.ndarray:
    """Read one array after its header was checked."""
    where = f"{path}: array {name!r}"
    with archive.open(f"{name}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read_header(stream)
    if dtype.hasobject:
        raise ValueError(
            f"{where} holds Python objects: got dtype {dtype}, expected numbers. Objects need "
            "pickle, which can run code; save plain arrays."
        )
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size > min(max_bytes, archive.getinfo(f"{name}.npy").file_size):
        raise ValueError(
            f"{where} is too large: got {shape} {dtype} = {size} bytes, expected at most "
            f"{max_bytes} and no more than the archive holds. Store fewer or smaller frames."
        )
    with archive.open(f"{name}.npy") as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


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
