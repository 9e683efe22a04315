"""The one camera type, and what can be done with it without looking at depth.

Conventions: OpenCV axes (x right, y down, z forward). ``cam_to_world`` is 4x4 and rigid, in scene
units. ``intrinsics`` is 3x3 in pixels of a stated grid, with the centre of the top-left pixel at
(0.5, 0.5). The image size is passed separately, never stored, because a NamedTuple of arrays is a
pytree and a size would become a traced leaf. Leading dimensions are a batch (usually frames).

Products are written as sums and not with ``@``: accelerators multiply float32 matrices in bf16 or
tf32 by default, which would move points by whole cells.

Read next: ``projection.py`` (points and rays), ``trajectories.py``, ``camera_files/``.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mirage_jax.geometry.namespace import array_namespace, as_float

# Largest accepted deviation of R^T R from the identity: text files carry about six digits.
_ROTATION_TOLERANCE = 1e-3


class Camera(NamedTuple):
    """One camera, or a batch of them along leading dimensions.

    Attributes:
      cam_to_world: [..., 4, 4] rigid transform from camera to world, OpenCV axes, scene units.
      intrinsics: [..., 3, 3] focal lengths and principal point in pixels.
    """

    cam_to_world: Float[Any, "*batch 4 4"]
    intrinsics: Float[Any, "*batch 3 3"]


def compose(
    first: Float[Any, "*#batch n m"], second: Float[Any, "*#batch m p"]
) -> Float[Any, "*batch n p"]:
    """Multiply small matrices at full precision: `first` times `second`, batches broadcast."""
    xp = array_namespace(first, second)
    return xp.sum(first[..., :, :, None] * second[..., None, :, :], axis=-2)


def invert_rigid(matrix: Float[Any, "*batch 4 4"]) -> Float[Any, "*batch 4 4"]:
    """Invert rigid 4x4 transforms by transposing the rotation; general matrices are not handled."""
    xp = array_namespace(matrix)
    matrix = as_float(matrix, xp)
    rotation = xp.swapaxes(matrix[..., :3, :3], -1, -2)
    translation = -xp.sum(rotation * matrix[..., None, :3, 3], axis=-1)
    top = xp.concatenate([rotation, translation[..., None]], axis=-1)
    return xp.concatenate([top, matrix[..., 3:, :]], axis=-2)


def world_to_cam(camera: Camera) -> Float[Any, "*batch 4 4"]:
    """Return the [..., 4, 4] transforms from world to camera."""
    return invert_rigid(camera.cam_to_world)


def camera_center(camera: Camera) -> Float[Any, "*batch 3"]:
    """Return the [..., 3] positions of the cameras in the world, in scene units."""
    return camera.cam_to_world[..., :3, 3]


def relative_to(camera: Camera, reference: Camera) -> Camera:
    """Express `camera` in the frame of `reference`: the reference itself becomes the identity.

    Args:
      camera: cameras with any batch.
      reference: one camera, or a batch that broadcasts against that of `camera`.

    Returns:
      Cameras whose "world" is the reference camera's frame; intrinsics unchanged.
    """
    xp = array_namespace(camera.cam_to_world, reference.cam_to_world)
    moved = compose(world_to_cam(reference), as_float(camera.cam_to_world, xp))
    return Camera(moved, camera.intrinsics)


def rescale_intrinsics(
    intrinsics: Float[Any, "*batch 3 3"], from_hw: tuple[int, int], to_hw: tuple[int, int]
) -> Float[Any, "*batch 3 3"]:
    """Adapt intrinsics to an image resized from `from_hw` to `to_hw` (height, width).

    With pixel centres at (i + 0.5) a resize is a plain scaling, principal point included; the ray
    through a scene point does not change.
    """
    xp = array_namespace(intrinsics)
    intrinsics = as_float(intrinsics, xp)
    scale_y, scale_x = to_hw[0] / from_hw[0], to_hw[1] / from_hw[1]
    scale = xp.asarray([scale_x, scale_y, 1.0], dtype=intrinsics.dtype)
    return intrinsics * scale[:, None]


def crop_intrinsics(
    intrinsics: Float[Any, "*batch 3 3"], top: float, left: float
) -> Float[Any, "*batch 3 3"]:
    """Adapt intrinsics to an image whose first `top` rows and `left` columns were cut off."""
    xp = array_namespace(intrinsics)
    intrinsics = as_float(intrinsics, xp)
    shift = xp.asarray([[0, 0, left], [0, 0, top], [0, 0, 0]], dtype=intrinsics.dtype)
    return intrinsics - shift


def index_camera(camera: Camera, index: Any) -> Camera:
    """Take `index` (integer, slice or integer array) along the first batch dimension."""
    return Camera(camera.cam_to_world[index], camera.intrinsics[index])


def stack_cameras(cameras: Sequence[Camera]) -> Camera:
    """Stack cameras of equal batch along a new first dimension."""
    xp = array_namespace(*(camera.cam_to_world for camera in cameras))
    return Camera(
        xp.stack([camera.cam_to_world for camera in cameras]),
        xp.stack([camera.intrinsics for camera in cameras]),
    )


def concatenate_cameras(cameras: Sequence[Camera]) -> Camera:
    """Join batches of cameras along their first dimension."""
    xp = array_namespace(*(camera.cam_to_world for camera in cameras))
    return Camera(
        xp.concatenate([camera.cam_to_world for camera in cameras]),
        xp.concatenate([camera.intrinsics for camera in cameras]),
    )


def validate_camera(camera: Camera, name: str = "camera") -> Camera:
    """Check cameras that come from outside (NumPy only; not for use under ``jit``).

    Args:
      camera: any pair of array-likes; intrinsics may lack the batch and are then repeated.
      name: how the user knows this argument; every message starts with it.

    Returns:
      The camera as NumPy arrays, float32 or wider, with equal batches.

    Raises:
      TypeError: `camera` is not a pair of numeric arrays.
      ValueError: wrong shapes, values that are not finite, a last row other than (0, 0, 0, 1), a
        mirrored, scaled or skewed rotation, focal lengths that are not positive.
    """
    if not isinstance(camera, tuple) or len(camera) != 2:
        raise TypeError(
            f"{name} is not a camera: got {type(camera).__name__}, expected "
            "Camera(cam_to_world, intrinsics). Build it with mirage_jax.geometry.camera.Camera."
        )
    pose = _finite_matrices(camera[0], 4, f"{name}.cam_to_world")
    matrix = _finite_matrices(camera[1], 3, f"{name}.intrinsics")
    if matrix.ndim == 2:
        matrix = np.broadcast_to(matrix, (*pose.shape[:-2], 3, 3)).copy()
    if matrix.shape[:-2] != pose.shape[:-2]:
        raise ValueError(
            f"{name}.intrinsics has another batch than cam_to_world: got {matrix.shape} against "
            f"{pose.shape}, expected {(*pose.shape[:-2], 3, 3)} or (3, 3). Give one intrinsic "
            "matrix per camera, or a single one for all."
        )
    _check_rigid(pose, f"{name}.cam_to_world")
    _check_intrinsics(matrix, f"{name}.intrinsics")
    return Camera(pose, matrix)


def _finite_matrices(value: Any, size: int, name: str) -> np.ndarray:
    """Return `value` as a float array [..., size, size] without NaN or infinity, or raise."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise TypeError(
            f"{name} does not hold numbers: got dtype {array.dtype}, expected floating point. "
            "Convert it to a float32 array."
        )
    if array.shape[-2:] != (size, size):
        cure = "Append the row (0, 0, 0, 1)." if array.shape[-2:] == (3, 4) else "Check the order."
        raise ValueError(
            f"{name} has the wrong shape: got {array.shape}, expected [..., {size}, {size}]. {cure}"
        )
    if array.size == 0:
        raise ValueError(
            f"{name} is empty: got {array.shape}, expected at least one camera. Check the source."
        )
    array = as_float(array, np)
    bad = ~np.isfinite(array).all(axis=(-2, -1))
    if bad.any():
        raise ValueError(
            f"{name} has values that are not finite: got {int(bad.sum())} such matrices, the first "
            f"at {_first(bad)}, expected none. Drop these cameras or estimate them again."
        )
    return array


