"""Public entry of the row writes: argument checks, the implementation, and its gradient.

The table is stored in lines of k rows, see `gather_rows/api.py`. Read next: `reference.py`.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int32, Shaped

from mirage_jax.ops.batching import rows_of_one_table
from mirage_jax.ops.gather_rows.api import check_table, gather_rows
from mirage_jax.ops.platform import choose_implementation
from mirage_jax.ops.put_rows import reference


def _pallas_tpu(table: jax.Array, rows: jax.Array, index: jax.Array) -> jax.Array:
    from mirage_jax.ops.put_rows import pallas_tpu

    def put(table: jax.Array, rows: jax.Array, index: jax.Array) -> jax.Array:
        return pallas_tpu.put_rows(table, rows, index)

    return rows_of_one_table(put, rows.shape[1], puts=True)(table, rows, index)


def _pallas_gpu(table: jax.Array, rows: jax.Array, index: jax.Array) -> jax.Array:
    from mirage_jax.ops.put_rows import pallas_gpu

    def put(table: jax.Array, rows: jax.Array, index: jax.Array) -> jax.Array:
        return pallas_gpu.put_rows(table, rows, index)

    return rows_of_one_table(put, rows.shape[1], puts=True)(table, rows, index)


IMPLEMENTATIONS: dict[str, Callable[[jax.Array, jax.Array, jax.Array], jax.Array]] = {
    "reference": reference.put_rows,
    "xla": reference.put_rows,
    "pallas_tpu": _pallas_tpu,
    "pallas_gpu": _pallas_gpu,
}


def put_rows(
    table: Shaped[jax.Array, "l k*c"],
    rows: Shaped[jax.Array, "m c"],
    index: Int32[jax.Array, " m"],
    implementation: str | None = None,
) -> Shaped[jax.Array, "l k*c"]:
    """Return the table with some rows replaced; in place under `jax.jit` if it is donated.

    Gradients flow to the new rows and to the rows of the table that stay.

    Args:
        table: n rows of c channels in lines of k, any type.
        rows: m new rows, in the table's type.
        index: Number of each new row; -1 leaves it out. No other number may occur twice.
        implementation: One of `IMPLEMENTATIONS`; None takes the one of the platform.

    Returns:
        A table of the same shape.

    Raises:
        TypeError: If `index` is not int32 or the types of table and rows differ.
        ValueError: If the shapes do not belong together, or there is no such implementation.
    """
    name = choose_implementation("put_rows", implementation, IMPLEMENTATIONS)
    if rows.ndim != 2 or index.shape != rows.shape[:1]:
        raise ValueError(
            f"put_rows: rows have shape {list(rows.shape)} and index {list(index.shape)}, expected "
            "[m, c] and [m]; use jax.vmap for a batch."
        )
    check_table("put_rows", table, index, rows.shape[1])
    if rows.dtype != table.dtype:
        raise TypeError(
            f"put_rows: rows are {rows.dtype} and the table {table.dtype}; convert the rows first."
        )
    return _put(jnp.asarray(table), jnp.asarray(rows), jnp.asarray(index), name)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _put(table: jax.Array, rows: jax.Array, index: jax.Array, name: str) -> jax.Array:
    """Run the implementation."""
    return IMPLEMENTATIONS[name](table, rows, index)


def _forward(
    table: jax.Array, rows: jax.Array, index: jax.Array, name: str
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Put, and remember where and what; of the rows only the shape is used."""
    return _put(table, rows, index, name), (rows, index)


def _backward(
    name: str, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array, np.ndarray]:
    """Split the gradient into that of the rows that stayed and that of the new ones."""
    rows, index = saved
    to_rows = gather_rows(gradient, index, rows.shape[1], name)
    to_table = IMPLEMENTATIONS[name](gradient, jnp.zeros_like(rows), index)
    return to_table, to_rows, np.zeros(index.shape, jax.dtypes.float0)


_put.defvjp(_forward, _backward)
