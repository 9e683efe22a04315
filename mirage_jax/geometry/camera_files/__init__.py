"""Read and write cameras in the formats people bring, all through one type, ``CameraPath``.

Whatever the file's conventions, cameras come back as OpenCV cam_to_world with intrinsics in pixels
of the size that is returned beside them; units of length are left as they are. What has two
readings is refused with both, and ``Reading`` chooses.

Read next: ``formats.py`` (the table), ``stored.py`` (where conventions are converted).
"""

import os
from pathlib import Path
from typing import Any

from jaxtyping import Float

from mirage_jax.geometry.camera import Camera, validate_camera
from mirage_jax.geometry.camera_files.camera_path import UNIT_HW, CameraPath, path_of
from mirage_jax.geometry.camera_files.formats import FORMATS, detect, format_to_write
from mirage_jax.geometry.camera_files.geometry import (
    Geometry,
    load_geometry,
    save_geometry,
    validate_geometry,
)
from mirage_jax.geometry.camera_files.reading import WORDS, Reading, reading_of
from mirage_jax.geometry.camera_files.stored import assemble

__all__ = [
    "FORMATS",
    "UNIT_HW",
    "WORDS",
    "CameraPath",
    "Geometry",
    "Reading",
    "detect",
    "load_cameras",
    "load_geometry",
    "path_of",
    "read_cameras",
    "reading_of",
    "save_cameras",
    "save_geometry",
    "validate_geometry",
    "write_cameras",
]

_DEFAULT_READING = Reading()


def read_cameras(
    path: str | os.PathLike[str],
    reading: Reading = _DEFAULT_READING,
    kind: str | None = None,
    strict: bool = True,
) -> CameraPath:
    """Read cameras from a file or folder of any format.

    Args:
      path: the file or folder.
      reading: answers to what the file leaves open.
      kind: a key of ``FORMATS``; None to tell by the content.
      strict: refuse what is not rigid; otherwise such matrices are kept, to be reported.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a broken file (named with the line), cameras that fail ``validate_camera``, or
        two readings.
    """
    path = Path(path)
    if kind is None:
        kind, path = detect(path)
    return assemble(_format(kind).read(path, reading), str(path), reading, strict)


def write_cameras(
    path: str | os.PathLike[str], cameras: CameraPath, kind: str | None = None
) -> str:
    """Write cameras; return the format.

    Args:
      path: file, or folder for formats that are one; old files are replaced in one step.
      cameras: [f].
      kind: a key of ``FORMATS``; None to follow the name.

    Raises:
      ValueError: the format needs what the path does not have.
    """
    path = Path(path)
    kind = kind or format_to_write(path)
    chosen = _format(kind)
    if chosen.write is None:
        raise ValueError(
            f"{path}: cameras alone do not make a {kind} file, which holds depth too. Write a "
            "trajectory.npz, or use save_geometry."
        )
    if "intrinsics" in chosen.needs and cameras.intrinsics is None:
        raise ValueError(
            f"{path}: {kind} holds intrinsics and these cameras have none. Give --intrinsics "
            "fx,fy,cx,cy or --fov with --size, or write tum or npy."
        )
    unsized = "size" in chosen.needs and cameras.hw is None
    if unsized or ("pixels" in chosen.needs and cameras.hw == UNIT_HW):
        raise ValueError(
            f"{path}: {kind} needs the image size in pixels, which is not known. Give --size "
            "HEIGHTxWIDTH."
        )
    chosen.write(path, cameras)
    return kind


def load_cameras(
    path: str | os.PathLike[str],
    intrinsics: Float[Any, "3 3"] | None = None,
    reading: Reading = _DEFAULT_READING,
) -> tuple[Camera, tuple[int, int] | None]:
    """Read cameras as the rest of the package takes them.

    Args:
      path: file or folder of any format.
      intrinsics: [3, 3] in pixels, used for formats that hold none, else ignored.
      reading: answers to what the file leaves open.

    Returns:
      Cameras [f] (float32), and the image size (height, width) that their intrinsics belong to:
      (1, 1) where the file has normalised intrinsics, None where `intrinsics` was used.

    Raises:
      FileNotFoundError, ValueError: as for ``read_cameras``; also when there are no intrinsics, or
        they are in pixels of an image whose size is not known.
    """
    found = read_cameras(path, reading)
    if found.intrinsics is not None and found.hw is None:
        raise ValueError(
            f"{path}: intrinsics are in pixels of an image whose size the file does not tell. Say "
            f"it: mirage cameras convert {path} cameras.npz --size HEIGHTxWIDTH."
        )
    if found.intrinsics is None and intrinsics is not None:
        given = validate_camera(Camera(found.cam_to_world, intrinsics), str(path))
        found = CameraPath(found.cam_to_world, given.intrinsics)
    try:
        return found.camera(), found.hw
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def save_cameras(path: str | os.PathLike[str], camera: Camera, hw: tuple[int, int]) -> None:
    """Write cameras [f] in the format that the name asks for.

    Args:
      path: the file; missing folders are made, an old file is replaced in one step.
      camera: cameras [f].
      hw: size (height, width) of the image that the intrinsics belong to.
    """
    camera = validate_camera(camera, "camera")
    if camera.cam_to_world.ndim != 3:
        raise ValueError(
            f"camera must be a sequence of cameras: got cam_to_world of shape "
            f"{camera.cam_to_world.shape}, expected [f, 4, 4]. Stack cameras with stack_cameras."
        )
    write_cameras(path, path_of(camera, hw))


def _format(kind: str) -> Any:
    """Return a row of the table."""
    if kind not in FORMATS:
        raise ValueError(f"unknown camera format: got {kind!r}, expected {', '.join(FORMATS)}.")
    return FORMATS[kind]
