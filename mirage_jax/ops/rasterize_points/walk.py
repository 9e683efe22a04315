"""Walking a work list front to back in plain JAX, past the pages that cannot change anything.

The list is taken in groups of pages. A page is skipped when it is hidden: its nearest row lies
beyond all that still matters in the blocks of cells that its box covers. The walk ends when the
next page lies beyond all that matters anywhere. Both tests are strict, so that ties are seen.

Read next: `xla.py`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float32, Int32

from mirage_jax.ops.rasterize_points.pages import EMPTY, CellGrid, Pages, WorkList
from mirage_jax.ops.rasterize_points.project import Projected, project_rows
from mirage_jax.ops.rasterize_points.work_list import footprint

# Rows visited at a time: enough to pay for a turn of the loop, few enough to stop early.
_GROUP_ROWS = 8192
# List entries looked at to find the pages of a group, as a multiple of the group.
_LOOK_AHEAD = 4
# Side in cells of the blocks that remember their farthest row.
_BLOCK = 8


class Group(NamedTuple):
    """The rows of some pages as one camera sees them; all fields are [g, P].

    Attributes:
        seen: Projection.
        cell: Cell of each row; `num_cells` for rows that fall nowhere.
        inside: Rows that exist and fall into a cell.
        order: Order of each row.
        row: page * P + slot.
        points: x, y and z.
    """

    seen: Projected
    cell: Int32[jax.Array, "g P"]
    inside: Bool[jax.Array, "g P"]
    order: Int32[jax.Array, "g P"]
    row: Int32[jax.Array, "g P"]
    points: tuple[jax.Array, jax.Array, jax.Array]


def walk_pages(
    pages: Pages,
    entries: WorkList,
    numbers: Float32[jax.Array, " 17"],
    grid: CellGrid,
    limit: Callable[[Any], Int32[jax.Array, " m"]],
    visit: Callable[[Any, Int32[jax.Array, " g"], Group], Any],
    state: Any,
) -> Any:
    """Visit the pages of one view's list, nearest first, and return the last state.

    Args:
        pages: n pages, at least one.
        entries: The view's list, without the axis of views.
        numbers: The camera.
        grid: Cells.
        limit: From the state, the bits of the greatest depth that still matters in each cell;
            -1 where nothing does, `NEVER` where everything does.
        visit: Next state from the state, the page numbers and the rows of the next g pages.
        state: What to start from.
    """
    group = max(1, min(_GROUP_ROWS // pages.order.shape[1], entries.page.shape[0]))
    window = min(_LOOK_AHEAD * group, entries.page.shape[0])
    near = jax.lax.bitcast_convert_type(entries.near, jnp.int32)

    def more(carry: tuple[jax.Array, Any]) -> jax.Array:
        cursor, state = carry
        return (cursor < entries.count) & (near[cursor] <= jnp.max(limit(state)))

    def step(carry: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
        cursor, state = carry
        # Slices are shifted back at the end of the list, so look where they really begin.
        start = jnp.minimum(cursor, near.shape[0] - window)
        place = start + jnp.arange(window, dtype=jnp.int32)
        page = jax.lax.dynamic_slice(entries.page, (start,), (window,))
        front = jax.lax.dynamic_slice(near, (start,), (window,))
        box = pages.bounds.at[page].get(mode="promise_in_bounds")
        alive = (place >= cursor) & (place < entries.count)
        alive &= _may_matter(front, box, limit(state), numbers, grid)
        taken = jnp.cumsum(alive, dtype=jnp.int32)
        nth = jnp.arange(group, dtype=jnp.int32)
        chosen = jnp.sum(taken[None, :] <= nth[:, None], axis=1, dtype=jnp.int32)
        cursor = start + jnp.where(chosen[-1] < window, chosen[-1] + 1, window)
        real = chosen < window
        page = page.at[jnp.minimum(chosen, window - 1)].get(mode="promise_in_bounds")
        return cursor, visit(state, page, _look(pages, page, real, numbers, grid))

    return jax.lax.while_loop(more, step, (jnp.zeros((), jnp.int32), state))[1]


def _look(
    pages: Pages,
    page: Int32[jax.Array, " g"],
    real: Bool[jax.Array, " g"],
    numbers: Float32[jax.Array, " 17"],
    grid: CellGrid,
) -> Group:
    """Project the rows of the pages; the rows of those that are not `real` fall nowhere."""
    points = pages.positions.at[page].get(mode="promise_in_bounds")
    order = pages.order.at[page].get(mode="promise_in_bounds")
    x, y, z = (points[:, axis] for axis in range(3))
    seen = project_rows(x, y, z, numbers, grid)
    inside = seen.inside & (order != EMPTY) & real[:, None]
    cell = jnp.where(inside, seen.line * grid.width + seen.column, grid.num_cells)
    row = page[:, None] * order.shape[1] + jnp.arange(order.shape[1], dtype=jnp.int32)
    return Group(seen, cell.astype(jnp.int32), inside, order, row, (x, y, z))


def _may_matter(
    front: Int32[jax.Array, " k"],
    box: Float32[jax.Array, "k 2 3"],
    limit: Int32[jax.Array, " m"],
    numbers: Float32[jax.Array, " 17"],
    grid: CellGrid,
) -> Bool[jax.Array, " k"]:
    """Return which pages could change a cell: not beyond all that matters where they fall.

    Args:
        front: Bits of the least depth of each page.
        box: Bounds of each page.
        limit: Bits of the greatest depth that matters in each cell.
        numbers: The camera.
        grid: Cells.
    """
    low, high = ([box[:, end, axis] for axis in range(3)] for end in range(2))
    left, right, top, bottom = footprint(low, high, numbers)
    lines, columns = -(-grid.height // _BLOCK), -(-grid.width // _BLOCK)
    padding = ((0, lines * _BLOCK - grid.height), (0, columns * _BLOCK - grid.width))
    table = limit.reshape(grid.height, grid.width)
    table = jnp.pad(table, padding, constant_values=-1)
    farthest = table.reshape(lines, _BLOCK, columns, _BLOCK).max((1, 3)).reshape(-1)
    line, column = jnp.divmod(jnp.arange(lines * columns), columns)
    covers = (left[:, None] < (column + 1) * _BLOCK) & (right[:, None] >= column * _BLOCK)
    covers &= (top[:, None] < (line + 1) * _BLOCK) & (bottom[:, None] >= line * _BLOCK)
    return jnp.any(covers & (front[:, None] <= farthest), axis=1)
