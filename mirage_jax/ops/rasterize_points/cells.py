"""The nearest point of each cell when points are given by their cell and depth.

Two scatter-min passes instead of a sort: positive IEEE floats order like their bits, so the first
pass finds the smallest depth of each cell and the second the lowest index that has it. A minimum
does not depend on the order of its operands, so duplicate cells keep the result deterministic on
every device, which a scatter that sets values does not promise.

Read next: `api.py`, which does the same from pages of world points.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

_NEVER = jnp.iinfo(jnp.int32).max


def rasterize_cells(
    cell: Int[jax.Array, " n"], depth: Float[jax.Array, " n"], num_cells: int
) -> Int[jax.Array, " m"]:
    """Return the index of the nearest point of each cell, ties to the lower index, -1 for none.

    Args:
        cell: Flat cell number of each point; anything outside [0, num_cells) falls nowhere.
        depth: Positive; rows with NaN, infinite, zero or negative depth never win.
        num_cells: Number m of cells of the image.
    """
    depth = jax.lax.stop_gradient(jnp.asarray(depth, jnp.float32))
    valid = jnp.isfinite(depth) & (depth > 0) & (cell >= 0) & (cell < num_cells)
    # Negative indices would wrap around, so points that fall nowhere go one past the end instead.
    target = jnp.where(valid, cell, num_cells)
    bits = jax.lax.bitcast_convert_type(depth, jnp.int32)
    bits = jnp.where(valid, bits, _NEVER)
    nearest = jnp.full((num_cells + 1,), _NEVER, jnp.int32).at[target].min(bits)
    index = jnp.arange(cell.shape[0], dtype=jnp.int32)
    candidate = jnp.where(valid & (bits == nearest[target]), index, _NEVER)
    winner = jnp.full((num_cells + 1,), _NEVER, jnp.int32).at[target].min(candidate)
    return jnp.where(winner == _NEVER, -1, winner)[:num_cells]
