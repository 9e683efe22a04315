"""Choice of rows as a GPU kernel: the walk of the rasterizer with the rank of views as the key.

Compiled ahead of time for the H100 and run in interpret mode; not yet run on a GPU.

Read next: `../rasterize_points/pallas_gpu.py`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Int32

from mirage_jax.geometry.camera import Camera
from mirage_jax.ops.choose_rows.rule import SeenFrom, Surface, ViewRule, contest_of, limit_of
from mirage_jax.ops.rasterize_points.pages import CellBounds, CellGrid, Pages, WorkList
from mirage_jax.ops.rasterize_points.pallas_gpu import walk_pages
from mirage_jax.ops.rasterize_points.project import NEVER


def choose_rows(
    pages: Pages,
    views: SeenFrom,
    camera: Camera,
    grid: CellGrid,
    surface: Surface,
    rule: ViewRule,
    work: WorkList,
    interpret: bool = False,
) -> tuple[Int32[jax.Array, "t h w"], Int32[jax.Array, "t h w"]]:
    """Return rank and row of what each cell of each camera shows; see `api.choose_rows`."""
    tables = (views.origin, views.depth[:, None])
    bounds = CellBounds(limit_of(surface.depth, rule), surface.after)
    contest = contest_of(grid, rule)
    rank, row = walk_pages(pages, tables, camera, grid, work, bounds, contest, interpret)
    return rank, jnp.where(row == NEVER, -1, row)
