"""Plain-JAX choice of rows over all rows: the truth that every implementation equals.

Read next: `xla.py`.
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
    rank_by,
)
from mirage_jax.ops.rasterize_points.pages import EMPTY, CellGrid, Pages, comes_after
from mirage_jax.ops.rasterize_points.project import NEVER, camera_numbers, project_rows
from mirage_jax.ops.rasterize_points.reference import lowest_keys


def choose_rows(
    pages: Pages,
    views: SeenFrom,
    camera: Camera,
    grid: CellGrid,
    surface: Surface,
    rule: ViewRule,
) -> tuple[Int32[jax.Array, "t h w"], Int32[jax.Array, "t h w"]]:
    """Return rank and row of what each cell of each camera shows; see `api.choose_rows`."""
    x, y, z = jnp.moveaxis(pages.positions, 1, 0).reshape(3, -1)
    origin = jnp.moveaxis(views.origin, 1, 0).reshape(3, -1)
    order, depth = pages.order.reshape(-1), views.depth.reshape(-1)
    row = jnp.arange(order.shape[0], dtype=jnp.int32)

    def one_view(view: tuple[jax.Array, Surface]) -> tuple[jax.Array, jax.Array]:
        numbers, shell = view
        seen = project_rows(x, y, z, numbers, grid)
        rows = ViewedRows((x, y, z), tuple(origin), depth, seen)
        rank, same_place = rank_by(rows, numbers, grid, rule)
        inside = seen.inside & (order != EMPTY)
        cell = jnp.where(inside, seen.line * grid.width + seen.column, grid.num_cells)
        cell = cell.astype(jnp.int32)
        # No row competes outside the grid, whatever the limit there.
        limit = jnp.append((1 + rule.shell) * shell.depth.reshape(-1), 0.0)
        inside &= same_place | (seen.depth <= limit[cell])
        if shell.after is not None:
            bound = [jnp.append(key.reshape(-1), NEVER)[cell] for key in shell.after]
            inside &= comes_after((rank, order, row), bound)
        cell = jnp.where(inside, cell, grid.num_cells)
        rank, _, first = lowest_keys((rank, order, row), cell, inside, grid.num_cells)
        shown = jnp.where(first == NEVER, -1, first)
        return rank.reshape(shell.depth.shape), shown.reshape(shell.depth.shape)

    return jax.lax.map(one_view, (camera_numbers(camera), surface))
