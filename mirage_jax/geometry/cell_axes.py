"""How the cells of a depth grid lie in the world: where one cell to the right and one down lead.

A cell sees a small piece of a surface. To first order that piece is a plane: its middle, and the
two steps in the world that stay on it while the picture moves by one cell to the right or down.
From them any other camera knows in which parallelogram it sees the piece.

Conventions: as in ``projection.py``. Slopes are of inverse depth, which is linear in the picture
where the surface is a plane, relative to the cell's own and per cell. Steps are divided by the
cell's depth, so that they do not depend on the unit of length.

Read next: ``projection.py`` (the middles of the pieces).
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.namespace import array_namespace, as_float
from mirage_jax.geometry.projection import camera_rays

# Steeper than this a cell's depth grows threefold from side to side; its plane says little.
_STEEPEST = 1.0


def inverse_depth_slopes(depth: Float[Any, "*batch h w"]) -> Float[Any, "*batch h w 2"]:
    """Return how inverse depth grows per cell to the right and per cell down, relative to itself.

    Of the differences to both neighbours the mean is taken where they are alike (within a factor
    of two), else the smaller: on a depth edge that is the one within the surface.

    Args:
      depth: [..., h, w] z-depth in scene units; what is not positive and finite is unknown.

    Returns:
      [..., h, w, 2], within +-1; 0 where nothing beside the cell is known.
    """
    xp = array_namespace(depth)
    depth = as_float(depth, xp)
    known = xp.isfinite(depth) & (depth > 0)
    safe = xp.where(known, depth, 1.0)
    slopes = [_slope(xp, 1.0 / safe, known, axis) * safe for axis in (-1, -2)]
    slopes = xp.where(known[..., None], xp.stack(slopes, axis=-1), 0.0)
    return xp.clip(slopes, -_STEEPEST, _STEEPEST)


def _slope(xp: Any, inverse: Any, known: Any, axis: int) -> Any:
    """Return the slope along one axis; see `inverse_depth_slopes`."""
    before, after = _sides(xp, inverse, axis)
    known_before, known_after = (known & side for side in _sides(xp, known, axis, edge=False))
    down = xp.where(known_before, inverse - before, xp.where(known_after, after - inverse, 0.0))
    up = xp.where(known_after, after - inverse, down)
    least = xp.where(xp.abs(down) < xp.abs(up), down, up)
    alike = (down * up > 0) & (xp.abs(down + up) < 3.0 * xp.abs(least))
    return xp.where(alike, 0.5 * (down + up), least)


def _sides(xp: Any, grid: Any, axis: int, edge: bool = True) -> tuple[Any, Any]:
    """Return what stands before and after each cell; at the border itself, or False."""
    size = grid.shape[axis]
    place = np.arange(size)
    before, after = np.maximum(place - 1, 0), np.minimum(place + 1, size - 1)
    pair = (xp.take(grid, before, axis=axis), xp.take(grid, after, axis=axis))
    if edge:
        return pair
    shape = (size,) if axis == -1 else (size, 1)
    inside = ((place > 0).reshape(shape), (place < size - 1).reshape(shape))
    return pair[0] & inside[0], pair[1] & inside[1]


def cell_axes(
    depth: Float[Any, "*batch h w"], camera: Camera, half_cell: bool = True
) -> Float[Any, "*batch h w 3 2"]:
    """Return the steps in the world that lead one cell to the right and one down on a cell's plane.

    Args:
      depth: [..., h, w] z-depth in scene units.
      camera: batch as that of `depth`, intrinsics of the h x w grid.
      half_cell: rays through cell centres (default) or through cell indices.

    Returns:
      [..., h, w, 3, 2] in the world, divided by the cell's depth: to the right, and down.
    """
    xp = array_namespace(depth, camera.cam_to_world, camera.intrinsics)
    slopes = inverse_depth_slopes(depth)
    rays = camera_rays(camera, (depth.shape[-2], depth.shape[-1]), half_cell)
    matrix, pose = as_float(camera.intrinsics, xp), as_float(camera.cam_to_world, xp)
    right = pose[..., :3, 0] / matrix[..., 0, 0, None]
    skew = matrix[..., 0, 1, None] * right
    down = (pose[..., :3, 1] - skew) / matrix[..., 1, 1, None]
    steps = xp.stack([right, down], axis=-1)[..., None, None, :, :]
    return steps - rays[..., None] * slopes[..., None, :]
