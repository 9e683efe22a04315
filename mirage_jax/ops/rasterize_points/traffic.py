"""Bytes that a read moves, counted from its work list: by the walk, and the least that any could.

Counted, not measured: what the page tables cost to fetch, with the list, for each view. The walk is
replayed one page at a time, as the TPU kernel takes them: a page is fetched unless it is hidden
when the page before it is under way. Plain NumPy on finished results; not for use inside `jit`.

Read next: `pallas_tpu.py`.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from mirage_jax.geometry.camera import Camera
from mirage_jax.ops.rasterize_points.pages import EMPTY, CellGrid, Pages, WorkList

# x, y, z and order of a row; page, near, columns and lines of an entry of the list.
_ROW_BYTES, _ENTRY_BYTES = 16, 16


class Traffic(NamedTuple):
    """Bytes that all views of a read move.

    Attributes:
        list_bytes: Work lists up to where the walk ends.
        page_bytes: Pages that are fetched.
        least_bytes: Pages that hold a winning row; no exact method can do without them.
        stored_bytes: All pages in use, once for each view: what brute force reads.
        pages: Pages fetched.
    """

    list_bytes: int
    page_bytes: int
    least_bytes: int
    stored_bytes: int
    pages: int


def count_traffic(pages: Pages, camera: Camera, grid: CellGrid, work: WorkList) -> Traffic:
    """Count the bytes that `rasterize_points` moves for these cameras with the TPU kernel's walk.

    Args:
        pages: Pages of the memory.
        camera: t cameras.
        grid: Cells.
        work: Their lists.
    """
    pages, camera, work = jax.tree.map(np.asarray, (pages, camera, work))
    page_bytes = _ROW_BYTES * pages.order.shape[1]
    views = [_replay(pages, camera, view, grid, work) for view in range(len(work.count))]
    entries, fetched, needed = (sum(counts) for counts in zip(*views, strict=True))
    used = int(np.sum((pages.order != EMPTY).any(axis=1)))
    return Traffic(
        list_bytes=entries * _ENTRY_BYTES,
        page_bytes=fetched * page_bytes,
        least_bytes=needed * page_bytes,
        stored_bytes=used * len(views) * page_bytes,
        pages=fetched,
    )


def _replay(
    pages: Any, camera: Camera, view: int, grid: CellGrid, work: Any
) -> tuple[int, int, int]:
    """Return the entries looked at, pages fetched and pages that hold a winner of one view."""
    pose, lens = camera.cam_to_world[view], camera.intrinsics[view]
    depth = np.full((grid.height, grid.width), np.inf)
    owner = np.full(depth.shape, -1)
    fetched, waiting = 0, None
    count = int(work.count[view])
    entry = 0
    for entry in range(count):  # noqa: B007  # the last one tells how far the walk went
        page, near = work.page[view, entry], work.near[view, entry]
        if near > depth.max():
            break
        if near > _box_cells(pages.bounds[page], pose, lens, depth).max(initial=-1.0):
            continue
        fetched += 1
        if waiting is not None:
            _draw(pages, waiting, pose, lens, grid, depth, owner)
        waiting = page
    else:
        entry = count
    if waiting is not None:
        _draw(pages, waiting, pose, lens, grid, depth, owner)
    return entry, fetched, len(np.unique(owner[owner >= 0]))


def _box_cells(
    box: np.ndarray, pose: np.ndarray, lens: np.ndarray, depth: np.ndarray
) -> np.ndarray:
    """Return the depths of the cells that a box may cover, as the kernel bounds them."""
    corners = np.stack(np.meshgrid(*box.T, indexing="ij"), axis=-1).reshape(8, 3)
    local = (corners - pose[:3, 3]) @ pose[:3, :3]
    if local[:, 2].min() <= 1e-3 * np.abs(local).sum(axis=1).max():
        return depth
    uv = (local @ lens.T)[:, :2] / local[:, 2:] - lens[:2, 2]
    low, high = uv.min(axis=0), uv.max(axis=0)
    low = low - 0.01 * np.abs(low) - 1 + lens[:2, 2]
    high = high + 0.01 * np.abs(high) + 1 + lens[:2, 2]
    last = np.array(depth.shape[::-1]) - 1
    (left, top), (right, bottom) = (np.clip(s, 0, last).astype(int) for s in (low, high))
    return depth[top : bottom + 1, left : right + 1]


def _draw(
    pages: Pages, page: int, pose: np.ndarray, lens: np.ndarray, grid: CellGrid,
    depth: np.ndarray, owner: np.ndarray,
) -> None:  # fmt: skip
    """Let the rows of a page compete for the cells, in place."""
    points = np.asarray(pages.positions[page]).T[np.asarray(pages.order[page]) != EMPTY]
    with np.errstate(all="ignore"):
        local = (points - pose[:3, 3]) @ pose[:3, :3]
        uv = (local @ lens.T)[:, :2] / local[:, 2:]
        corner = np.floor(uv) if grid.rounding == "floor" else np.round(uv)
        inside = (corner >= 0).all(1) & (corner < [grid.width, grid.height]).all(1)
    inside &= np.isfinite(local).all(1) & (local[:, 2] > 0)
    column, line = corner[inside].astype(int).T
    nearest = np.full(depth.shape, np.inf)
    np.minimum.at(nearest, (line, column), local[inside, 2])
    owner[nearest < depth] = page
    np.minimum(depth, nearest, out=depth)
