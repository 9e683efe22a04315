"""Walking pages front to back in plain JAX, past those that cannot change anything.

A *run* is `RUN_PAGES` pages that follow each other in the table; a memory writes neighbours one
after the other, so a run has bounds worth testing. A view's runs are taken nearest first, a batch
at a time; only their pages are looked at, sorted, and walked in small groups. A run or a page is
passed over when it is hidden (`hidden.py`), and a walk ends when the next lies beyond all that
matters anywhere. All tests are strict, so that ties are seen. What is outside the view or hidden
costs a run's test at most, however much is stored; the order decides what is looked at, never the
result.

Read next: `xla.py`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float32, Int32

from mirage_jax.ops.rasterize_points.hidden import Matters, Squares, may_matter, squares_of
from mirage_jax.ops.rasterize_points.pages import EMPTY, CellGrid, Pages, WorkList
from mirage_jax.ops.rasterize_points.project import Projected, project_rows
from mirage_jax.ops.rasterize_points.work_list import cull_boxes, sort_pages

RUN_PAGES = 32
# Pages looked at together, and runs tested to find theirs.
_BATCH_PAGES, _RUN_WINDOW = 1024, 256
# Rows visited at a time: enough to pay for a turn of the loop, few enough to stop early.
_GROUP_ROWS = 8192
# List entries looked at to find the pages of a group, as a multiple of the group.
_LOOK_AHEAD = 4


class Group(NamedTuple):
    """The rows of some pages as one camera sees them; all fields but the last are [g, P].

    Attributes:
        seen: Projection.
        cell: Cell of each row; `num_cells` for rows that fall nowhere.
        inside: Rows that exist and fall into a cell.
        order: Order of each row.
        row: page * P + slot.
        points: x, y and z.
        all_orders: Orders of the rows of all pages, [n, P].
    """

    seen: Projected
    cell: Int32[jax.Array, "g P"]
    inside: Bool[jax.Array, "g P"]
    order: Int32[jax.Array, "g P"]
    row: Int32[jax.Array, "g P"]
    points: tuple[jax.Array, jax.Array, jax.Array]
    all_orders: Int32[jax.Array, "n P"]


class Runs(NamedTuple):
    """The runs of a table of pages, as one view sees them.

    Attributes:
        bounds: Corners of each run, see `run_bounds`.
        entries: The view's list of runs, nearest first, without the axis of views.
    """

    bounds: Float32[jax.Array, "r 2 3"]
    entries: WorkList


class Steps(NamedTuple):
    """What a walk did: runs and pages whose boxes were tested, pages whose rows were projected."""

    runs: Int32[jax.Array, ""]
    pages: Int32[jax.Array, ""]
    visits: Int32[jax.Array, ""]


Limit = Callable[[Any], Int32[jax.Array, " m"]]
Visit = Callable[[Any, Int32[jax.Array, " g"], Group], Any]


def run_bounds(bounds: Float32[jax.Array, "n 2 3"]) -> Float32[jax.Array, "r 2 3"]:
    """Return the corners that enclose each run of n pages; the last may be short."""
    whole = bounds.shape[0] - bounds.shape[0] % RUN_PAGES
    # Halves against halves: long rows of numbers, where a reduction would take six at a time.
    low = high = bounds[:whole].reshape(-1, RUN_PAGES * 6)
    while low.shape[1] > 6:
        low = jnp.minimum(*jnp.split(low, 2, axis=1))
        high = jnp.maximum(*jnp.split(high, 2, axis=1))
    runs = jnp.stack([low[:, :3], high[:, 3:]], axis=1)
    if whole == bounds.shape[0]:
        return runs
    # By itself: filled up to a whole run, the table would be copied.
    rest = bounds[whole:]
    last = jnp.stack([jnp.min(rest[:, 0], axis=0), jnp.max(rest[:, 1], axis=0)])
    return jnp.concatenate([runs, last[None]])


def walk_runs(
    pages: Pages,
    runs: Runs,
    numbers: Float32[jax.Array, " 17"],
    grid: CellGrid,
    limit: Limit,
    visit: Visit,
    state: Any,
) -> tuple[Any, Steps]:
    """Visit the pages that one view may see, about nearest first.

    Args:
        pages: n pages, at least one.
        runs: Their runs.
        numbers: The camera.
        grid: Cells.
        limit: From the state, the bits of the greatest depth that still matters in each cell;
            -1 where nothing does, `NEVER` where everything does.
        visit: Next state from the state, the page numbers and the rows of the next g pages.
        state: What to start from.

    Returns:
        The last state, and what it took.
    """
    num_runs = runs.bounds.shape[0]
    take, window = min(_BATCH_PAGES // RUN_PAGES, num_runs), min(_RUN_WINDOW, num_runs)
    zero = jnp.zeros((), jnp.int32)

    def place_runs(_: jax.Array, run: jax.Array) -> Squares:
        box = runs.bounds.at[run].get(mode="promise_in_bounds")
        return squares_of(box, numbers, grid)

    def step(carry: tuple[jax.Array, Any, Steps]) -> tuple[jax.Array, Any, Steps]:
        cursor, state, steps = carry
        matters = may_matter(limit(state), grid)
        cursor, run, real = _next(runs.entries, cursor, (window, take), place_runs, matters)

        def look(state: Any) -> tuple[Any, jax.Array, jax.Array]:
            entries, squares, tested = _pages_of(pages, run, real, numbers, grid, matters)
            rules = (numbers, grid, limit, visit)
            return *walk_pages(pages, entries, *rules, state, squares), tested

        state, visits, tested = jax.lax.cond(real[0], look, lambda s: (s, zero, zero), state)
        done = Steps(jnp.int32(window), tested, visits)
        return cursor, state, jax.tree.map(jnp.add, steps, done)

    start = (zero, state, Steps(zero, zero, zero))
    return jax.lax.while_loop(_more(runs.entries, limit), step, start)[1:]


def _pages_of(
    pages: Pages,
    run: Int32[jax.Array, " k"],
    real: Bool[jax.Array, " k"],
    numbers: Float32[jax.Array, " 17"],
    grid: CellGrid,
    matters: Matters,
) -> tuple[WorkList, Squares, Int32[jax.Array, ""]]:
    """List the pages of some runs that may matter, nearest first.

    Returns:
        The list, where its entries fall, and how many pages were tested.
    """
    num_pages = pages.order.shape[0]
    page = run[:, None] * RUN_PAGES + jnp.arange(RUN_PAGES, dtype=jnp.int32)
    exists = (real[:, None] & (page < num_pages)).reshape(-1)
    page = jnp.minimum(page, num_pages - 1).reshape(-1)
    box = pages.bounds.at[page].get(mode="promise_in_bounds")
    visible, near = cull_boxes(box, numbers[None], grid)
    squares = squares_of(box, numbers, grid)
    visible &= exists & matters(jax.lax.bitcast_convert_type(near[0], jnp.int32), squares)
    entries = jax.tree.map(lambda leaf: leaf[0], sort_pages(visible, near))
    squares = _taken(squares, entries.page)
    nth = page.at[entries.page].get(mode="promise_in_bounds")
    return entries._replace(page=nth), squares, jnp.sum(exists, dtype=jnp.int32)


def walk_pages(
    pages: Pages,
    entries: WorkList,
    numbers: Float32[jax.Array, " 17"],
    grid: CellGrid,
    limit: Limit,
    visit: Visit,
    state: Any,
    squares: Squares | None = None,
) -> tuple[Any, Int32[jax.Array, ""]]:
    """Visit the pages of one view's list, nearest first.

    Args:
        pages: n pages, at least one.
        entries: The view's list, without the axis of views.
        numbers: The camera.
        grid: Cells.
        limit: As for `walk_runs`.
        visit: As for `walk_runs`.
        state: What to start from.
        squares: Where the entries fall; None finds it on the way.

    Returns:
        The last state, and the pages visited.
    """
    group = max(1, min(_GROUP_ROWS // pages.order.shape[1], entries.page.shape[0]))
    window = min(_LOOK_AHEAD * group, entries.page.shape[0])

    def place_pages(start: jax.Array, page: jax.Array) -> Squares:
        if squares is None:
            box = pages.bounds.at[page].get(mode="promise_in_bounds")
            return squares_of(box, numbers, grid)
        part = (jax.lax.dynamic_slice_in_dim(leaf, start, window, -1) for leaf in squares)
        return Squares(*part)

    def step(carry: tuple[jax.Array, Any, jax.Array]) -> tuple[jax.Array, Any, jax.Array]:
        cursor, state, visits = carry
        matters = may_matter(limit(state), grid)
        cursor, page, real = _next(entries, cursor, (window, group), place_pages, matters)
        state = jax.lax.cond(
            real[0],
            lambda state: visit(state, page, _look(pages, page, real, numbers, grid)),
            lambda state: state,
            state,
        )
        return cursor, state, visits + jnp.sum(real, dtype=jnp.int32)

    zero = jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(_more(entries, limit), step, (zero, state, zero))[1:]


def _more(entries: WorkList, limit: Limit) -> Callable[[tuple], jax.Array]:
    """Return the test whether to go on at a cursor: something may still matter somewhere."""
    near = jax.lax.bitcast_convert_type(entries.near, jnp.int32)

    def more(carry: tuple) -> jax.Array:
        cursor, state = carry[:2]
        return (cursor < entries.count) & (near[cursor] <= jnp.max(limit(state)))

    return more


def _next(
    entries: WorkList,
    cursor: Int32[jax.Array, ""],
    sizes: tuple[int, int],
    places: Callable[[jax.Array, jax.Array], Squares],
    matters: Matters,
) -> tuple[Int32[jax.Array, ""], Int32[jax.Array, " g"], Bool[jax.Array, " g"]]:
    """Return the next entries of a list that matter.

    Args:
        entries: The list.
        cursor: Where to begin.
        sizes: Entries to look at, and most to return.
        places: Where the entries fall, from the first one looked at and what is listed there.
        matters: From the bits of the least depths, and where they fall, whether they do.

    Returns:
        Where to go on, what was listed there, and which of it is real.
    """
    window, most = sizes
    # Slices are shifted back at the end of the list, so look where they really begin.
    start = jnp.minimum(cursor, entries.page.shape[0] - window)
    place = start + jnp.arange(window, dtype=jnp.int32)
    listed = jax.lax.dynamic_slice(entries.page, (start,), (window,))
    near = jax.lax.dynamic_slice(entries.near, (start,), (window,))
    alive = (place >= cursor) & (place < entries.count)
    alive &= matters(jax.lax.bitcast_convert_type(near, jnp.int32), places(start, listed))
    taken = jnp.cumsum(alive, dtype=jnp.int32)
    nth = jnp.arange(most, dtype=jnp.int32)
    chosen = jnp.sum(taken[None, :] <= nth[:, None], axis=1, dtype=jnp.int32)
    cursor = start + jnp.where(chosen[-1] < window, chosen[-1] + 1, window)
    real = chosen < window
    listed = listed.at[jnp.minimum(chosen, window - 1)].get(mode="promise_in_bounds")
    return cursor, listed, real


def _taken(squares: Squares, nth: Int32[jax.Array, " k"]) -> Squares:
    """Return where some of the boxes fall."""
    parts = (leaf.at[..., nth].get(mode="promise_in_bounds") for leaf in squares)
    return Squares(*parts)


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
    return Group(seen, cell.astype(jnp.int32), inside, order, row, (x, y, z), pages.order)
