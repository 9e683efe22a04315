"""The row of each cell that was seen from the most similar view, among those on the surface.

Read next: `rule.py` (what similar means), `api.py` (contract), `reference.py` (the truth).
"""

from mirage_jax.ops.choose_rows.api import choose_rows
from mirage_jax.ops.choose_rows.rule import SeenFrom, ViewRule, list_candidates, seen_from

__all__ = ["SeenFrom", "ViewRule", "choose_rows", "list_candidates", "seen_from"]
