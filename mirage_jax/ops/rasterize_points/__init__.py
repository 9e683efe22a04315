"""The z-buffer of points: which row of a paged point table is nearest in each image cell.

Read next: `pages.py` (what it works on), `api.py` (contract), `reference.py` (the truth).
"""

from mirage_jax.ops.rasterize_points.api import rasterize_points
from mirage_jax.ops.rasterize_points.pages import (
    EMPTY,
    CellGrid,
    Nearest,
    Pages,
    WorkList,
    page_bounds,
)
from mirage_jax.ops.rasterize_points.work_list import list_pages

__all__ = [
    "EMPTY",
    "CellGrid",
    "Nearest",
    "Pages",
    "WorkList",
    "list_pages",
    "page_bounds",
    "rasterize_points",
]
