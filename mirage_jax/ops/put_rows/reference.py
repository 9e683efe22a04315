"""Plain-JAX row writes: the truth, and the fast path wherever XLA scatters well.

Numbers occur once, so the order of the writes does not matter. Read next: `pallas_tpu.py`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Int32, Shaped


def put_rows(
    table: Shaped[jax.Array, "l k*c"],
    rows: Shaped[jax.Array, "m c"],
    index: Int32[jax.Array, " m"],
) -> Shaped[jax.Array, "l k*c"]:
    """Return the table with the rows written; see `api.put_rows`."""
    flat = table.reshape(-1, rows.shape[1])
    # Each skipped row gets a place of its own past the end, so that no place occurs twice.
    past = flat.shape[0] + jnp.arange(index.shape[0], dtype=jnp.int32)
    place = jnp.where(index >= 0, index, past)
    flat = flat.at[place].set(rows, mode="drop", unique_indices=True)
    return flat.reshape(table.shape)
