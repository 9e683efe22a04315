"""Plain-JAX gather of rows: the truth, and the fast path wherever XLA gathers well.

Read next: `pallas_tpu.py`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Int32, Shaped


def gather_rows(
    table: Shaped[jax.Array, "l k*c"], index: Int32[jax.Array, " m"], channels: int
) -> Shaped[jax.Array, "m c"]:
    """Return the rows by number, zeros for -1; see `api.gather_rows`."""
    rows = table.reshape(-1, channels)
    if rows.shape[0] == 0:
        return jnp.zeros((index.shape[0], channels), table.dtype)
    found = rows.at[jnp.maximum(index, 0)].get(mode="promise_in_bounds")
    return jnp.where(index[:, None] >= 0, found, jnp.zeros((), table.dtype))


def add_rows(
    like: Shaped[jax.Array, "l k*c"],
    index: Int32[jax.Array, " m"],
    rows: Shaped[jax.Array, "m c"],
) -> Shaped[jax.Array, "l k*c"]:
    """Return a table of zeros like `like` with the rows added where they were gathered from.

    The transpose of the gather. Rows that were gathered several times are summed in float32.
    """
    channels = rows.shape[-1]
    total = jnp.zeros((like.size // channels, channels), jnp.float32)
    where = jnp.where(index >= 0, index, total.shape[0])
    total = total.at[where].add(rows.astype(jnp.float32), mode="drop")
    return total.reshape(like.shape).astype(like.dtype)
