"""Cameras alone as arrays: ``trajectory.npz``, and bare ``.npy`` stacks of cam_to_world.

``trajectory.npz`` holds ``w2c`` [f, 4, 4] (OpenCV, world to camera), ``intrinsics`` [f, 3, 3] or
[3, 3] in pixels, ``image_height`` and ``image_width``. It is what the package writes. A ``.npy``
holds [f, 4, 4] camera-to-world matrices (OpenCV) and no intrinsics.

Read next: ``../camera_files.py``.
"""

import os
from typing import Any

import numpy as np
from jaxtyping import Float

from mirage_jax.atomic import replacing
from mirage_jax.geometry.camera import Camera, validate_camera
from mirage_jax.geometry.files.matrices import from_world_to_cam, square_matrices, to_world_to_cam
from mirage_jax.geometry.files.npz import MAX_ARRAY_BYTES, read_npz, write_npz


def read_trajectory(path: str | os.PathLike[str]) -> tuple[Camera, tuple[int, int]]:
    """Read a trajectory.npz: the cameras, and the size (height, width) of their images."""
    arrays = read_npz(path, ("w2c", "intrinsics", "image_height", "image_width"))
    camera = from_world_to_cam(arrays["w2c"], arrays["intrinsics"], str(path))
    sizes = [arrays[name] for name in ("image_height", "image_width")]
    if any(size.size != 1 or size.item() < 1 for size in sizes):
        raise ValueError(
            f"{path}: image_height and image_width are not sizes: got "
            f"{[size.tolist() for size in sizes]}, expected one positive integer each."
        )
    return camera, (int(sizes[0].item()), int(sizes[1].item()))


def write_trajectory(path: str | os.PathLike[str], camera: Camera, hw: tuple[int, int]) -> None:
    """Write cameras [f] and their image size as trajectory.npz, in double precision."""
    write_npz(
        path,
        {
            "w2c": to_world_to_cam(camera),
            "intrinsics": camera.intrinsics,
            "image_height": hw[0],
            "image_width": hw[1],
        },
    )


def read_npy(path: str | os.PathLike[str], intrinsics: Float[Any, "3 3"] | None) -> Camera:
    """Read [f, 4, 4] camera-to-world matrices, and give them the intrinsics of the caller."""
    if intrinsics is None:
        raise ValueError(
            f"{path}: intrinsics are missing: a .npy file holds camera matrices only; got "
            "intrinsics=None, expected a [3, 3] matrix in pixels. Pass those of the scene, or use "
            "a trajectory.npz."
        )
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such file. Check the path.")
    try:
        poses = np.load(path, mmap_mode="r", allow_pickle=False)
        if poses.nbytes > MAX_ARRAY_BYTES:
            raise ValueError(f"{poses.nbytes} bytes of data")
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(
            f"{path}: cannot be read as an array: got {error}, expected [f, 4, 4] floats written "
            "by numpy.save without objects. It may be truncated; copy it again."
        ) from error
    matrices = square_matrices(np.array(poses), str(path))
    camera = validate_camera(Camera(matrices, np.asarray(intrinsics)), str(path))
    return Camera(camera.cam_to_world.astype(np.float32), camera.intrinsics.astype(np.float32))


def write_npy(path: str | os.PathLike[str], camera: Camera) -> None:
    """Write the camera-to-world matrices alone; intrinsics are lost."""
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, camera.cam_to_world, allow_pickle=False)
