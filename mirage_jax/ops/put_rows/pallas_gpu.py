"""Row writes as a GPU kernel (Pallas through Triton): a block of rows at a time, in place.

Numbers occur once, so no two programs write the same place.

Compiled ahead of time for the H100 and run in interpret mode; not yet run on a GPU.

Read next: `../gather_rows/pallas_gpu.py`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Int32, Shaped

from mirage_jax.ops.gather_rows.pallas_gpu import BLOCK, columns_of


def put_rows(
    table: Shaped[jax.Array, "l k*c"],
    rows: Shaped[jax.Array, "m c"],
    index: Int32[jax.Array, " m"],
    interpret: bool = False,
) -> Shaped[jax.Array, "l k*c"]:
    """Return the table with the rows written; see `api.put_rows`."""
    count, channels = rows.shape
    if count == 0 or table.shape[0] == 0:
        return table
    spare = -count % BLOCK
    index = jnp.pad(index, (0, spare), constant_values=-1)
    rows = jnp.pad(rows, ((0, spare), (0, 0)))
    whole = pl.BlockSpec(memory_space=pl.ANY)
    flat = table.reshape(-1, channels)
    flat = pl.pallas_call(
        _put_block,
        out_shape=jax.ShapeDtypeStruct(flat.shape, flat.dtype),
        grid=(index.shape[0] // BLOCK,),
        in_specs=[pl.BlockSpec((BLOCK,), lambda block: (block,)), whole, whole],
        out_specs=whole,
        input_output_aliases={2: 0},
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=1),
        interpret=interpret,
        name="put_rows",
    )(index, rows, flat)
    return flat.reshape(table.shape)


def _put_block(index_ref: Any, rows_ref: Any, same_table: Any, table_ref: Any) -> None:
    """Write the rows of one block; `table_ref` is the table itself, aliased to the result."""
    number = index_ref[...][:, None]
    column, exists = columns_of(table_ref.shape[1])
    place = pl.program_id(0) * BLOCK + jax.lax.broadcasted_iota(jnp.int32, (BLOCK, 1), 0)
    rows = plgpu.load(rows_ref.at[place, column], mask=exists & (place >= 0), other=0)
    # Past the end where nothing is written: interpret mode knows masked stores as old values.
    place = jnp.where(number >= 0, number, table_ref.shape[0])
    plgpu.store(table_ref.at[place, column], rows, mask=exists & (number >= 0))
