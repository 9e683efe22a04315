"""The one camera type, and what can be done with it without looking at depth.

Conventions: OpenCV axes (x right, y down, z forward). ``cam_to_world`` is 4x4 and rigid, in scene
units. ``intrinsics`` is 3x3 in pixels of a stated grid, with the centre of the top-left pixel at
(0.5, 0.5). The image size is passed separately, never stored, because a NamedTuple of arrays is a
pytree and a size would become a traced leaf. Leading dimensions are a batch (usually frames).

Products are written as sums and not with ``@``: accelerators multiply float32 matrices in bf16 or
tf32 by default, which would move points by whole cells.

Read next: ``projection.py`` (points and rays), ``validation.py`` (checks at the border).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxtyping import Float

from mirage_jax.geometry.namespace import array_namespace, as_float


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
