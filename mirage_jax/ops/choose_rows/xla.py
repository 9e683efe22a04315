"""Choice of rows in plain JAX that reads only pages which may hold a row of the surface.

The walk of `rasterize_points/walk.py`; what matters in a cell is everything down to the shell
behind its surface, which is known from the start.

Read next: `pallas_tpu.py`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Int32

from mirage_jax.geometry.camera import Camera
from mirage_jax.ops.choose_rows.rule import (
    SeenFrom,
    Surface,
    ViewedRows,
    ViewRule,
    limit_of,
    rank_by,
)
from mirage_jax.ops.rasterize_points.pages import CellGrid, Pages, WorkList, comes_after
from mirage_jax.ops.rasterize_points.project import NEVER, camera_numbers
from mirage_jax.ops.rasterize_points.walk import Group, walk_pages
from mirage_jax.ops.rasterize_points.xla import BestKeys, compete, no_keys


def choose_rows(
    pages: Pages,
    views: SeenFrom,
    camera: Camera,
    grid: CellGrid,
    surface: Surface,
    rule: ViewRule,
    work: WorkList,
) -> tuple[Int32[jax.Array, "t h w"], Int32[jax.Array, "t h w"]]:
    """Return rank and row of what each cell of each camera shows; see `api.choose_rows`."""
    if pages.order.size == 0 or work.page.shape[1] == 0:
        never = jnp.full(surface.depth.shape, NEVER, jnp.int32)
        return never, jnp.full_like(never, -1)

    def one_view(view: tuple[jax.Array, WorkList, Surface]) -> tuple[jax.Array, jax.Array]:
        numbers, entries, shell = view
        deepest = (1 + rule.shell) * shell.depth.reshape(-1)
        limit = limit_of(shell.depth.reshape(-1), rule)
        deepest = jnp.append(deepest, 0.0)
        last = [jnp.append(key.reshape(-1), NEVER) for key in shell.after or ()]

        def visit(best: BestKeys, page: jax.Array, group: Group) -> BestKeys:
            origin = views.origin.at[page].get(mode="promise_in_bounds")
            depth = views.depth.at[page].get(mode="promise_in_bounds")
            rows = ViewedRows(
                group.points, tuple(origin[:, axis] for axis in range(3)), depth, group.seen
            )
            rank, same_place = rank_by(rows, numbers, grid, rule)
            shown = deepest.at[group.cell].get(mode="promise_in_bounds")
            near_enough = same_place | (group.seen.depth <= shown)
            competes = group.inside & near_enough
            if last:
                bound = [key.at[group.cell].get(mode="promise_in_bounds") for key in last]
                competes &= comes_after((rank, group.order, group.row), bound)
            return compete(best, rank, group, competes)

        rules = (numbers, grid, lambda _: limit, visit)
        best, _ = walk_pages(pages, entries, *rules, no_keys(grid))
        rank, row = (
            key[: grid.num_cells].reshape(shell.depth.shape) for key in (best.first, best.row)
        )
        return rank, jnp.where(row == NEVER, -1, row)

    return jax.lax.map(one_view, (camera_numbers(camera), work, surface))
