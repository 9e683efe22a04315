"""How much two views share of what is remembered, and which past frames to show again.

Conventions: a view sees the rows that project into its grid, hidden or not; overlap is the
intersection over union of the cubes of side `voxel_size` that hold the rows seen. NumPy on the
host, in float32, multiplied and added in a fixed order: a frame's own first row and column lie
exactly on the edge of its grid, so another rounding picks other frames.

Read next: `mirage_jax/rollout/references.py`.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mirage_jax.geometry.camera import Camera


def view_overlaps(
    positions: Float[Any, "n 3"],
    history: Camera,
    targets: Camera,
    grid_hw: tuple[int, int],
    voxel_size: float,
) -> Float[np.ndarray, " m"]:
    """Return how much each past view shares with all target views together.

    Args:
        positions: world points of the memory's rows in use.
        history: m past cameras, intrinsics of the latent grid.
        targets: t cameras of the frames to make, likewise.
        grid_hw: (h, w) of the latent grid.
        voxel_size: side of the cubes, scene units.

    Returns:
        Intersection over union in [0, 1]; 0 where neither side sees anything.
    """
    points = np.asarray(positions, np.float32)
    cubes = np.floor(points / np.float32(voxel_size))
    _, cube = np.unique(cubes, axis=0, return_inverse=True)
    cube, count = cube.reshape(-1), int(cube.max(initial=-1)) + 1
    wanted = np.zeros(count, bool)
    for view in _views(targets):
        wanted[cube[rows_in_view(points, view, grid_hw)]] = True
    overlaps = []
    for view in _views(history):
        seen = np.zeros(count, bool)
        seen[cube[rows_in_view(points, view, grid_hw)]] = True
        union = np.count_nonzero(seen | wanted)
        overlaps.append(np.count_nonzero(seen & wanted) / union if union else 0.0)
    return np.asarray(overlaps)


def best_views(overlaps: Float[Any, " m"], most: int, threshold: float) -> tuple[int, ...]:
    """Return the views that overlap by `threshold` or more, best first, at most `most` of them.

    Equal ones in the order given.
    """
    overlaps = np.asarray(overlaps)
    order = np.argsort(-overlaps, kind="stable")
    return tuple(int(i) for i in order[:most] if overlaps[i] >= threshold)


def rows_in_view(
    points: Float[np.ndarray, "n 3"], view: Camera, grid_hw: tuple[int, int]
) -> Bool[np.ndarray, " n"]:
    """Return True for the points in front of a camera that project into its grid."""
    pose, matrix = (np.asarray(leaf, np.float32) for leaf in view)
    local = []
    for axis in pose[:3, :3].T:
        offset = -(axis[0] * pose[0, 3] + axis[1] * pose[1, 3] + axis[2] * pose[2, 3])
        turned = axis[0] * points[:, 0] + axis[1] * points[:, 1] + axis[2] * points[:, 2]
        local.append(turned + offset)
    x, y, z = local
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = x / z, y / z
        u = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]
        v = matrix[1, 1] * y + matrix[1, 2]
    height, width = grid_hw
    return (z > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)


def _views(cameras: Camera) -> list[Camera]:
    return [Camera(*leaves) for leaves in zip(*cameras, strict=True)]
