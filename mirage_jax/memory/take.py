"""Entries of the tables of rows, by the number of the row: no more is touched than is taken.

Conventions: a row's number is counted over all partitions, (partition * pages + page) * P + slot.
Numbers are those of rows that exist; others are not caught.

Read next: `read.py`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int32, Shaped

from mirage_jax.ops.platform import current_platform


def take(
    table: Shaped[jax.Array, "V pages P"], row: Int32[jax.Array, "*m"]
) -> Shaped[jax.Array, "*m"]:
    """Return the entry of each row."""
    size = table.shape[-1]
    flat = table.reshape(-1, size)
    return flat.at[row // size, row % size].get(mode="promise_in_bounds")


def take_points(
    table: Float[jax.Array, "V pages 3 P"], row: Int32[jax.Array, "*m"]
) -> Float[jax.Array, "3 *m"]:
    """Return x, y and z of each row."""
    size = table.shape[-1]
    pages, page, slot = table.reshape(-1, 3, size), row // size, row % size
    if current_platform() == "cpu":
        points = pages.at[page, :, slot].get(mode="promise_in_bounds")
        return jnp.moveaxis(points, -1, 0)
    # TPUs keep the table as three planes; taking from them as such makes no copy of it.
    axis = jnp.arange(3).reshape(3, *[1] * row.ndim)
    return jnp.moveaxis(pages, 1, 0).at[axis, page, slot].get(mode="promise_in_bounds")
