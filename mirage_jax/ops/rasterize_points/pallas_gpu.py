"""The walk over pages as a GPU kernel (Pallas through Triton, which JAX picks for GPUs).

One program for each camera and tile of cells, with the tile's best (key, order, row) in registers.
It walks the camera's list, skips pages whose box misses the tile or that are hidden there, and ends
when the next page is beyond all that matters in the tile. A page's rows are compared with all cells
of the tile, a minimum over rows: no atomics, no sort, so the result does not depend on timing.

Compiled ahead of time for the H100 and run in interpret mode; not yet run on a GPU. There, division
may round differently from XLA's, so that a row within an ulp of a cell's edge may change its cell.

Read next: `tests/ops/test_gpu_kernels.py`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Int32

from mirage_jax.geometry.camera import Camera
from mirage_jax.ops.rasterize_points.pages import (
    EMPTY,
    CellBounds,
    CellGrid,
    Nearest,
    Pages,
    WorkList,
    comes_after,
)
from mirage_jax.ops.rasterize_points.project import (
    CAMERA_NUMBERS,
    NEVER,
    camera_numbers,
    project_rows,
)
from mirage_jax.ops.rasterize_points.work_list import pack_entries

# Cells of a tile (lines, columns) and rows compared with them at a time; powers of two.
_TILE = (4, 16)
_STRIP = 64

_Best = tuple[jax.Array, jax.Array, jax.Array]


def rasterize_points(
    pages: Pages, camera: Camera, grid: CellGrid, work: WorkList, interpret: bool = False
) -> Nearest:
    """Return the nearest row of each cell of each camera; see `api.rasterize_points`."""
    key, row = walk_pages(pages, (), camera, grid, work, None, None, interpret)
    depth = jax.lax.bitcast_convert_type(key, jnp.float32)
    return Nearest(jnp.where(row == NEVER, jnp.inf, depth), jnp.where(row == NEVER, -1, row))


def walk_pages(
    pages: Pages,
    tables: tuple[jax.Array, ...],
    camera: Camera,
    grid: CellGrid,
    work: WorkList,
    bounds: CellBounds | None,
    contest: Any,
    interpret: bool = False,
) -> tuple[Int32[jax.Array, "t h w"], Int32[jax.Array, "t h w"]]:
    """Return the lowest key of each cell and its row, `NEVER` where none.

    Args:
        pages: n pages of P rows, P a multiple of 64.
        tables: Further tables for the contest, each [n, r, P].
        camera: t cameras.
        grid: Cells.
        work: Pages to visit.
        bounds: What takes part in each cell; None lets any depth take part and stops at the
            nearest rows found.
        contest: From (projection, points, table values, camera, depth bits), the first key of each
            row and the bits that are held against the limit; None competes by depth.
        interpret: True to run the kernel's operations on a CPU.

    Raises:
        ValueError: If P is not a multiple of 64.
    """
    num_views, (n, page_rows) = work.page.shape[0], pages.order.shape
    if page_rows % _STRIP:
        raise ValueError(
            f"pallas_gpu: pages have {page_rows} rows, expected a multiple of {_STRIP}; write the "
            "memory with such pages, or pass implementation='xla'."
        )
    if n == 0 or work.page.shape[1] == 0:
        none = jnp.full((num_views, grid.height, grid.width), NEVER, jnp.int32)
        return none, none
    tiles = (-(-grid.height // _TILE[0]), -(-grid.width // _TILE[1]))
    height, width = tiles[0] * _TILE[0], tiles[1] * _TILE[1]
    all_depths = jnp.full((num_views, grid.height, grid.width), NEVER)
    limits = all_depths if bounds is None else bounds.limit
    given = None if bounds is None else bounds.after
    padding = ((0, 0), (0, height - grid.height), (0, width - grid.width))
    # Cells beyond the grid: nothing matters there.
    limits = _to_tiles(jnp.pad(limits, padding, constant_values=-1), tiles)
    after = [_to_tiles(jnp.pad(key, padding, constant_values=NEVER), tiles) for key in given or ()]
    numbers = camera_numbers(camera)
    cells = (1, 1, 1, _TILE[0] * _TILE[1])
    block = pl.BlockSpec(cells, lambda view, line, column: (view, line, column, 0))
    whole = pl.BlockSpec(memory_space=pl.ANY)
    entries = jnp.stack(pack_entries(pages.bounds, numbers, grid, work), axis=1)
    key, row = pl.pallas_call(
        functools.partial(
            _one_tile, grid=grid, contest=contest, bounded=bounds is not None, keys=len(after)
        ),
        out_shape=[jax.ShapeDtypeStruct(limits.shape, jnp.int32)] * 2,
        grid=(num_views, *tiles),
        in_specs=[*[whole] * 3, *[block] * (1 + len(after)), *[whole] * (2 + len(tables))],
        out_specs=[block, block],
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=2),
        interpret=interpret,
        name="walk_pages",
    )(work.count, numbers, entries, limits, *after, pages.positions, pages.order, *tables)
    return tuple(_from_tiles(table, grid) for table in (key, row))  # type: ignore[return-value]


def _to_tiles(table: jax.Array, tiles: tuple[int, int]) -> jax.Array:
    """Reorder [t, h, w] to [t, tile lines, tile columns, cells of a tile]."""
    split = table.reshape(-1, tiles[0], _TILE[0], tiles[1], _TILE[1])
    return split.swapaxes(2, 3).reshape(-1, *tiles, _TILE[0] * _TILE[1])


def _from_tiles(table: jax.Array, grid: CellGrid) -> jax.Array:
    """Undo `_to_tiles` and cut the grid out."""
    t, lines, columns, _ = table.shape
    split = table.reshape(t, lines, columns, *_TILE).swapaxes(2, 3)
    return split.reshape(t, lines * _TILE[0], -1)[:, : grid.height, : grid.width]


def _one_tile(
    count_ref: Any,
    numbers_ref: Any,
    entries_ref: Any,
    limit_ref: Any,
    *refs: Any,
    grid: CellGrid,
    contest: Any,
    bounded: bool,
    keys: int,
) -> None:
    """Walk one camera's list for one tile; first come `keys` tables of what rows come after."""
    *table_refs, key_ref, row_ref = refs[keys:]
    after = [ref[0, 0, 0, :] for ref in refs[:keys]]
    view, top, left = pl.program_id(0), pl.program_id(1) * _TILE[0], pl.program_id(2) * _TILE[1]
    count = count_ref[view]
    numbers = [numbers_ref[view, index] for index in range(CAMERA_NUMBERS)]
    limit = limit_ref[0, 0, 0, :]
    cell = jax.lax.broadcasted_iota(jnp.int32, limit.shape, 0)
    cell = (top + cell // _TILE[1]) << 16 | (left + cell % _TILE[1])

    def farthest(best: _Best) -> jax.Array:
        return jnp.max(limit if bounded else jnp.minimum(best[0], limit))

    def more(carry: tuple[jax.Array, _Best]) -> jax.Array:
        entry, best = carry
        near = entries_ref[view, 1, jnp.minimum(entry, count - 1)]
        return (entry < count) & (near <= farthest(best))

    def step(carry: tuple[jax.Array, _Best]) -> tuple[jax.Array, _Best]:
        entry, best = carry
        page, _, columns, lines = (entries_ref[view, field, entry] for field in range(4))
        covers = (columns >> 16 < left + _TILE[1]) & ((columns & 0xFFFF) >= left)
        covers &= (lines >> 16 < top + _TILE[0]) & ((lines & 0xFFFF) >= top)

        def strip(index: jax.Array, best: _Best) -> _Best:
            first = pl.multiple_of(index * _STRIP, _STRIP)
            rows = _load_keys(table_refs, page, first, numbers, grid, contest)
            return _compete(best, rows, cell, [limit, *after] if bounded else [])

        def look(best: _Best) -> _Best:
            return jax.lax.fori_loop(0, table_refs[1].shape[1] // _STRIP, strip, best)

        return entry + 1, jax.lax.cond(covers, look, lambda best: best, best)

    nothing = jnp.full(limit.shape, NEVER, jnp.int32)
    start = (jnp.int32(0), (nothing, nothing, nothing))
    _, (key, _, row) = jax.lax.while_loop(more, step, start)
    key_ref[0, 0, 0, :], row_ref[0, 0, 0, :] = key, row


def _load_keys(
    table_refs: list[Any],
    page: jax.Array,
    first: jax.Array,
    numbers: list[Any],
    grid: CellGrid,
    contest: Any,
) -> tuple[jax.Array, ...]:
    """Return cell (-1 for nowhere), first key, order, row and limited bits of a page's rows."""
    rows = pl.ds(first, _STRIP)
    position_ref, order_ref, *other_refs = table_refs
    x, y, z = (position_ref[page, axis, rows] for axis in range(3))
    order = order_ref[page, rows]
    seen = project_rows(x, y, z, numbers, grid)
    inside = seen.inside & (order != EMPTY)
    line = jnp.where(inside, seen.line, 0.0).astype(jnp.int32)
    column = jnp.where(inside, seen.column, 0.0).astype(jnp.int32)
    bits = jax.lax.bitcast_convert_type(seen.depth, jnp.int32)
    key = bits
    if contest is not None:
        others = [[ref[page, axis, rows] for axis in range(ref.shape[1])] for ref in other_refs]
        key, bits = contest(seen, (x, y, z), others, numbers, bits)
    row = page * order_ref.shape[1] + first + jax.lax.broadcasted_iota(jnp.int32, x.shape, 0)
    return jnp.where(inside, line << 16 | column, -1), key, order, row, bits


def _compete(
    best: _Best, rows: tuple[jax.Array, ...], cell: jax.Array, bounds: list[jax.Array]
) -> _Best:
    """Return the lowest (key, order, row) of each cell among the best so far and some rows.

    Args:
        best: Keys so far.
        rows: Cell, first key, order, row and limited bits of some rows.
        cell: The cells.
        bounds: Limit of each cell and the keys its rows must come after, where there are some.
    """
    where, *keys, bits = rows
    among = where[:, None] == cell[None, :]
    if bounds:
        limit, *after = (bound[None, :] for bound in bounds)
        among &= bits[:, None] <= limit
        if after:
            among &= comes_after([key[:, None] for key in keys], after)
    lowest = []
    for key in keys:
        least = jnp.min(jnp.where(among, key[:, None], NEVER), axis=0)
        among &= key[:, None] == least[None, :]
        lowest.append(least)
    new_key, new_order, new_row = lowest
    old_key, old_order, old_row = best
    earlier = (new_order < old_order) | ((new_order == old_order) & (new_row < old_row))
    wins = (new_key < old_key) | ((new_key == old_key) & earlier)
    return (
        jnp.where(wins, new_key, old_key),
        jnp.where(wins, new_order, old_order),
        jnp.where(wins, new_row, old_row),
    )
