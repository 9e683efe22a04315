"""Public entry of the points rasterizer: argument checks, then the implementation.

The contract lives here and holds for every implementation: the nearest row wins its cell, equal
depths go to the lower order, rows that are invalid or behind the camera never win, and two runs
agree bit for bit. Cost follows what is seen: pages outside the view or hidden by nearer rows are
not read. The function is pure, of static shape, and safe under `jax.jit` and `jax.vmap`.

Read next: `reference.py`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mirage_jax.geometry.camera import Camera
from mirage_jax.ops.batching import one_by_one
from mirage_jax.ops.platform import choose_implementation
from mirage_jax.ops.rasterize_points import reference, xla
from mirage_jax.ops.rasterize_points.pages import CellGrid, Nearest, Pages, WorkList
from mirage_jax.ops.rasterize_points.work_list import list_pages


def _reference(pages: Pages, camera: Camera, grid: CellGrid, work: WorkList | None) -> Nearest:
    return reference.rasterize_points(pages, camera, grid)


def _pallas_tpu(pages: Pages, camera: Camera, grid: CellGrid, work: WorkList | None) -> Nearest:
    # Imported where it is used: Pallas is slow to import, and most processes do without.
    from mirage_jax.ops.rasterize_points import pallas_tpu

    def look(pages: Pages, camera: Camera, work: WorkList) -> Nearest:
        return pallas_tpu.rasterize_points(pages, camera, grid, work)

    work = list_pages(pages.bounds, camera, grid) if work is None else work
    return one_by_one(look)(pages, camera, work)


def _pallas_gpu(pages: Pages, camera: Camera, grid: CellGrid, work: WorkList | None) -> Nearest:
    from mirage_jax.ops.rasterize_points import pallas_gpu

    def look(pages: Pages, camera: Camera, work: WorkList) -> Nearest:
        return pallas_gpu.rasterize_points(pages, camera, grid, work)

    work = list_pages(pages.bounds, camera, grid) if work is None else work
    return one_by_one(look)(pages, camera, work)


IMPLEMENTATIONS: dict[str, Callable[[Pages, Camera, CellGrid, WorkList | None], Nearest]] = {
    "reference": _reference,
    "xla": xla.rasterize_points,
    "pallas_tpu": _pallas_tpu,
    "pallas_gpu": _pallas_gpu,
}


def rasterize_points(
    pages: Pages,
    camera: Camera,
    grid: CellGrid,
    work: WorkList | None = None,
    implementation: str | None = None,
) -> Nearest:
    """Return, for each camera and cell, the nearest row that falls into the cell.

    Nothing is blended and nothing here has a gradient: gather tokens with the row, and the gradient
    reaches the tokens of the winning rows.

    Args:
        pages: n pages of P rows. A row takes part if its order is not `EMPTY`, its position is
            finite, and its z-depth is positive and finite.
        camera: t cameras with the intrinsics of the grid.
        grid: Cells and rounding.
        work: Pages to visit for each camera; must hold every page with a row in the view, nearest
            first ("reference" reads all rows anyway). With None kernels make the list with
            `list_pages`, and "xla" finds its way by runs of pages, which is faster.
        implementation: One of `IMPLEMENTATIONS`; None takes the one of the platform.

    Returns:
        Depth (inf where none) and row (page * P + slot, -1 where none) of each cell. Equal depths
        go to the lower order, rows of equal depth and order to the lower row.

    Raises:
        TypeError: If positions are not float32 or orders not int32.
        ValueError: If shapes do not belong together, rows could not be numbered in int32, or there
            is no such implementation.
    """
    name = choose_implementation("rasterize_points", implementation, IMPLEMENTATIONS)
    check_pages("rasterize_points", pages, camera, work)
    pages, camera, work = jax.lax.stop_gradient(jax.tree.map(jnp.asarray, (pages, camera, work)))
    return IMPLEMENTATIONS[name](pages, camera, grid, work)


def check_pages(operation: str, pages: Pages, camera: Camera, work: WorkList | None) -> None:
    """Raise for arguments that no implementation accepts.

    Args:
        operation: What failed, for the message.
        pages: Pages to check.
        camera: Cameras to check.
        work: List to check, if there is one.

    Raises:
        TypeError: Naming the wrong type.
        ValueError: Naming the wrong shape.
    """
    if pages.positions.dtype != jnp.float32 or pages.order.dtype != jnp.int32:
        raise TypeError(
            f"{operation}: positions are {pages.positions.dtype} and orders {pages.order.dtype}, "
            "expected float32 and int32; convert them first."
        )
    n, page_rows = pages.order.shape if pages.order.ndim == 2 else (-1, -1)
    if pages.positions.shape != (n, 3, page_rows) or pages.bounds.shape != (n, 2, 3):
        raise ValueError(
            f"{operation}: positions have shape {list(pages.positions.shape)}, orders "
            f"{list(pages.order.shape)} and bounds {list(pages.bounds.shape)}, expected [n, 3, P], "
            "[n, P] and [n, 2, 3]; use jax.vmap for a batch."
        )
    if n * page_rows > 2**31 - 1:
        raise ValueError(
            f"{operation}: {n} pages of {page_rows} rows cannot be numbered in int32; split the "
            "table over devices."
        )
    views = camera.cam_to_world.shape[:-2]
    if len(views) != 1 or camera.intrinsics.shape != (*views, 3, 3):
        raise ValueError(
            f"{operation}: cam_to_world has shape {list(camera.cam_to_world.shape)} and intrinsics "
            f"{list(camera.intrinsics.shape)}, expected [t, 4, 4] and [t, 3, 3]; add a leading "
            "axis for a single camera."
        )
    if work is not None and (work.page.shape[:1] != views or work.near.shape != work.page.shape):
        raise ValueError(
            f"{operation}: the list has shapes {list(work.page.shape)} and "
            f"{list(work.near.shape)}, expected [t, l] twice with t = {views[0]} cameras."
        )
