"""Public entry of the points rasterizer: argument checks, then the implementation.

The contract lives here and holds for every implementation: the nearest point wins its cell, equal
depths go to the lower index, invalid points never win, empty cells hold -1, and two runs agree bit
for bit. The function is pure, of static shape, and safe under `jax.jit` and `jax.vmap`.

Read next: `reference.py`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from mirage_jax.ops.rasterize_points import reference


def rasterize_points(
    cell: Int[jax.Array, " n"], depth: Float[jax.Array, " n"], num_cells: int
) -> Int[jax.Array, " m"]:
    """Return, for each cell, the index of the nearest point that falls into it.

    Nothing is blended and no gradient flows through the index: gather features with it, and the
    gradient reaches the winning rows.

    Args:
        cell: Flat cell number of each point, int32. Anything outside [0, num_cells), such as -1,
            means that the point falls nowhere.
        depth: Depth of each point, any positive unit. Rows with NaN, infinite, zero or negative
            depth never win. Narrower floats are compared after an exact cast to float32.
        num_cells: Number m of cells of the image; a static Python integer.

    Returns:
        int32 index into the points for each cell, ties in depth going to the lower index; -1 where
        no valid point falls.

    Raises:
        TypeError: If `cell` is not integer, `depth` not floating, or `num_cells` not an int.
        ValueError: If the shapes differ, are not one-dimensional, or `num_cells` is negative.
    """
    _check(cell, depth, num_cells)
    return reference.rasterize_points(
        jnp.asarray(cell, jnp.int32), jnp.asarray(depth, jnp.float32), num_cells
    )


def _check(cell: jax.Array, depth: jax.Array, num_cells: int) -> None:
    """Raise for arguments that no implementation accepts."""
    if isinstance(num_cells, bool) or not isinstance(num_cells, int):
        raise TypeError(
            f"rasterize_points: num_cells has type {type(num_cells).__name__}, expected a Python "
            "int known before tracing; pass h * w, not an array."
        )
    if num_cells < 0:
        raise ValueError(f"rasterize_points: num_cells is {num_cells}, expected 0 or more.")
    if not jnp.issubdtype(cell.dtype, jnp.integer):
        raise TypeError(
            f"rasterize_points: cell has dtype {cell.dtype}, expected integers; floor or round the "
            "projection first."
        )
    if not jnp.issubdtype(depth.dtype, jnp.floating):
        raise TypeError(f"rasterize_points: depth has dtype {depth.dtype}, expected floating.")
    if cell.ndim != 1 or cell.shape != depth.shape:
        raise ValueError(
            f"rasterize_points: cell has shape {cell.shape} and depth {depth.shape}, expected the "
            "same [n] for both; use jax.vmap for batches."
        )
