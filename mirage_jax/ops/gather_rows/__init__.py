"""Rows of a table by number, -1 giving zeros; the gradient goes to the table.

Read next: `api.py` (contract and layout), `reference.py` (the truth).
"""

from mirage_jax.ops.gather_rows.api import gather_rows

__all__ = ["gather_rows"]
