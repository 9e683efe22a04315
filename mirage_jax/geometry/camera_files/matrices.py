"""Arithmetic of camera matrices that the formats share, in float64.

Normalised intrinsics (fx, cx divided by the width, fy, cy by the height) are pixel intrinsics of a
1 x 1 image, and are kept as such.

Read next: ``stored.py``.
"""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


def square_matrices(matrices: Any, name: str) -> Float[Any, "f 4 4"]:
    """Return [f, 3, 4] or [f, 4, 4] matrices as [f, 4, 4] float64; a single one gets an axis."""
    array = np.asarray(matrices)
    shaped = array.ndim in (2, 3) and array.shape[-2:] in ((3, 4), (4, 4))
    if array.dtype.kind not in "fiu" or not shaped or not array.size:
        raise ValueError(
            f"{name}: does not hold camera matrices: got dtype {array.dtype} and shape "
            f"{array.shape}, expected numbers of shape [f, 3, 4] or [f, 4, 4]. Check the file."
        )
    array = array.astype(np.float64).reshape(-1, *array.shape[-2:])
    if array.shape[-2:] == (3, 4):
        row = np.broadcast_to(np.array([[0.0, 0.0, 0.0, 1.0]]), (len(array), 1, 4))
        array = np.concatenate([array, row], axis=1)
    return array


def rotation_deviation(matrices: Float[Any, "f 4 4"]) -> Float[Any, " f"]:
    """Return the largest entry of R^T R - I of each matrix."""
    rotation = matrices[:, :3, :3]
    gram = np.swapaxes(rotation, -1, -2) @ rotation
    return np.abs(gram - np.eye(3)).max(axis=(-2, -1))


def nearest_rotations(rotations: Float[Any, "f 3 3"]) -> Float[Any, "f 3 3"]:
    """Return the closest rotations in the Frobenius norm; the input must not be mirrored."""
    left, _, right = np.linalg.svd(rotations)
    return left @ right


def quaternions(rotations: Float[Any, "f 3 3"]) -> Float[Any, "f 4"]:
    """Return unit quaternions x y z w, with w >= 0."""
    return Rotation.from_matrix(rotations).as_quat(canonical=True)


def from_quaternions(
    values: Float[Any, "f 4"], translations: Float[Any, "f 3"], where: str, places: list[str]
) -> Float[Any, "f 4 4"]:
    """Return matrices of quaternions x y z w, whose length may be rounded, and translations.

    Raises:
      ValueError: a quaternion that is far from unit length, named with its place.
    """
    length = np.linalg.norm(np.clip(values, -1e9, 1e9), axis=-1)
    bad = ~(np.abs(length - 1) < 1e-2)
    if bad.any():
        index = int(np.argmax(bad))
        raise ValueError(
            f"{where}: {places[index]}: not a unit quaternion: got {values[index].tolist()} of "
            f"length {length[index]:.4g}, expected 1. Check the order of the columns."
        )
    matrices = np.tile(np.eye(4), (len(values), 1, 1))
    matrices[:, :3, :3] = Rotation.from_quat(values).as_matrix()
    matrices[:, :3, 3] = translations
    return matrices


def inverse_of_path(cam_to_world: Float[Any, "f 4 4"]) -> Float[Any, "f 4 4"]:
    """Return world-to-camera matrices with exact rotations: the camera centres are kept."""
    rotation = np.swapaxes(nearest_rotations(cam_to_world[:, :3, :3]), -1, -2)
    inverse = np.tile(np.eye(4), (len(cam_to_world), 1, 1))
    inverse[:, :3, :3] = rotation
    inverse[:, :3, 3] = -np.einsum("fij,fj->fi", rotation, cam_to_world[:, :3, 3])
    return inverse


def intrinsics_matrix(values: Any) -> Float[Any, "*batch 3 3"]:
    """Build [..., 3, 3] float64 intrinsics from [..., 4] values fx, fy, cx, cy."""
    values = np.asarray(values, dtype=np.float64)
    matrix = np.zeros((*values.shape[:-1], 3, 3))
    matrix[..., 0, 0], matrix[..., 1, 1] = values[..., 0], values[..., 1]
    matrix[..., 0, 2], matrix[..., 1, 2] = values[..., 2], values[..., 3]
    matrix[..., 2, 2] = 1.0
    return matrix


def intrinsics_values(intrinsics: Float[Any, "*batch 3 3"], name: str) -> Float[Any, "*batch 4"]:
    """Return [..., 4] fx, fy, cx, cy of intrinsics without skew."""
    matrix = np.asarray(intrinsics, dtype=np.float64)
    if np.abs(matrix[..., 0, 1]).max() > 1e-6 * np.abs(matrix[..., 0, 0]).max():
        raise ValueError(
            f"{name}: intrinsics have skew, which this format cannot hold: got "
            f"{matrix[..., 0, 1].max()}, expected 0. Write a trajectory.npz."
        )
    return np.stack(
        [matrix[..., 0, 0], matrix[..., 1, 1], matrix[..., 0, 2], matrix[..., 1, 2]], -1
    )