def _first(bad: np.ndarray) -> str:
    """Name the first True position for a message."""
    if bad.ndim == 0:
        return "the only camera"
    index = np.argwhere(bad)[0].tolist()
    return f"index {index[0] if len(index) == 1 else tuple(index)}"


def _check_rigid(pose: np.ndarray, name: str) -> None:
    """Raise unless every [..., 4, 4] matrix is a rotation and a translation."""
    bad = np.abs(pose[..., 3, :] - np.array([0, 0, 0, 1])).max(axis=-1) > _ROTATION_TOLERANCE
    if bad.any():
        row = pose[..., 3, :][bad][0].tolist()
        raise ValueError(
            f"{name} has a wrong last row: got {row} at {_first(bad)}, "
            "expected [0, 0, 0, 1]. A translation found there means the matrix is transposed."
        )
    rotation = pose[..., :3, :3].astype(np.float64)
    deviation = np.abs(np.swapaxes(rotation, -1, -2) @ rotation - np.eye(3)).max(axis=(-2, -1))
    bad = deviation > _ROTATION_TOLERANCE
    if bad.any():
        scale = np.linalg.norm(rotation[bad][0], axis=0).round(4).tolist()
        raise ValueError(
            f"{name} holds a matrix that is not a rotation: got columns of length {scale} and a "
            f"deviation of R^T R from the identity of {deviation[bad][0]:.3g} at {_first(bad)}, "
            f"expected unit columns and at most {_ROTATION_TOLERANCE:g}. Remove scale or skew from "
            "the upper left 3x3 (for a small error take U V^T of its SVD)."
        )
    bad = np.linalg.det(rotation) < 0
    if bad.any():
        raise ValueError(
            f"{name} is mirrored: got a rotation of determinant -1 at {_first(bad)}, expected +1. "
            "One axis is flipped; convert conventions by flipping two (OpenGL to OpenCV: "
            "right-multiply by diag(1, -1, -1, 1))."
        )


def _check_intrinsics(matrix: np.ndarray, name: str) -> None:
    """Raise unless every [..., 3, 3] matrix is upper triangular with positive focal lengths."""
    bad = (matrix[..., 0, 0] <= 0) | (matrix[..., 1, 1] <= 0)
    if bad.any():
        focal = matrix[bad][0].diagonal()[:2].tolist()
        raise ValueError(
            f"{name} has focal lengths that are not positive: got (fx, fy) = {focal} at "
            f"{_first(bad)}, expected pixels above 0. Check the units and the order fx, fy, cx, cy."
        )
    lower = np.abs(matrix[..., [1, 2, 2], [0, 0, 1]]).max(axis=-1)
    bad = (lower > 1e-6) | (np.abs(matrix[..., 2, 2] - 1) > 1e-6)
    if bad.any():
        raise ValueError(
            f"{name} is not of the form [[fx, s, cx], [0, fy, cy], [0, 0, 1]]: got "
            f"{matrix[bad][0].tolist()} at {_first(bad)}. Transpose it if cx and cy are in the "
            "last row."
        )
