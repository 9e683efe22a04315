"""Write rows of a table by number, in place where the table is donated.

Read next: `api.py` (contract), `reference.py` (the truth).
"""

from mirage_jax.ops.put_rows.api import put_rows

__all__ = ["put_rows"]
