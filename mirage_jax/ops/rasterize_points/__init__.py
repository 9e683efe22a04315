"""The z-buffer of points: which row of a point table is nearest in each image cell.

Read next: `api.py` (contract), `reference.py` (the truth in plain JAX).
"""

from mirage_jax.ops.rasterize_points.api import rasterize_points

__all__ = ["rasterize_points"]
