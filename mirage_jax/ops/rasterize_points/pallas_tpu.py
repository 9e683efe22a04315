"""The walk over pages as a TPU kernel (Mosaic): the nearest or lowest-ranked row of each cell.

One program a camera. Its list comes to scalar memory in pieces; pages come from HBM by double-
buffered DMA, the next one on its way while this one is compared. Before a page is fetched, its box
is held against the cells it covers: pages that nothing can come of are never read, and the walk
ends when the next page is beyond all that matters. A page's rows are projected along lanes, turned
onto sublanes, and compared with one line of cells (on lanes) at a time: a minimum over rows of
(key, order, row). No scatter, no sort, no atomics, so the result does not depend on timing.

Compiled ahead of time for v5e, v5p, v6e and tpu7x and run in interpret mode; not yet run on a TPU.

Read next: `tests/ops/test_tpu_kernels.py`, `traffic.py` (bytes moved).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
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
from mirage_jax.ops.rasterize_points.project import NEVER, camera_numbers, project_rows
from mirage_jax.ops.rasterize_points.work_list import pack_entries

LANES = 128
# Rows compared at a time: their keys over all lanes fill three times eight registers.
_STRIP = 64
# List entries fetched at a time, and what each holds: page, near, columns, lines.
_PIECE, _FIELDS = 256, 4


class _Memory(NamedTuple):
    """Scratch of one program."""

    entries: Any  # piece of the list, scalar memory
    piece: Any  # number of that piece
    buffers: list[Any]  # two pages of each table
    stage: Any  # keys of the page's rows, along lanes
    order: Any  # order of the best row of each cell
    list_done: Any
    page_done: Any


def rasterize_points(
    pages: Pages, camera: Camera, grid: CellGrid, work: WorkList, interpret: Any = False
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
    interpret: Any = False,
) -> tuple[Int32[jax.Array, "t h w"], Int32[jax.Array, "t h w"]]:
    """Return the lowest key of each cell and its row, `NEVER` where none.

    Args:
        pages: n pages of P rows, P a multiple of 128.
        tables: Further tables for the contest, each [n, r, P].
        camera: t cameras.
        grid: Cells.
        work: Pages to visit.
        bounds: What takes part in each cell; None lets any depth take part and stops at the
            nearest rows found.
        contest: From (projection, points, table values, camera, depth bits), the first key of each
            row and the bits that are held against the limit; None competes by depth.
        interpret: False on a TPU; True or `pltpu.InterpretParams` to run elsewhere.

    Raises:
        ValueError: If P is not a multiple of 128.
    """
    num_views, (n, page_rows) = work.page.shape[0], pages.order.shape
    if page_rows % LANES:
        raise ValueError(
            f"pallas_tpu: pages have {page_rows} rows, expected a multiple of {LANES}, the lanes "
            "of a TPU register; write the memory with such pages, or pass implementation='xla'."
        )
    if n == 0 or work.page.shape[1] == 0:
        none = jnp.full((num_views, grid.height, grid.width), NEVER, jnp.int32)
        return none, none
    numbers = camera_numbers(camera)
    height, width = -(-grid.height // 8) * 8, -(-grid.width // LANES) * LANES
    padding = ((0, 0), (0, height - grid.height), (0, width - grid.width))
    # Cells beyond the grid: nothing matters there.
    if bounds is None:
        all_depths = jnp.full((num_views, grid.height, grid.width), NEVER)
    limits = jnp.pad(all_depths if bounds is None else bounds.limit, padding, constant_values=-1)
    given = None if bounds is None else bounds.after
    after = [jnp.pad(key, padding, constant_values=NEVER) for key in given or ()]
    cells = pl.BlockSpec((1, height, width), lambda view: (view, 0, 0))
    scalars = pl.BlockSpec(memory_space=pltpu.SMEM)
    in_hbm = pl.BlockSpec(memory_space=pltpu.HBM)
    # XLA keeps [n, 3, P] as three planes, since tiles of 8 lines would pad 3 to 8; so this moves
    # nothing, and a page is one line of each plane.
    planes = [jnp.moveaxis(t, 1, 0) for t in (pages.positions, pages.order[:, None], *tables)]
    # XLA would copy a table that fits into VMEM as a whole, which costs what is stored.
    planes = [pltpu.with_memory_space_constraint(plane, pltpu.HBM) for plane in planes]
    buffers = [pltpu.VMEM((2, t.shape[0], 1, page_rows), t.dtype) for t in planes]
    entries = _lay_out_entries(pack_entries(pages.bounds, numbers, grid, work))
    key, row = pl.pallas_call(
        functools.partial(
            _one_view, grid=grid, contest=contest, bounded=bounds is not None, keys=len(after)
        ),
        out_shape=[jax.ShapeDtypeStruct((num_views, height, width), jnp.int32)] * 2,
        grid=(num_views,),
        in_specs=[*[scalars] * 2, in_hbm, *[cells] * (1 + len(after)), *[in_hbm] * len(planes)],
        out_specs=[cells, cells],
        scratch_shapes=[
            pltpu.SMEM((1, _PIECE * _FIELDS), jnp.int32),
            pltpu.SMEM((1,), jnp.int32),
            buffers,
            pltpu.VMEM((8, page_rows), jnp.int32),
            pltpu.VMEM((height, width), jnp.int32),
            pltpu.SemaphoreType.DMA,
            pltpu.SemaphoreType.DMA((2,)),
        ],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",)),
        interpret=interpret,
        name="walk_pages",
    )(work.count, numbers, entries, limits, *after, *planes)
    return key[:, : grid.height, : grid.width], row[:, : grid.height, : grid.width]


def _lay_out_entries(fields: list[Int32[jax.Array, "t l"]]) -> Int32[jax.Array, "t pieces 1 words"]:
    """Cut the fields of the lists into pieces of `_PIECE` entries, field after field in each."""
    spare = -fields[0].shape[1] % _PIECE
    blocks = [
        jnp.pad(field, ((0, 0), (0, spare))).reshape(field.shape[0], -1, 1, _PIECE)
        for field in fields
    ]
    return jnp.concatenate(blocks, axis=-1)


def _one_view(
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
    """Walk one camera's list; `keys` tables of what rows must come after precede the pages."""
    scratch = len(_Memory._fields)
    after_refs, refs = [ref.at[0] for ref in refs[:keys]], refs[keys:]
    *plane_refs, key_ref, row_ref = refs[:-scratch]
    memory = _Memory(*refs[-scratch:])
    view = pl.program_id(0)
    count = count_ref[view]
    for ref in (key_ref.at[0], row_ref.at[0], memory.order):
        ref[...] = jnp.full(ref.shape, NEVER, jnp.int32)
    memory.piece[0] = -1

    def farthest() -> jax.Array:
        """Return, for each cell, the bits of the greatest depth that matters."""
        return limit_ref[0] if bounded else jnp.minimum(key_ref[0], limit_ref[0])

    fetch = functools.partial(_page_copies, plane_refs, memory)

    def start(entry: jax.Array, slot: jax.Array) -> jax.Array:
        page = jnp.where(entry < count, memory.entries[0, entry % _PIECE], 0)

        @pl.when(entry < count)
        def _() -> None:
            for copy in fetch(page, slot):
                copy.start()

        return page

    def following(entry: jax.Array) -> jax.Array:
        return _next_entry(entry, count, entries_ref.at[view], memory, farthest())

    def step(
        carry: tuple[jax.Array, jax.Array, jax.Array],
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        entry, page, slot = carry
        after = following(entry + 1)
        next_page = start(after, 1 - slot)
        for copy in fetch(page, slot):
            copy.wait()
        numbers = [numbers_ref[view, index] for index in range(numbers_ref.shape[1])]
        low, high = _stage_keys(memory, slot, numbers, grid, contest)
        cells = (limit_ref.at[0], *after_refs) if bounded else ()
        compare = functools.partial(_compare_strip, memory=memory, cell_refs=cells)
        for first in range(0, memory.stage.shape[1], _STRIP):
            compare(page, first, (low, high), (key_ref.at[0], row_ref.at[0]))
        return after, next_page, 1 - slot

    first = following(jnp.int32(0))
    carry = (first, start(first, jnp.int32(0)), jnp.int32(0))
    jax.lax.while_loop(lambda carry: carry[0] < count, step, carry)


def _page_copies(
    plane_refs: list[Any], memory: _Memory, page: jax.Array, slot: jax.Array
) -> list[Any]:
    """Return the copies that bring a page from HBM, one for each table."""
    return [
        pltpu.make_async_copy(
            plane.at[:, pl.ds(page, 1)], buffer.at[slot], memory.page_done.at[slot]
        )
        for plane, buffer in zip(plane_refs, memory.buffers, strict=True)
    ]


def _next_entry(
    entry: jax.Array, count: jax.Array, entries_ref: Any, memory: _Memory, farthest: jax.Array
) -> jax.Array:
    """Return the next entry from `entry` on whose page may matter, or `count`.

    Args:
        entry: Where to start.
        count: Entries of the list.
        entries_ref: Pieces of the list, in HBM.
        memory: Scratch; holds the piece of the returned entry afterwards.
        farthest: Bits of the greatest depth that matters in each cell.
    """
    end = jnp.max(farthest)
    line = jax.lax.broadcasted_iota(jnp.int32, farthest.shape, 0)
    column = jax.lax.broadcasted_iota(jnp.int32, farthest.shape, 1)

    def look(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        entry = carry[0]

        @pl.when(memory.piece[0] != entry // _PIECE)
        def _() -> None:
            piece = entry // _PIECE
            copy = pltpu.make_async_copy(entries_ref.at[piece], memory.entries, memory.list_done)
            copy.start()
            copy.wait()
            memory.piece[0] = piece

        at = entry % _PIECE
        near, columns, lines = (
            memory.entries[0, field * _PIECE + at] for field in range(1, _FIELDS)
        )
        covers = (column >= columns >> 16) & (column <= (columns & 0xFFFF))
        covers &= (line >= lines >> 16) & (line <= (lines & 0xFFFF))
        found = near <= jnp.max(jnp.where(covers, farthest, -1))
        past = jnp.where(near <= end, entry + 1, count)
        return jnp.where(found, entry, past), found

    start = (entry, jnp.bool_(False))
    return jax.lax.while_loop(lambda c: (c[0] < count) & ~c[1], look, start)[0]


def _stage_keys(
    memory: _Memory, slot: jax.Array, numbers: list[Any], grid: CellGrid, contest: Any
) -> tuple[jax.Array, jax.Array]:
    """Project a page and lay out its rows' keys along lanes; return the first and last line hit.

    Rows of the stage: cell as line * 2**16 + column (-1 for rows that fall nowhere), first key,
    order, depth bits for the limit.
    """
    (x, y, z), (order,), *others = (
        [buffer[slot, axis] for axis in range(buffer.shape[1])] for buffer in memory.buffers
    )
    seen = project_rows(x, y, z, numbers, grid)
    inside = seen.inside & (order != EMPTY)
    line = jnp.where(inside, seen.line, 0.0).astype(jnp.int32)
    column = jnp.where(inside, seen.column, 0.0).astype(jnp.int32)
    bits = pltpu.bitcast(seen.depth, jnp.int32)
    key = bits
    if contest is not None:
        key, bits = contest(seen, (x, y, z), others, numbers, bits)
    for index, value in enumerate((jnp.where(inside, line << 16 | column, -1), key, order, bits)):
        memory.stage[index : index + 1] = value
    low = jnp.min(jnp.where(inside, line, grid.height))
    return low, jnp.max(jnp.where(inside, line, -1))


def _compare_strip(
    page: jax.Array,
    first: int,
    lines: tuple[jax.Array, jax.Array],
    best_refs: tuple[Any, Any],
    memory: _Memory,
    cell_refs: tuple[Any, ...],
) -> None:
    """Let some rows of the staged page compete for the cells of the lines they may hit.

    Args:
        page: Number of the page.
        first: First of the rows.
        lines: First and last line.
        best_refs: First key and row of the best so far.
        memory: Scratch with the stage and the best order.
        cell_refs: Limit of each cell and the keys its rows must come after, where there are some.
    """
    key_ref, row_ref = best_refs
    page_rows = memory.stage.shape[1]
    turned = jnp.transpose(memory.stage[:, first // LANES * LANES :][:, :LANES])
    turned = turned[first % LANES : first % LANES + _STRIP]
    shape = (_STRIP, LANES)
    cell, key, order, bits = (
        jnp.broadcast_to(turned[:, index : index + 1], shape) for index in range(4)
    )
    row = page * page_rows + first + jax.lax.broadcasted_iota(jnp.int32, shape, 0)
    lane = jax.lax.broadcasted_iota(jnp.int32, (1, LANES), 1)

    def one_line(line: jax.Array, _: Any) -> None:
        for left in range(0, key_ref.shape[1], LANES):
            here = (pl.ds(line, 1), pl.ds(left, LANES))
            among = cell == (line << 16 | left + lane)
            if cell_refs:
                limit, *after = (ref[here] for ref in cell_refs)
                among &= bits <= limit
                if after:
                    among &= comes_after((key, order, row), after)
            new_key = jnp.min(jnp.where(among, key, NEVER), axis=0, keepdims=True)
            among &= key == new_key
            new_order = jnp.min(jnp.where(among, order, NEVER), axis=0, keepdims=True)
            among &= order == new_order
            new_row = jnp.min(jnp.where(among, row, NEVER), axis=0, keepdims=True)
            old_key, old_order, old_row = key_ref[here], memory.order[here], row_ref[here]
            earlier = (new_order < old_order) | ((new_order == old_order) & (new_row < old_row))
            wins = (new_key < old_key) | ((new_key == old_key) & earlier)
            key_ref[here] = jnp.where(wins, new_key, old_key)
            memory.order[here] = jnp.where(wins, new_order, old_order)
            row_ref[here] = jnp.where(wins, new_row, old_row)

    jax.lax.fori_loop(lines[0], lines[1] + 1, one_line, None)
