"""Which boxes can still change a cell: not those beyond all that matters where they fall.

What matters is one depth for each cell, as the bits of a positive float, which order alike. Its
greatest over a rectangle of cells is looked up, not searched: tables of the greatest over all
squares of 1, 2, 4, ... cells are made first, and four squares cover any rectangle that is not
narrow, narrow ones a little more.

Read next: `walk.py`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float32, Int32

from mirage_jax.ops.rasterize_points.pages import CellGrid
from mirage_jax.ops.rasterize_points.work_list import box_span


class Squares(NamedTuple):
    """Where k boxes fall.

    Attributes:
        place: Four squares that cover the cells of each box, as places in the tables.
        anywhere: Boxes that fall into cells at all.
    """

    place: Int32[jax.Array, "4 k"]
    anywhere: Bool[jax.Array, " k"]


def squares_of(
    box: Float32[jax.Array, "k 2 3"], numbers: Float32[jax.Array, " 17"], grid: CellGrid
) -> Squares:
    """Return where boxes fall; anything may be said of an empty one.

    Args:
        box: Corners.
        numbers: The camera.
        grid: Cells.
    """
    left, right, top, bottom = box_span(box, numbers, grid)
    longer = jnp.maximum(jnp.maximum(right - left, bottom - top) + 1, 1)
    level = 31 - jax.lax.clz(longer)
    side = jnp.left_shift(1, level)
    u = jnp.stack([left, jnp.maximum(right - side + 1, left)])
    v = jnp.stack([top, jnp.maximum(bottom - side + 1, top)])
    place = (level * grid.height + v[:, None]) * grid.width + u
    return Squares(place.reshape(4, -1), (left <= right) & (top <= bottom))


# From the bits of the least depths of k boxes, and where they fall, whether they may matter.
Matters = Callable[[Int32[jax.Array, " k"], Squares], Bool[jax.Array, " k"]]


def may_matter(limit: Int32[jax.Array, " m"], grid: CellGrid) -> Matters:
    """Return the test which boxes could change a cell: not beyond all that matters where they fall.

    Args:
        limit: Bits of the greatest depth that matters in each cell; -1 where nothing does.
        grid: Cells.

    Returns:
        Test of the bits of the least depth of each box, and of where it falls.
    """
    greatest = _greatest_in_squares(limit, grid).reshape(-1)

    def test(front: jax.Array, squares: Squares) -> jax.Array:
        farthest = jnp.max(greatest.at[squares.place].get(mode="clip"), axis=0)
        return squares.anywhere & (front <= farthest)

    return test


def _greatest_in_squares(
    limit: Int32[jax.Array, " m"], grid: CellGrid
) -> Int32[jax.Array, "levels h w"]:
    """Return, for each cell and level k, the greatest of the 2^k x 2^k cells from there on."""
    levels = [limit.reshape(grid.height, grid.width)]
    side = 1
    while 2 * side <= max(grid.height, grid.width):
        padded = jnp.pad(levels[-1], ((0, side), (0, side)), constant_values=-1)
        across = jnp.maximum(padded[:, : grid.width], padded[:, side:])
        levels.append(jnp.maximum(across[: grid.height], across[side:]))
        side *= 2
    return jnp.stack(levels)
