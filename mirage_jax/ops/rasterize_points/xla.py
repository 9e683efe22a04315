"""Points rasterizer in plain JAX that stops when everything left is hidden.

The pages of a view are visited front to back in groups. A page is skipped when it is hidden: its
nearest row cannot be nearer than the farthest row found so far in the blocks of cells that its box
covers. The walk ends when the next page is beyond the farthest cell of the whole grid. Both tests
are strict, so that ties are seen, and the result is exactly that of `reference.py`.

Read next: `pallas_tpu.py`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float32, Int32

from mirage_jax.geometry.camera import Camera
from mirage_jax.ops.rasterize_points.pages import EMPTY, CellGrid, Nearest, Pages, WorkList
from mirage_jax.ops.rasterize_points.project import camera_numbers, project_rows, view_offset
from mirage_jax.ops.rasterize_points.reference import NEVER

# Rows visited at a time: enough to pay for a turn of the loop, few enough to stop early.
_GROUP_ROWS = 8192
# List entries looked at to find the pages of a group, as a multiple of the group.
_LOOK_AHEAD = 4
# Side in cells of the blocks that remember their farthest row.
_BLOCK = 8


class _Cells(NamedTuple):
    """Best keys so far of the m cells, and one place more for rows that fall nowhere."""

    bits: Int32[jax.Array, " m"]
    order: Int32[jax.Array, " m"]
    row: Int32[jax.Array, " m"]


def rasterize_points(pages: Pages, camera: Camera, grid: CellGrid, work: WorkList) -> Nearest:
    """Return the nearest row of each cell of each camera; see `api.rasterize_points`."""
    num_pages, page_rows = pages.order.shape
    group = max(1, min(_GROUP_ROWS // page_rows, num_pages))
    window = min(_LOOK_AHEAD * group, num_pages)
    if window == 0:
        shape = (work.page.shape[0], grid.height, grid.width)
        return Nearest(jnp.full(shape, jnp.inf), jnp.full(shape, -1, jnp.int32))

    def one_view(view: tuple[jax.Array, WorkList]) -> Nearest:
        numbers, entries = view

        def more(state: tuple[jax.Array, _Cells]) -> jax.Array:
            cursor, cells = state
            farthest = jnp.max(cells.bits[: grid.num_cells])
            return (cursor < entries.count) & (near[cursor] <= farthest)

        def visit(state: tuple[jax.Array, _Cells]) -> tuple[jax.Array, _Cells]:
            cursor, cells = state
            # Slices are shifted back at the end of the list, so look where they really begin.
            start = jnp.minimum(cursor, entries.page.shape[0] - window)
            place = start + jnp.arange(window, dtype=jnp.int32)
            listed = (place >= cursor) & (place < entries.count)
            page = jax.lax.dynamic_slice(entries.page, (start,), (window,))
            front = jax.lax.dynamic_slice(near, (start,), (window,))
            box = pages.bounds.at[page].get(mode="promise_in_bounds")
            alive = listed & _may_win(front, box, cells, numbers, grid)
            taken = jnp.cumsum(alive, dtype=jnp.int32)
            nth = jnp.arange(group, dtype=jnp.int32)
            chosen = jnp.sum(taken[None, :] <= nth[:, None], axis=1, dtype=jnp.int32)
            full = chosen[-1] < window
            cursor = start + jnp.where(full, chosen[-1] + 1, window)
            real = chosen < window
            chosen = page.at[jnp.minimum(chosen, window - 1)].get(mode="promise_in_bounds")
            return cursor, _visit_group(pages, chosen, real, cells, numbers, grid)

        near = jax.lax.bitcast_convert_type(entries.near, jnp.int32)
        nothing = jnp.full((grid.num_cells + 1,), NEVER, jnp.int32)
        start = (jnp.zeros((), jnp.int32), _Cells(nothing, nothing, nothing))
        _, cells = jax.lax.while_loop(more, visit, start)
        return _lay_out(cells, grid)

    return jax.lax.map(one_view, (camera_numbers(camera), work))


def _may_win(
    front: Int32[jax.Array, " k"],
    box: Float32[jax.Array, "k 2 3"],
    cells: _Cells,
    numbers: Float32[jax.Array, " 17"],
    grid: CellGrid,
) -> Bool[jax.Array, " k"]:
    """Return which pages could change a cell: nearer than the farthest row where they fall.

    Args:
        front: Bits of the least depth of each page.
        box: Bounds of each page.
        cells: What was found so far.
        numbers: The camera.
        grid: Cells.
    """
    left, right, top, bottom = footprint(box, numbers)
    lines, columns = -(-grid.height // _BLOCK), -(-grid.width // _BLOCK)
    padding = ((0, lines * _BLOCK - grid.height), (0, columns * _BLOCK - grid.width))
    table = cells.bits[: grid.num_cells].reshape(grid.height, grid.width)
    table = jnp.pad(table, padding, constant_values=-1)
    farthest = table.reshape(lines, _BLOCK, columns, _BLOCK).max((1, 3)).reshape(-1)
    line, column = jnp.divmod(jnp.arange(lines * columns), columns)
    covers = (left[:, None] < (column + 1) * _BLOCK) & (right[:, None] >= column * _BLOCK)
    covers &= (top[:, None] < (line + 1) * _BLOCK) & (bottom[:, None] >= line * _BLOCK)
    return jnp.any(covers & (front[:, None] <= farthest), axis=1)


def footprint(
    box: Float32[jax.Array, "k 2 3"], numbers: Float32[jax.Array, " 17"]
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Return u and v ranges (left, right, top, bottom) in cells that the rows of a box stay within.

    Wider than the box by a cell and 1 %: far more than rounding, and no matter for skipping. A box
    that comes near the camera's plane covers everything.
    """
    corners = [
        view_offset(box[:, i, 0], box[:, j, 1], box[:, k, 2], numbers)
        for i in range(2)
        for j in range(2)
        for k in range(2)
    ]
    right, down, ahead = (jnp.stack([corner[axis] for corner in corners]) for axis in range(3))
    reach = jnp.max(jnp.abs(right) + jnp.abs(down) + jnp.abs(ahead), axis=0)
    safe = jnp.min(ahead, axis=0) > 1e-3 * reach
    depth = jnp.where(safe, ahead, 1.0)
    y = down / depth
    u = numbers[12] * (right / depth) + numbers[13] * y
    v = numbers[15] * y

    def widen(values: jax.Array, middle: jax.Array) -> tuple[jax.Array, jax.Array]:
        low, high = jnp.min(values, axis=0), jnp.max(values, axis=0)
        low, high = low - 0.01 * jnp.abs(low) - 1, high + 0.01 * jnp.abs(high) + 1
        return jnp.where(safe, low + middle, -jnp.inf), jnp.where(safe, high + middle, jnp.inf)

    return *widen(u, numbers[14]), *widen(v, numbers[16])


