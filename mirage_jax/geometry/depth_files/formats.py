"""Which file holds depth how: the table behind ``read_depth``.

Read next: ``depth_maps.py`` (what a value may mean).
"""

import os
from pathlib import Path

import numpy as np

from mirage_jax.geometry.camera_files.npz import write_npz
from mirage_jax.geometry.depth import validate_depth
from mirage_jax.geometry.depth_files import archives, arrays
from mirage_jax.geometry.depth_files.depth_maps import DepthMaps, DepthReading
from mirage_jax.geometry.depth_files.exr import read_exr_depth
from mirage_jax.geometry.depth_files.pictures import read_picture_depth
from mirage_jax.geometry.depth_files.whole_numbers import in_scene_units

_DEFAULT_READING = DepthReading()
EXPECTED = ".npy, .npz, 16-bit .png, .tif, .exr, ViPE's depth.zip, or a folder of pictures"


def read_depth(path: str | os.PathLike[str], reading: DepthReading = _DEFAULT_READING) -> DepthMaps:
    """Read depth from a file of any format and check it.

    Args:
      path: .npy, .npz (with ``depths``, ``depth`` or a single array), 16-bit .png, .tif, .exr,
        ViPE's depth.zip, or a folder of pictures.
      reading: answers to what the file leaves open.

    Returns:
      The maps [f, H, W], f = 1 for a single picture.

    Raises:
      FileNotFoundError: no such file.
      TypeError, ValueError: a broken, truncated or too large file; whole numbers without a unit;
        NaN, infinite, negative or all-zero depth. The message names the file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file of depth. Expected {EXPECTED}.")
    array = _as_stack(_stored(path), path)
    values, notes = in_scene_units(array, str(path), reading)
    kind = reading.kind or "z"
    if kind == "disparity":
        values, more = _known_disparity(values, path)
        notes += more
    else:
        values = validate_depth(values, str(path)).astype(np.float32)
    stated = reading.kind is not None or _holds_zip(path)
    return DepthMaps(values, kind, stated, str(path), notes)


def write_depth(path: str | os.PathLike[str], depth: np.ndarray) -> None:
    """Write z-depth [f, H, W] or [H, W] in scene units as .npz (``depth``), in one step.

    Raises:
      ValueError: another name, or depth that ``validate_depth`` refuses.
    """
    if Path(path).suffix != ".npz":
        raise ValueError(f"{path}: expected a name ending in .npz for depth.")
    write_npz(path, {"depth": validate_depth(depth, str(path)).astype(np.float32)})


def _stored(path: Path) -> np.ndarray:
    suffix = path.suffix.lower()
    if path.is_dir():
        inner = path / "depth.zip"
        if inner.is_file():
            return archives.read_zip_depth(inner)
        return archives.read_folder_depth(path)
    if suffix == ".npy":
        return arrays.read_npy_depth(path)
    if suffix == ".npz":
        return arrays.read_npz_depth(path)
    if suffix == ".zip":
        return archives.read_zip_depth(path)
    if suffix == ".exr":
        return read_exr_depth(path, str(path))
    if suffix in archives.SUFFIXES:
        return read_picture_depth(path, str(path))
    raise ValueError(
        f"{path}: is no file of depth: got {suffix or 'no suffix'!r}, expected {EXPECTED}."
    )


def _holds_zip(path: Path) -> bool:
    """Whether it is ViPE's, which fixes what a value means."""
    return path.suffix.lower() == ".zip" or (path / "depth.zip").is_file()


def _as_stack(array: np.ndarray, path: Path) -> np.ndarray:
    """Return [f, H, W]; an axis of one channel at the end is dropped."""
    shape = array.shape
    if array.ndim in (3, 4) and shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or 0 in shape:
        raise ValueError(
            f"{path}: depth has the wrong shape: got {shape}, expected [H, W] or [f, H, W]. Drop "
            "axes that are not frames, rows and columns."
        )
    return array


def _known_disparity(values: np.ndarray, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return disparity with NaN where it is unknown, and a note."""
    known = np.isfinite(values)
    if not known.any() or not np.ptp(values[known]) > 0:
        raise ValueError(
            f"{path}: disparity is the same everywhere, or nowhere finite: expected larger values "
            "for nearer things. Check the file."
        )
    if known.all():
        return values, ()
    share = f"{1 - known.mean():.1%} of the disparities are not finite and taken as unknown"
    return np.where(known, values, np.float32(np.nan)), (share,)
