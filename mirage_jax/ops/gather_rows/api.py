"""Public entry of the row gather: argument checks, the implementation, and its gradient.

Layout: a table of n rows of c channels is stored as lines of k rows, [n / k, k * c], and row r is
channels (r % k) * c ... of line r // k; k = 1 is an ordinary table. TPUs pad the last axis to 128
lanes, so 48 channels would take 2.7 times their bytes; 8 rows of 48 fill 3 * 128 lanes exactly.

Read next: `reference.py`, `pallas_tpu.py`.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int32, Shaped

from mirage_jax.ops.batching import rows_of_one_table
from mirage_jax.ops.gather_rows import reference
from mirage_jax.ops.platform import choose_implementation


def _pallas_tpu(table: jax.Array, index: jax.Array, channels: int) -> jax.Array:
    from mirage_jax.ops.gather_rows import pallas_tpu

    def take(table: jax.Array, index: jax.Array) -> jax.Array:
        return pallas_tpu.gather_rows(table, index, channels)

    return rows_of_one_table(take, channels, puts=False)(table, index)


def _pallas_gpu(table: jax.Array, index: jax.Array, channels: int) -> jax.Array:
    from mirage_jax.ops.gather_rows import pallas_gpu

    def take(table: jax.Array, index: jax.Array) -> jax.Array:
        return pallas_gpu.gather_rows(table, index, channels)

    return rows_of_one_table(take, channels, puts=False)(table, index)


IMPLEMENTATIONS: dict[str, Callable[[jax.Array, jax.Array, int], jax.Array]] = {
    "reference": reference.gather_rows,
    "xla": reference.gather_rows,
    "pallas_tpu": _pallas_tpu,
    "pallas_gpu": _pallas_gpu,
}


def gather_rows(
    table: Shaped[jax.Array, "l k*c"],
    index: Int32[jax.Array, "*m"],
    channels: int,
    implementation: str | None = None,
) -> Shaped[jax.Array, "*m c"]:
    """Return rows of a table by their number; -1 gives zeros.

    The gradient reaches the table only: rows that were taken several times get the sum.

    Args:
        table: n rows of c channels in lines of k, any type.
        index: Row numbers from -1 to n - 1. Others are not caught, and give some row of the table
            or zeros.
        channels: Channels c of a row, static; must divide the length of a line.
        implementation: One of `IMPLEMENTATIONS`; None takes the one of the platform.

    Returns:
        Rows in the shape of `index`, in the table's type.

    Raises:
        TypeError: If `index` is not int32.
        ValueError: If `channels` does not divide a line, or there is no such implementation.
    """
    name = choose_implementation("gather_rows", implementation, IMPLEMENTATIONS)
    check_table("gather_rows", table, index, channels)
    flat = jnp.asarray(index).reshape(-1)
    return _gather(jnp.asarray(table), flat, channels, name).reshape(*index.shape, channels)


def check_table(operation: str, table: jax.Array, index: jax.Array, channels: int) -> None:
    """Raise for a table or an index that no implementation accepts.

    Args:
        operation: What failed, for the message.
        table: Table in lines.
        index: Row numbers.
        channels: Channels of a row.

    Raises:
        TypeError: If `index` is not int32.
        ValueError: If the table is not lines of whole rows.
    """
    if index.dtype != jnp.int32:
        raise TypeError(f"{operation}: index has dtype {index.dtype}, expected int32; convert it.")
    if table.ndim != 2 or channels < 1 or table.shape[1] % channels:
        raise ValueError(
            f"{operation}: table has shape {list(table.shape)}, expected [lines, k * {channels}] "
            "with whole rows in a line; reshape it, and use jax.vmap for a batch."
        )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _gather(table: jax.Array, index: jax.Array, channels: int, name: str) -> jax.Array:
    """Run the implementation."""
    return IMPLEMENTATIONS[name](table, index, channels)


def _forward(
    table: jax.Array, index: jax.Array, channels: int, name: str
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Gather, and remember what the gradient needs: the numbers, and the table for its shape."""
    return _gather(table, index, channels, name), (table, index)


def _backward(
    channels: int, name: str, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, np.ndarray]:
    """Add the gradient of each row where the row came from."""
    table, index = saved
    none = np.zeros(index.shape, jax.dtypes.float0)
    return reference.add_rows(table, index, gradient), none


_gather.defvjp(_forward, _backward)
