"""Public entry of the choice of rows: argument checks, then the implementation.

The second pass of a read that prefers, on the surface found by `rasterize_points`, the row seen
from the most similar view. Deterministic, of static shape, safe under `jax.jit` and `jax.vmap`.

Read next: `rule.py`, `reference.py`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float32, Int32

from mirage_jax.geometry.camera import Camera
from mirage_jax.ops.batching import one_by_one
from mirage_jax.ops.choose_rows import reference, xla
from mirage_jax.ops.choose_rows.rule import (
    Chosen,
    SeenFrom,
    Surface,
    ViewRule,
    list_candidates,
)
from mirage_jax.ops.platform import choose_implementation
from mirage_jax.ops.rasterize_points.api import check_pages
from mirage_jax.ops.rasterize_points.pages import EMPTY, CellGrid, Pages, WorkList


def _reference(*arguments: Any) -> tuple[jax.Array, jax.Array]:
    return reference.choose_rows(*arguments[:-1])


def _pallas_tpu(*arguments: Any) -> tuple[jax.Array, jax.Array]:
    from mirage_jax.ops.choose_rows import pallas_tpu

    return _one_by_one(pallas_tpu.choose_rows, *arguments)


def _pallas_gpu(*arguments: Any) -> tuple[jax.Array, jax.Array]:
    from mirage_jax.ops.choose_rows import pallas_gpu

    return _one_by_one(pallas_gpu.choose_rows, *arguments)


def _one_by_one(
    kernel: Any, pages: Any, views: Any, camera: Any, grid: Any, surface: Any, rule: Any, work: Any
) -> tuple[jax.Array, jax.Array]:
    """Run a kernel, once for each member of a batch."""

    def look(pages, views, camera, surface, work):
        return kernel(pages, views, camera, grid, surface, rule, work)

    return one_by_one(look)(pages, views, camera, surface, work)


IMPLEMENTATIONS: dict[str, Any] = {
    "reference": _reference,
    "xla": xla.choose_rows,
    "pallas_tpu": _pallas_tpu,
    "pallas_gpu": _pallas_gpu,
}


def choose_rows(
    pages: Pages,
    views: SeenFrom,
    camera: Camera,
    grid: CellGrid,
    surface: Float32[jax.Array, "t h w"] | Surface,
    rule: ViewRule,
    work: WorkList | None = None,
    implementation: str | None = None,
) -> Chosen:
    """Return, for each camera and cell, the row whose view was most like the camera's.

    Given what a call chose, a further call with it as `Surface.after` and all else the same chooses
    the next best rows. Nothing here has a gradient.

    Args:
        pages: n pages of P rows, as for `rasterize_points`.
        views: Where their rows were seen from.
        camera: t cameras with the intrinsics of the grid.
        grid: Cells and rounding.
        surface: Depth of the nearest row of each cell, inf where none: `rasterize_points(...)`; or
            a `Surface`, with what was chosen before.
        rule: Who competes, and what makes views similar.
        work: Pages to visit; None makes the list with `list_candidates`. A list of `list_pages` is
            not enough: rows seen from the camera's place compete wherever they are.
        implementation: One of `IMPLEMENTATIONS`; None takes the one of the platform.

    Returns:
        The row of lowest rank, ties to the lower order, then the lower row, with its rank and its
        order: where rows are shared out among devices the least of those decides who wins. Ranks
        are steps of 1e-3; implementations may differ by one step where a difference lies on the
        border between two.

    Raises:
        TypeError: If positions are not float32 or orders not int32.
        ValueError: If shapes do not belong together or there is no such implementation.
    """
    name = choose_implementation("choose_rows", implementation, IMPLEMENTATIONS)
    check_pages("choose_rows", pages, camera, work)
    expected = (*camera.cam_to_world.shape[:1], grid.height, grid.width)
    surface = surface if isinstance(surface, Surface) else Surface(surface)
    if surface.depth.shape != expected or views.origin.shape != pages.positions.shape:
        raise ValueError(
            f"choose_rows: surface has shape {list(surface.depth.shape)} and views.origin "
            f"{list(views.origin.shape)}, expected {list(expected)} and "
            f"{list(pages.positions.shape)}."
        )
    arrays = jax.tree.map(jnp.asarray, (pages, views, camera, surface, work))
    pages, views, camera, surface, work = jax.lax.stop_gradient(arrays)
    if work is None:
        work = list_candidates(pages.bounds, views, camera, grid, rule)
    rank, row = IMPLEMENTATIONS[name](pages, views, camera, grid, surface, rule, work)
    return Chosen(rank, _orders(pages, row), row)


def _orders(pages: Pages, row: Int32[jax.Array, "t h w"]) -> Int32[jax.Array, "t h w"]:
    """Return the orders of rows, `EMPTY` where there is none."""
    if pages.order.size == 0:
        return jnp.full(row.shape, EMPTY, jnp.int32)
    # By page and slot: a flat table would be a copy where tables lie in tiles.
    page, slot = jnp.divmod(jnp.maximum(row, 0), pages.order.shape[1])
    return jnp.where(row >= 0, pages.order.at[page, slot].get(mode="promise_in_bounds"), EMPTY)
