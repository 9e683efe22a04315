"""Where rows fall: the one projection that every implementation uses, written for scalar cameras.

The arithmetic is that of `geometry.projection.project`, operation for operation, on separate x, y
and z so that it runs on vectors of any shape, in plain JAX and inside kernels. A camera is 17
numbers: rotation (9, camera to world, row by row), centre (3), fx, skew, cx, fy, cy.

Read next: `reference.py`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float32

from mirage_jax.geometry.camera import Camera
from mirage_jax.ops.rasterize_points.pages import CellGrid

CAMERA_NUMBERS = 17
# A key that loses against all others; also the bits of a depth beyond all depths.
NEVER = jnp.iinfo(jnp.int32).max


class Projected(NamedTuple):
    """Rows seen by one camera; all fields have the shape of the rows.

    Attributes:
        u: Column, in cells.
        v: Row, in cells.
        depth: z-depth, scene units.
        column: Column of the cell, a whole number kept as float: it may not fit an integer.
        line: Row of the cell, likewise.
        inside: True where the row is in front of the camera, finite, and in a cell of the grid.
    """

    u: Float32[jax.Array, "*rows"]
    v: Float32[jax.Array, "*rows"]
    depth: Float32[jax.Array, "*rows"]
    column: Float32[jax.Array, "*rows"]
    line: Float32[jax.Array, "*rows"]
    inside: Bool[jax.Array, "*rows"]


def camera_numbers(camera: Camera) -> Float32[jax.Array, "t 17"]:
    """Flatten t cameras to the numbers that `project_rows` reads."""
    to_world = jnp.asarray(camera.cam_to_world, jnp.float32)
    matrix = jnp.asarray(camera.intrinsics, jnp.float32)
    rotation = to_world[:, :3, :3].reshape(-1, 9)
    lens = [matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 0, 2], matrix[:, 1, 1], matrix[:, 1, 2]]
    return jnp.concatenate([rotation, to_world[:, :3, 3], jnp.stack(lens, axis=1)], axis=1)


def view_offset(x: Any, y: Any, z: Any, numbers: Any) -> tuple[Any, Any, Any]:
    """Return world points relative to the camera, in its own axes.

    Args:
        x: World coordinates, any shape.
        y: As x.
        z: As x.
        numbers: The 17 numbers of one camera: an array, or anything that can be indexed.
    """
    # Subtract the centre first: far from the world's origin this keeps the low digits.
    x, y, z = x - numbers[9], y - numbers[10], z - numbers[11]
    right, down, ahead = (
        x * numbers[axis] + y * numbers[3 + axis] + z * numbers[6 + axis] for axis in range(3)
    )
    return right, down, ahead


def project_rows(x: Any, y: Any, z: Any, numbers: Any, grid: CellGrid) -> Projected:
    """Project world points into one camera and find their cells.

    Args:
        x: World coordinates, any shape.
        y: As x.
        z: As x.
        numbers: The 17 numbers of one camera, see `camera_numbers`.
        grid: Cells and rounding.
    """
    right, down, depth = view_offset(x, y, z, numbers)
    safe = jnp.where(depth > 0, depth, 1.0)
    right, down = right / safe, down / safe
    u = numbers[12] * right + numbers[13] * down + numbers[14]
    v = numbers[15] * down + numbers[16]
    snap = jnp.floor if grid.rounding == "floor" else _round_to_even
    column, line = snap(u), snap(v)
    inside = (column >= 0) & (column < grid.width) & (line >= 0) & (line < grid.height)
    # False for NaN as well; an infinite depth would order behind everything but is no depth.
    inside &= (depth > 0) & (depth < jnp.inf)
    return Projected(u, v, depth, column, line, inside)


def _round_to_even(value: Any) -> Any:
    """Round to the nearest whole number, halves to even; `jnp.round`, which not all kernels have.

    Differs from it only where float32 has no halves, far outside any grid.
    """
    below = jnp.floor(value)
    part = value - below
    odd = below - 2 * jnp.floor(below / 2) == 1
    return jnp.where((part > 0.5) | ((part == 0.5) & odd), below + 1, below)
