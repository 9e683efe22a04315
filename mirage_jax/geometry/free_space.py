"""Which points other views looked through: where they saw a surface behind, nothing can stand.

What was seen empty and holds something now has moved, or never was where its depth puts it. No
model of what things look like is needed. A point that other views could not see, outside their
frames or behind what they saw, is left in doubt: it may be a wall that came into view just now.

Conventions: as in ``projection.py``; depth is z-depth on the grid that the intrinsics belong to, 0,
negative and non-finite are unknown.

Read next: ``mirage_jax/memory/moved.py`` (who drops such points).
"""

import functools
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.namespace import array_namespace, as_float
from mirage_jax.geometry.projection import project


def views_through(
    points: Float[Any, "n 3"], camera: Camera, depth: Float[Any, "k h w"], margin: float
) -> Int[Any, " n"]:
    """Count the views that looked through each point.

    A view looked through a point if it lies in the view's frame, and all that the view saw in the
    four cells whose centres surround it is farther than the point by more than ``margin``,
    relative. Cells of unknown depth prove nothing; neither do points within half a cell of the
    frame's border.

    Args:
      points: in the world; a point that is not finite is looked through by no view.
      camera: k views with intrinsics of the h x w grid.
      depth: what they saw, scene units.
      margin: 0 or more.

    Returns:
      [n] number of views, int32.
    """
    xp = array_namespace(points, camera.cam_to_world, depth)
    views, height, width = depth.shape
    depth = as_float(depth, xp)
    known = xp.where(xp.isfinite(depth) & (depth > 0), depth, 0.0).reshape(-1)
    uv, z = project(as_float(points, xp), camera)
    limit = xp.asarray(np.asarray([width, height], np.float32))
    inside = xp.isfinite(z) & (z > 0) & ((uv >= 0.5) & (uv < limit - 0.5)).all(-1)
    corner = xp.floor(xp.where(inside[..., None], uv, 0.5) - 0.5).astype(np.int32)
    first = np.arange(views, dtype=np.int32)[:, None] * (height * width)
    first = first + corner[..., 1] * width + corner[..., 0]
    right, down = min(width, 2) - 1, (min(height, 2) - 1) * width
    seen = functools.reduce(
        xp.minimum, [known[first + step] for step in (0, right, down, right + down)]
    )
    through = inside & (z * (1 + margin) < seen)
    return through.sum(0).astype(np.int32)
