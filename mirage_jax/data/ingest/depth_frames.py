"""Depth of a recording, one frame at a time.

From picture files, from ViPE's ``depth.zip``, or from one array. Conventions: z-depth in scene
units, float32, 0 = unknown. Whole numbers are multiplied by a unit; 65535 is unknown too, the mark
of saturated sensors.

Read next: ``../../geometry/depth_files/`` (the formats).
"""

import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mirage_jax.geometry.camera_files import npz
from mirage_jax.geometry.depth_files.archives import broken_zip, depth_of_bytes, in_order

MILLIMETRES = 0.001
_SATURATED = 65535
_MAX_BYTES = 256 << 20
# Reads frame i.
DepthFrames = Callable[[int], np.ndarray]


def depth_of_files(files: Sequence[Path], unit: float = MILLIMETRES) -> DepthFrames:
    """Return what reads one file a frame.

    Args:
        files: .png, .tif, .exr or .npy of each frame.
        unit: scene units of one step of whole numbers.
    """

    def read(index: int) -> np.ndarray:
        path = files[index]
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file of depth. Check the folder.")
        if path.suffix.lower() == ".npy":
            return in_scene_units(npz.read_npy(path), unit, str(path))
        return _from_bytes(_bounded(path), str(path), unit)

    return read


def depth_of_zip(path: Path, numbers: Sequence[int], unit: float = MILLIMETRES) -> DepthFrames:
    """Return what reads the frames of a zip of pictures by the numbers in their names."""
    members = zip_members(path)
    missing = [number for number in numbers if number not in members]
    if missing:
        raise ValueError(
            f"{path}: has no depth for {len(missing)} frames, the first number {missing[0]}: got "
            f"{len(members)} pictures, expected one for each camera. Run the tool again."
        )

    def read(index: int) -> np.ndarray:
        name = members[numbers[index]]
        return _from_bytes(zip_content(path, name), f"{path}: {name}", unit)

    return read


def depth_of_array(array: np.ndarray, name: str, unit: float = MILLIMETRES) -> DepthFrames:
    """Return what reads the frames of an array [f, H, W]."""
    return lambda index: in_scene_units(array[index], unit, f"{name}: frame {index}")


def zip_members(path: Path) -> Mapping[int, str]:
    """Return the names of the pictures of a zip by the last number in each.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a zip.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. Check the folder.")
    try:
        with zipfile.ZipFile(path) as archive:
            names = in_order(archive.namelist())
    except Exception as error:  # a broken archive makes zipfile raise many kinds
        raise broken_zip(path, error) from error
    stems = {name: "".join(c if c.isdecimal() else " " for c in Path(name).stem) for name in names}
    return {int(stem.split()[-1][:18]): name for name, stem in stems.items() if stem.split()}


def zip_content(path: Path, name: str) -> bytes:
    """Return one member of a zip, if it is no larger than a picture."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(name) as stream:
            content = stream.read(_MAX_BYTES + 1)
    except Exception as error:  # as above
        raise broken_zip(path, error) from error
    if len(content) > _MAX_BYTES:
        raise ValueError(f"{path}: {name} is too large: expected at most {_MAX_BYTES} bytes.")
    return content


def in_scene_units(values: np.ndarray, unit: float, name: str) -> np.ndarray:
    """Return float32 z-depth with 0 for unknown.

    Raises:
        ValueError: 8-bit values, negative values, or not a picture of one channel.
    """
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "fiu" or values.dtype.itemsize == 1:
        raise ValueError(
            f"{name}: is not depth: got {values.dtype} {values.shape}, expected [H, W] of 16-bit "
            "whole numbers or floating point. Export the values, not a picture of them."
        )
    if values.dtype.kind == "f":
        depth = values.astype(np.float32)
    else:
        depth = np.where(values == _SATURATED, 0, values).astype(np.float32) * np.float32(unit)
    depth = np.where(np.isfinite(depth), depth, np.float32(0))
    if (depth < 0).any():
        raise ValueError(
            f"{name}: depth is negative: got {depth.min():.4g}, expected z-depth of 0 (unknown) or "
            "more."
        )
    return depth


def _from_bytes(content: bytes, name: str, unit: float) -> np.ndarray:
    return in_scene_units(depth_of_bytes(content, name), unit, name)


def _bounded(path: Path) -> bytes:
    with path.open("rb") as stream:
        content = stream.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"{path}: is too large: expected at most {_MAX_BYTES} bytes.")
    return content
