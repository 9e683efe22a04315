"""Points rasterizer in plain JAX that reads only what is seen: the fast path on CPUs.

The walk of `walk.py` with the nearest rows so far as its state: what matters in a cell is anything
not beyond its nearest row. The result is exactly that of `reference.py`.

Read next: `pallas_tpu.py`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int32

from mirage_jax.geometry.camera import Camera
from mirage_jax.ops.rasterize_points.pages import CellGrid, Nearest, Pages, WorkList
from mirage_jax.ops.rasterize_points.project import NEVER, camera_numbers
from mirage_jax.ops.rasterize_points.walk import (
    Group,
    Runs,
    Steps,
    run_bounds,
    walk_pages,
    walk_runs,
)
from mirage_jax.ops.rasterize_points.work_list import list_pages

# Places for rows of no cell. In a single one each would wait for the one before it to be written.
_SPARE = 256


class BestKeys(NamedTuple):
    """Lowest first key so far of each cell, and its row; then the places for rows of no cell."""

    first: Int32[jax.Array, " m"]
    row: Int32[jax.Array, " m"]


def rasterize_points(
    pages: Pages, camera: Camera, grid: CellGrid, work: WorkList | None = None
) -> Nearest:
    """Return the nearest row of each cell of each camera; see `api.rasterize_points`.

    Without a list of pages it goes by runs of them, which costs less than to make a list.
    """
    return rasterize_in_steps(pages, camera, grid, work)[0]


def rasterize_in_steps(
    pages: Pages, camera: Camera, grid: CellGrid, work: WorkList | None = None
) -> tuple[Nearest, Steps]:
    """Return as `rasterize_points`, and what each view took; nothing is counted along a list."""
    views, shape = camera.cam_to_world.shape[0], (grid.height, grid.width)
    numbers, none = camera_numbers(camera), Steps(*[jnp.zeros((views,), jnp.int32)] * 3)
    if pages.order.size == 0 or (work is not None and work.page.shape[1] == 0):
        nothing = jnp.full((views, *shape), jnp.inf), jnp.full((views, *shape), -1, jnp.int32)
        return Nearest(*nothing), none
    bounds = run_bounds(pages.bounds)
    entries = list_pages(bounds, camera, grid) if work is None else work

    def visit(best: BestKeys, page: jax.Array, group: Group) -> BestKeys:
        bits = jax.lax.bitcast_convert_type(group.seen.depth, jnp.int32)
        return compete(best, bits, group, group.inside)

    def limit(best: BestKeys) -> jax.Array:
        return best.first[: grid.num_cells]

    def one_view(view: tuple[jax.Array, WorkList]) -> tuple[Nearest, Steps]:
        numbers, entries = view
        best, rules = no_keys(grid), (numbers, grid, limit, visit)
        if work is None:
            best, steps = walk_runs(pages, Runs(bounds, entries), *rules, best)
        else:
            best, _ = walk_pages(pages, entries, *rules, best)
            steps = Steps(*[jnp.zeros((), jnp.int32)] * 3)
        bits, row = best.first[: grid.num_cells], best.row[: grid.num_cells]
        depth = jnp.where(row != NEVER, jax.lax.bitcast_convert_type(bits, jnp.float32), jnp.inf)
        row = jnp.where(row != NEVER, row, -1)
        return Nearest(depth.reshape(shape), row.reshape(shape)), steps

    return jax.lax.map(one_view, (numbers, entries))


def no_keys(grid: CellGrid) -> BestKeys:
    """Return the keys of a grid that nothing has fallen on."""
    nothing = jnp.full((grid.num_cells + _SPARE,), NEVER, jnp.int32)
    return BestKeys(nothing, nothing)


def compete(
    best: BestKeys,
    first: Int32[jax.Array, "g P"],
    group: Group,
    takes_part: Bool[jax.Array, "g P"],
) -> BestKeys:
    """Let the rows of a group compete by (first, order, row), lowest wins.

    Args:
        best: What they have to beat.
        first: First key of each row, less than `NEVER`.
        group: The rows.
        takes_part: Rows that compete; the others fall nowhere.
    """
    cells, nowhere = _apart(best, group.cell.shape[1])

    def settle(best: BestKeys, first: jax.Array, cell: jax.Array) -> BestKeys:
        lowest = best.first.at[cell].min(first, mode="promise_in_bounds")
        among = (cell < cells) & (first == lowest.at[cell].get(mode="promise_in_bounds"))
        cell = jnp.where(among, cell, nowhere)
        won = (lowest < best.first)[:cells]
        alone = jnp.sum(among, dtype=jnp.int32) == jnp.sum(won, dtype=jnp.int32)
        row = jax.lax.cond(
            alone,
            lambda: best.row.at[cell].set(group.row, mode="promise_in_bounds"),
            lambda: _settle_ties(best, lowest, cell, group),
        )
        return BestKeys(lowest, row)

    def beat(best: BestKeys, first: jax.Array, cell: jax.Array) -> BestKeys:
        behind = first > best.first.at[cell].get(mode="promise_in_bounds")
        hopeful = jnp.any((cell < cells) & ~behind)
        return jax.lax.cond(hopeful, settle, lambda best, first, cell: best, best, first, cell)

    cell = jnp.where(takes_part, group.cell, nowhere)
    # A branch takes its operands ready made: else they would be computed anew for each use, one row
    # at a time, in the loops over rows that scattering is on CPUs. It is always taken.
    taken = group.row[0, 0] >= 0
    return jax.lax.cond(taken, beat, lambda best, first, cell: best, best, first, cell)


def _apart(best: BestKeys, size: int) -> tuple[int, Int32[jax.Array, " P"]]:
    """Return how many cells there are, and a place for the rows of no cell at each of P slots."""
    cells = best.first.shape[0] - _SPARE
    return cells, cells + jnp.arange(size, dtype=jnp.int32) % _SPARE


def _settle_ties(
    best: BestKeys, lowest: jax.Array, cell: jax.Array, group: Group
) -> Int32[jax.Array, " m"]:
    """Return the row of each cell where rows share the first key: the lowest by order, then row.

    Args:
        best: Keys before.
        lowest: First keys now.
        cell: Cell of each row that has the first key of its cell; past the last for the others.
        group: The rows.
    """
    _, nowhere = _apart(best, cell.shape[1])
    # A first key that was beaten takes the row along.
    row = jnp.where(lowest < best.first, NEVER, best.row)
    held = group.all_orders.reshape(-1).at[jnp.where(row == NEVER, 0, row)]
    order = jnp.where(row == NEVER, NEVER, held.get(mode="promise_in_bounds"))
    new_order = order.at[cell].min(group.order, mode="promise_in_bounds")
    row = jnp.where(new_order < order, NEVER, row)
    last = group.order == new_order.at[cell].get(mode="promise_in_bounds")
    cell = jnp.where(last, cell, nowhere)
    return row.at[cell].min(group.row, mode="promise_in_bounds")
