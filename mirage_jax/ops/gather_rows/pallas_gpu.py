"""Row gather as a GPU kernel (Pallas through Triton): a block of rows at a time, any type.

Compiled ahead of time for the H100 and run in interpret mode; not yet run on a GPU.

Read next: `../put_rows/pallas_gpu.py`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Int32, Shaped

# Rows of a block, a power of two.
BLOCK = 32


def gather_rows(
    table: Shaped[jax.Array, "l k*c"],
    index: Int32[jax.Array, " m"],
    channels: int,
    interpret: bool = False,
) -> Shaped[jax.Array, "m c"]:
    """Return the rows by number, zeros for -1; see `api.gather_rows`."""
    count = index.shape[0]
    if count == 0 or table.shape[0] == 0:
        return jnp.zeros((count, channels), table.dtype)
    index = jnp.pad(index, (0, -count % BLOCK), constant_values=-1)
    whole = pl.BlockSpec(memory_space=pl.ANY)
    rows = pl.pallas_call(
        _gather_block,
        out_shape=jax.ShapeDtypeStruct((index.shape[0], channels), table.dtype),
        grid=(index.shape[0] // BLOCK,),
        in_specs=[pl.BlockSpec((BLOCK,), lambda block: (block,)), whole],
        out_specs=whole,
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=1),
        interpret=interpret,
        name="gather_rows",
    )(index, table.reshape(-1, channels))
    return rows[:count]


def columns_of(channels: int) -> tuple[jax.Array, jax.Array]:
    """Return column numbers, a power of two of them, and which of them exist; both [1, columns]."""
    width = pl.next_power_of_2(channels)
    column = jax.lax.broadcasted_iota(jnp.int32, (1, width), 1)
    return column, column < channels


def _gather_block(index_ref: Any, table_ref: Any, out_ref: Any) -> None:
    """Gather the rows of one block."""
    number = index_ref[...][:, None]
    column, exists = columns_of(table_ref.shape[1])
    here = table_ref.at[jnp.maximum(number, 0), column]
    rows = plgpu.load(here, mask=exists & (number >= 0), other=0)
    place = pl.program_id(0) * BLOCK + jax.lax.broadcasted_iota(jnp.int32, (BLOCK, 1), 0)
    plgpu.store(out_ref.at[place, column], rows, mask=exists & (place >= 0))
