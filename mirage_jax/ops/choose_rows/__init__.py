"""The row of each cell that was seen from the most similar view, among those on the surface.

Read next: `rule.py` (what similar means), `api.py` (contract), `reference.py` (the truth).
"""

from mirage_jax.ops.choose_rows.api import choose_rows
from mirage_jax.ops.choose_rows.rule import (
    Chosen,
    SeenFrom,
    Surface,
    ViewRule,
    angle_between,
    list_candidates,
    log_ratio,
    seen_from,
)

__all__ = [
    "Chosen",
    "SeenFrom",
    "Surface",
    "ViewRule",
    "angle_between",
    "choose_rows",
    "list_candidates",
    "log_ratio",
    "seen_from",
]
