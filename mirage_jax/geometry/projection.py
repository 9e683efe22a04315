"""From depth to world points, from world points to pixels, and the rays of a camera.

Conventions: as in ``camera.py``. Depth is z-depth in scene units. The centre of cell i is i + 0.5
(``half_cell=True``, the paper); ``half_cell=False`` takes the bare index i, which is what the
released weights were trained with. ``intrinsics`` must be those of the grid that is used: rescale
them first when the grid is the latent one.

Read next: ``depth.py`` (which cells hold usable depth).
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.namespace import array_namespace, as_float


def cell_centers(hw: tuple[int, int], half_cell: bool = True) -> Float[Any, "h w 2"]:
    """Return the (u, v) position of every cell, in cells.

    Args:
      hw: grid size (height, width).
      half_cell: add the half that leads from a cell's corner to its centre.

    Returns:
      [h, w, 2] float32 NumPy array (a constant, also under ``jit``): column, then row.
    """
    offset = 0.5 if half_cell else 0.0
    rows = np.arange(hw[0], dtype=np.float32) + np.float32(offset)
    columns = np.arange(hw[1], dtype=np.float32) + np.float32(offset)
    u, v = np.meshgrid(columns, rows)
    return np.stack([u, v], axis=-1)


def camera_rays(
    camera: Camera, hw: tuple[int, int], half_cell: bool = True
) -> Float[Any, "*batch h w 3"]:
    """Return the world-frame ray of every cell, of unit z-depth (not of unit length).

    Returns:
      [..., h, w, 3]: the world point of a cell is camera centre + z-depth times its ray.
    """
    xp = array_namespace(camera.cam_to_world, camera.intrinsics)
    matrix, rotation = as_float(camera.intrinsics, xp), as_float(camera.cam_to_world, xp)
    centers = cell_centers(hw, half_cell)
    cell = matrix[..., None, None, :, :]
    y = (centers[..., 1] - cell[..., 1, 2]) / cell[..., 1, 1]
    x = (centers[..., 0] - cell[..., 0, 2] - cell[..., 0, 1] * y) / cell[..., 0, 0]
    axes = rotation[..., None, None, :3, :3]
    return x[..., None] * axes[..., 0] + y[..., None] * axes[..., 1] + axes[..., 2]


def unproject(
    depth: Float[Any, "*batch h w"], camera: Camera, half_cell: bool = True
) -> Float[Any, "*batch h w 3"]:
    """Lift every cell of a depth grid into the world (paper, back-projection).

    Nothing is filtered: a cell of depth 0 lands on the camera centre, and a negative or NaN depth
    gives a point behind the camera or NaN. The caller decides what is valid.

    Args:
      depth: [..., h, w] z-depth in scene units.
      camera: batch as that of `depth` (or one that broadcasts), intrinsics of the h x w grid.
      half_cell: rays through cell centres (default) or through cell indices.

    Returns:
      [..., h, w, 3] world points, float32 or wider.
    """
    xp = array_namespace(depth, camera.cam_to_world, camera.intrinsics)
    depth = as_float(depth, xp)
    rays = camera_rays(camera, (depth.shape[-2], depth.shape[-1]), half_cell)
    origin = as_float(camera.cam_to_world, xp)[..., None, None, :3, 3]
    return origin + depth[..., None] * rays


def project(
    points: Float[Any, "*#batch n 3"], camera: Camera
) -> tuple[Float[Any, "*batch n 2"], Float[Any, "*batch n"]]:
    """Project world points into a camera; nothing is clipped.

    Args:
      points: [..., n, 3] in the world; the batch broadcasts against that of `camera`, so [n, 3]
        points and t cameras give t views of the same points.
      camera: intrinsics of the grid the result is measured in.

    Returns:
      uv: [..., n, 2] column and row in cells, cell i covering [i, i + 1). Where z <= 0 the point
        is not in front of the camera and uv is finite but meaningless: test z.
      z: [..., n] z-depth in scene units, negative behind the camera.
    """
    xp = array_namespace(points, camera.cam_to_world, camera.intrinsics)
    points, pose = as_float(points, xp), as_float(camera.cam_to_world, xp)
    matrix = as_float(camera.intrinsics, xp)[..., None, :, :]
    # Subtract the centre first: far from the world's origin this keeps the low digits.
    offset = points - pose[..., None, :3, 3]
    rotation = pose[..., None, :3, :3]
    local = (
        offset[..., 0:1] * rotation[..., 0, :]
        + offset[..., 1:2] * rotation[..., 1, :]
        + offset[..., 2:3] * rotation[..., 2, :]
    )
    z = local[..., 2]
    safe_z = xp.where(z > 0, z, 1.0)
    x, y = local[..., 0] / safe_z, local[..., 1] / safe_z
    u = matrix[..., 0, 0] * x + matrix[..., 0, 1] * y + matrix[..., 0, 2]
    v = matrix[..., 1, 1] * y + matrix[..., 1, 2]
    return xp.stack([u, v], axis=-1), z


def plucker_rays(
    camera: Camera, hw: tuple[int, int], half_cell: bool = True
) -> Float[Any, "*batch h w 6"]:
    """Return Plücker coordinates of every cell's ray: unit direction, then moment.

    The frame is that of `camera`'s world; express the camera with ``relative_to`` first for rays
    that do not depend on where the world's origin lies.

    Args:
      camera: intrinsics of the grid `hw`.
      hw: grid size (height, width).
      half_cell: rays through cell centres or through cell indices.

    Returns:
      [..., h, w, 6]: direction (unit length), moment = origin x direction (scene units).
    """
    xp = array_namespace(camera.cam_to_world, camera.intrinsics)
    rays = camera_rays(camera, hw, half_cell)
    direction = rays / xp.sqrt(xp.sum(rays * rays, axis=-1, keepdims=True))
    origin = as_float(camera.cam_to_world, xp)[..., None, None, :3, 3]
    moment = xp.cross(xp.broadcast_to(origin, direction.shape), direction)
    return xp.concatenate([direction, moment], axis=-1)