def _visit_group(
    pages: Pages,
    page: Int32[jax.Array, " g"],
    real: Bool[jax.Array, " g"],
    cells: _Cells,
    numbers: Float32[jax.Array, " 17"],
    grid: CellGrid,
) -> _Cells:
    """Let the rows of a group of pages compete with what was found so far."""
    points = pages.positions.at[page].get(mode="promise_in_bounds")
    order = pages.order.at[page].get(mode="promise_in_bounds")
    page_rows = order.shape[1]
    row = page[:, None] * page_rows + jnp.arange(page_rows, dtype=jnp.int32)
    seen = project_rows(points[:, 0], points[:, 1], points[:, 2], numbers, grid)
    inside = seen.inside & (order != EMPTY) & real[:, None]
    cell = jnp.where(inside, seen.line * grid.width + seen.column, grid.num_cells)
    cell = cell.astype(jnp.int32)
    bits = jnp.where(inside, jax.lax.bitcast_convert_type(seen.depth, jnp.int32), NEVER)

    new_bits = cells.bits.at[cell].min(bits, mode="promise_in_bounds")
    inside &= bits == new_bits.at[cell].get(mode="promise_in_bounds")
    old_order = jnp.where(new_bits < cells.bits, NEVER, cells.order)
    new_order = old_order.at[cell].min(jnp.where(inside, order, NEVER), mode="promise_in_bounds")
    inside &= order == new_order.at[cell].get(mode="promise_in_bounds")
    # Where an order was beaten the old row must go as well, also when only the depth changed.
    old_row = jnp.where((new_order < old_order), NEVER, cells.row)
    new_row = old_row.at[cell].min(jnp.where(inside, row, NEVER), mode="promise_in_bounds")
    return _Cells(new_bits, new_order, new_row)


def _lay_out(cells: _Cells, grid: CellGrid) -> Nearest:
    """Turn the keys of the cells into depth and row on the grid."""
    shape = (grid.height, grid.width)
    bits, row = cells.bits[: grid.num_cells], cells.row[: grid.num_cells]
    depth = jnp.where(row != NEVER, jax.lax.bitcast_convert_type(bits, jnp.float32), jnp.inf)
    return Nearest(depth.reshape(shape), jnp.where(row != NEVER, row, -1).reshape(shape))
