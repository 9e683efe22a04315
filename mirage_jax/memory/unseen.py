"""Which cells of a frame the memory does not show yet: what `write_where="unseen"` adds.

A cell is an area, not a ray: on a floor at a slant one cell spans many depths, and beside an edge
rows of the foreground fall into cells whose centre is background. A row in such a cell hides
whatever is written behind it, so the cell would look unseen at every visit, and be written again.

Conventions: depth is z-depth on the latent grid; 0, negative and non-finite are unknown.

Read next: `read.py`.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mirage_jax.memory.config import MemoryConfig
from mirage_jax.memory.read import MemoryRead


def unseen(
    found: MemoryRead, depth: Float[jax.Array, "t h w"], config: MemoryConfig
) -> Bool[jax.Array, "t h w"]:
    """Return True for the cells that the memory does not show yet.

    A cell is seen when the row read there lies within `config.shell`, relative, of the depth at its
    center or, with `seen_by="extent"`, of the depths that it may show (see `depth_extent`). Cells
    of unknown depth are unseen.

    Args:
        found: What the memory shows to the frame's cameras, holes left open.
        depth: z-depth of the cells that might be written, scene units.
        config: `shell` and `seen_by`.
    """
    near, far = depth_extent(depth) if config.seen_by == "extent" else (depth, depth)
    seen = found.depth >= near * (1 - config.shell)
    seen &= found.depth <= far * (1 + config.shell)
    return ~(found.visibility & seen)


def depth_extent(
    depth: Float[jax.Array, "*batch h w"],
) -> tuple[Float[jax.Array, "*batch h w"], Float[jax.Array, "*batch h w"]]:
    """Return the least and the greatest depth that rows in a cell may have and still belong there.

    The least is that of the nearest of the 3 x 3 cells around: foreground that the frame itself
    shows next door. The greatest is reached half way to the farthest of them. On a plane *inverse*
    depth is linear in the cell, so half way is the harmonic mean. Unknown cells do not count. Cells
    at the border of the grid have no neighbours outside: there the slope goes on for half a cell.

    Args:
        depth: z-depth of the cells, scene units.

    Returns:
        (near, far) in scene units; where the cell itself is unknown the extent is empty (inf, 0).
    """
    known = jnp.isfinite(depth) & (depth > 0)
    inverse = 1 / jnp.where(known, depth, 1.0)

    def least_of_nine(values: jax.Array) -> jax.Array:
        """Take the window one axis after the other; it goes no farther than the grid."""
        values, ones = jnp.where(known, values, jnp.inf), (1,) * depth.ndim
        for axis in (-2, -1):
            window = [1] * depth.ndim
            window[axis] = 3
            values = jax.lax.reduce_window(values, jnp.inf, jax.lax.min, window, ones, "SAME")
        return values

    near, far = least_of_nine(depth), 2 / (inverse + least_of_nine(inverse))
    for axis in (-2, -1):
        outer = inverse + (inverse - _inward(inverse, known, axis)) / 2
        near = jnp.minimum(near, 1 / jnp.maximum(outer, inverse))
        # No farther than twice as far: towards a horizon there is no end.
        far = jnp.maximum(far, 1 / jnp.clip(outer, inverse / 2, inverse))
    return jnp.where(known, near, jnp.inf), jnp.where(known, far, 0.0)


def _inward(values: jax.Array, known: jax.Array, axis: int) -> jax.Array:
    """Return what lies one cell inward of the border's cells, and all other values as they are."""
    if values.shape[axis] < 2:
        return values
    take = partial(jax.lax.slice_in_dim, axis=values.ndim + axis)

    def moved(table: jax.Array) -> jax.Array:
        parts = [take(table, 1, 2), take(table, 1, -1), take(table, -2, -1)]
        return jnp.concatenate(parts, axis=axis)

    return jnp.where(moved(known), moved(values), values)
