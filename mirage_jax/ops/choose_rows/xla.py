"""Choice of rows in plain JAX that reads only pages which may hold a row of the surface.

The walk of `rasterize_points/walk.py`; what matters in a cell is everything down to the shell
behind its surface, which is known from the start.

Read next: `pallas_tpu.py`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float32, Int32

from mirage_jax.geometry.camera import Camera
from mirage_jax.ops.choose_rows.rule import SeenFrom, ViewedRows, ViewRule, limit_of, rank_rows
from mirage_jax.ops.rasterize_points.pages import CellGrid, Pages, WorkList
from mirage_jax.ops.rasterize_points.project import NEVER, camera_numbers
from mirage_jax.ops.rasterize_points.walk import Group, walk_pages
from mirage_jax.ops.rasterize_points.xla import BestKeys, compete, no_keys


def choose_rows(
    pages: Pages,
    views: SeenFrom,
    camera: Camera,
    grid: CellGrid,
    surface: Float32[jax.Array, "t h w"],
    rule: ViewRule,
    work: WorkList,
) -> tuple[Int32[jax.Array, "t h w"], Int32[jax.Array, "t h w"]]:
    """Return rank and row of what each cell of each camera shows; see `api.choose_rows`."""
    if pages.order.size == 0 or work.page.shape[1] == 0:
        return jnp.full(surface.shape, NEVER, jnp.int32), jnp.full(surface.shape, -1, jnp.int32)

    def one_view(view: tuple[jax.Array, WorkList, jax.Array]) -> tuple[jax.Array, jax.Array]:
        numbers, entries, surface = view
        deepest = (1 + rule.shell) * surface.reshape(-1)
        limit = limit_of(surface.reshape(-1), rule)
        deepest = jnp.append(deepest, 0.0)

        def visit(best: BestKeys, page: jax.Array, group: Group) -> BestKeys:
            origin = views.origin.at[page].get(mode="promise_in_bounds")
            depth = views.depth.at[page].get(mode="promise_in_bounds")
            rows = ViewedRows(
                group.points, tuple(origin[:, axis] for axis in range(3)), depth, group.seen
            )
            rank, same_place = rank_rows(rows, numbers, grid, rule)
            shown = deepest.at[group.cell].get(mode="promise_in_bounds")
            near_enough = same_place | (group.seen.depth <= shown)
            return compete(best, rank, group, group.inside & near_enough)

        rules = (numbers, grid, lambda _: limit, visit)
        best, _ = walk_pages(pages, entries, *rules, no_keys(grid))
        rank, row = (key[: grid.num_cells].reshape(surface.shape) for key in (best.first, best.row))
        return rank, jnp.where(row == NEVER, -1, row)

    return jax.lax.map(one_view, (camera_numbers(camera), work, surface))
