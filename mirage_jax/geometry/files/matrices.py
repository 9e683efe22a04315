"""Between the matrices of camera files and ``Camera``: direction, missing last rows, normalising.

Conventions: conversions run in float64 and end in float32. Normalised intrinsics (fx, cx divided by
the width, fy, cy by the height) are pixel intrinsics of a 1 x 1 image, and are kept as such.

Read next: the modules of this folder that use it.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from mirage_jax.geometry.camera import Camera, invert_rigid, validate_camera

UNIT_HW = (1, 1)


def square_matrices(matrices: Any, name: str) -> Float[Any, "f 4 4"]:
    """Return [f, 3, 4] or [f, 4, 4] matrices as [f, 4, 4] float64; a single one gets an axis."""
    array = np.asarray(matrices)
    if array.dtype.kind not in "fiu" or array.ndim not in (2, 3):
        raise ValueError(
            f"{name} does not hold camera matrices: got dtype {array.dtype} and shape "
            f"{array.shape}, expected numbers of shape [f, 3, 4] or [f, 4, 4]. Check the file."
        )
    array = array.astype(np.float64).reshape(-1, *array.shape[-2:])
    if array.shape[-2:] == (3, 4):
        row = np.broadcast_to(np.array([[0.0, 0.0, 0.0, 1.0]]), (len(array), 1, 4))
        array = np.concatenate([array, row], axis=1)
    return array


def from_world_to_cam(matrices: Any, intrinsics: Any, name: str) -> Camera:
    """Build cameras from world-to-camera matrices, [f, 3, 4] or [f, 4, 4], and check them."""
    world_to_cam = square_matrices(matrices, f"{name}: w2c")
    # Checked before inverting, which is right for rigid matrices only.
    checked = validate_camera(Camera(world_to_cam, np.asarray(intrinsics)), f"{name} (w2c)")
    pose = invert_rigid(checked.cam_to_world)
    return Camera(pose.astype(np.float32), checked.intrinsics.astype(np.float32))


def to_world_to_cam(camera: Camera) -> Float[Any, "f 4 4"]:
    """Return float64 world-to-camera matrices [f, 4, 4]."""
    camera = validate_camera(camera, "camera")
    return invert_rigid(camera.cam_to_world.astype(np.float64).reshape(-1, 4, 4))


def intrinsics_matrix(values: Any) -> Float[Any, "*batch 3 3"]:
    """Build [..., 3, 3] float64 intrinsics from [..., 4] values fx, fy, cx, cy."""
    values = np.asarray(values, dtype=np.float64)
    matrix = np.zeros((*values.shape[:-1], 3, 3))
    matrix[..., 0, 0], matrix[..., 1, 1] = values[..., 0], values[..., 1]
    matrix[..., 0, 2], matrix[..., 1, 2] = values[..., 2], values[..., 3]
    matrix[..., 2, 2] = 1.0
    return matrix


def intrinsics_values(
    intrinsics: Float[Any, "*batch 3 3"], hw: tuple[int, int] = UNIT_HW
) -> Float[Any, "*batch 4"]:
    """Return [..., 4] fx, fy, cx, cy, divided by the size `hw` = (height, width)."""
    matrix = np.asarray(intrinsics, dtype=np.float64)
    if np.abs(matrix[..., 0, 1]).max() > 1e-6 * np.abs(matrix[..., 0, 0]).max():
        raise ValueError(
            f"intrinsics have skew, which this format cannot hold: got {matrix[..., 0, 1].max()}, "
            "expected 0. Write a trajectory.npz."
        )
    size = np.array([hw[1], hw[0], hw[1], hw[0]], dtype=np.float64)
    return (
        np.stack([matrix[..., 0, 0], matrix[..., 1, 1], matrix[..., 0, 2], matrix[..., 1, 2]], -1)
        / size
    )
