"""Read and write cameras in the formats people bring, chosen by file name.

===================  ===============================================  ======================
file                 content                                          size that comes back
===================  ===============================================  ======================
``geometry.npz``     depths, cameras, maybe frames and masks          that of the depths
``trajectory.npz``   w2c and intrinsics in pixels, image size         the image's
``transforms.json``  nerfstudio, OpenGL axes                          the image's
``w2c.txt``          JSON matrices, with ``intrinsics.txt`` beside    (1, 1): normalised
other ``.txt``       RealEstate10K                                    (1, 1): normalised
``.npy``             [f, 4, 4] camera to world; no intrinsics         None
===================  ===============================================  ======================

Conventions: whatever the file's, cameras come back as OpenCV cam_to_world with intrinsics in pixels
of the size that is returned beside them; units of length are left as they are. Rescale to your
image with ``rescale_intrinsics(intrinsics, hw, your_hw)``; (1, 1) is a size like any other.

Read next: the modules of ``files/``, one per family of formats.
"""

import os
import zipfile
from pathlib import Path
from typing import Any

from jaxtyping import Float

from mirage_jax.geometry.camera import Camera, validate_camera
from mirage_jax.geometry.files.geometry_npz import (
    Geometry,
    load_geometry,
    save_geometry,
    validate_geometry,
)
from mirage_jax.geometry.files.matrices import UNIT_HW
from mirage_jax.geometry.files.nerfstudio import read_transforms, write_transforms
from mirage_jax.geometry.files.text import (
    read_realestate,
    read_w2c,
    write_realestate,
    write_w2c,
)
from mirage_jax.geometry.files.trajectory_npz import (
    read_npy,
    read_trajectory,
    write_npy,
    write_trajectory,
)

__all__ = [
    "Geometry",
    "load_cameras",
    "load_geometry",
    "save_cameras",
    "save_geometry",
    "validate_geometry",
]


def load_cameras(
    path: str | os.PathLike[str], intrinsics: Float[Any, "3 3"] | None = None
) -> tuple[Camera, tuple[int, int] | None]:
    """Read cameras from any of the formats in the module's table.

    Args:
      path: the file; .npz files are told apart by content, text files by name and first line.
      intrinsics: [3, 3] in pixels, used for formats that hold none (``.npy``), else ignored.

    Returns:
      Cameras [f] (float32), and the image size (height, width) that their intrinsics belong to:
      (1, 1) where the file has normalised intrinsics, None where `intrinsics` was used.

    Raises:
      FileNotFoundError: no such file.
      ValueError: an unknown ending, a broken file, or cameras that fail ``validate_camera``.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. Check the path.")
    kind = path.suffix.lower()
    if kind == ".npz":
        if "poses_c2w" in _array_names(path):
            geometry = load_geometry(path)
            return geometry.camera, geometry.hw
        return read_trajectory(path)
    if kind == ".json":
        return read_transforms(path)
    if kind == ".npy":
        return read_npy(path, intrinsics), None
    if kind == ".txt":
        return (read_w2c if _is_w2c(path) else read_realestate)(path), UNIT_HW
    raise _unknown_ending(path)


def save_cameras(path: str | os.PathLike[str], camera: Camera, hw: tuple[int, int]) -> None:
    """Write cameras in the format that the name asks for.

    ``.npz`` is a trajectory.npz, ``.json`` a transforms.json, ``w2c*.txt`` comes with
    ``intrinsics.txt``, any other ``.txt`` is RealEstate10K, ``.npy`` drops the intrinsics.

    Args:
      path: the file; missing folders are made, an old file is replaced in one step.
      camera: cameras [f].
      hw: size (height, width) of the image that the intrinsics belong to.
    """
    path = Path(path)
    camera = validate_camera(camera, "camera")
    if camera.cam_to_world.ndim != 3:
        raise ValueError(
            f"camera must be a sequence of cameras: got cam_to_world of shape "
            f"{camera.cam_to_world.shape}, expected [f, 4, 4]. Stack cameras with stack_cameras."
        )
    kind = path.suffix.lower()
    if kind == ".npz":
        write_trajectory(path, camera, hw)
    elif kind == ".json":
        write_transforms(path, camera, hw)
    elif kind == ".npy":
        write_npy(path, camera)
    elif kind == ".txt":
        (write_w2c if path.stem.startswith("w2c") else write_realestate)(path, camera, hw)
    else:
        raise _unknown_ending(path)


def _array_names(path: Path) -> set[str]:
    """Return the array names of an npz archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{path}: cannot be read as an npz archive: got {error}, expected a complete file "
            "written by numpy.savez. It may be truncated; copy it again."
        ) from error


def _is_w2c(path: Path) -> bool:
    """Tell one JSON list per line from RealEstate10K, whose first line is an address."""
    with path.open("rb") as stream:
        return path.stem.startswith("w2c") or stream.read(64).lstrip().startswith(b"[")


def _unknown_ending(path: Path) -> ValueError:
    """Build the error for an ending that belongs to no format."""
    return ValueError(
        f"{path}: unknown camera format: got the ending {path.suffix!r}, expected .npz, .json, "
        ".txt or .npy. Rename the file, or convert it."
    )
