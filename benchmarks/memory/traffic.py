"""Bytes that the TPU kernel moves for a view, by count, beside the least and beside brute force.

Nothing is timed or run on a TPU: the kernel's walk over the pages is replayed on the host.

Read next: `mirage_jax/ops/rasterize_points/traffic.py`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.memory import scenes, stored
from mirage_jax.memory.state import page_table
from mirage_jax.ops.rasterize_points.pages import CellGrid
from mirage_jax.ops.rasterize_points.traffic import count_traffic
from mirage_jax.ops.rasterize_points.work_list import list_pages

_SCENES: dict[str, Callable[[int], scenes.Points]] = {
    "volume": scenes.frustum_volume,
    "surface": scenes.single_surface,
}

_list_pages = jax.jit(list_pages, static_argnums=2)


def measure(count: int) -> dict[str, Any]:
    """Count the bytes of one view of each scene.

    Args:
        count: points in view.

    Returns:
        Scene -> bytes of the list, of pages fetched, of pages that hold a winner, of all pages.
    """
    print(f"traffic of one view of {count:,} points, counted for the TPU kernel (not run)")
    result = {}
    for name, make in _SCENES.items():
        points = make(count)
        config = stored.config_for(count)
        pages = page_table(stored.filled(points.positions, config))
        grid = CellGrid(*scenes.GRID_HW, config.rounding)
        work = _list_pages(jnp.asarray(pages.bounds), points.camera, grid)
        moved = count_traffic(pages, points.camera, grid, work)
        result[name] = {**moved._asdict(), "over_least": moved.page_bytes / moved.least_bytes}
        print(f"  {name}: {moved}")
    return result
