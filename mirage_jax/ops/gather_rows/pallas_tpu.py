"""Row gather as a TPU kernel (Mosaic): one DMA of a line for each row, the row cut out in VMEM.

All lines of a block are on their way at once. Tables must hold 32-bit values (a line of 16-bit
values shares its tile with a neighbour, so DMA cannot take it alone) in lines of whole tiles:
k * c a multiple of 128. Nothing of the table is padded, copied or moved.

Compiled ahead of time for v5e, v5p, v6e and tpu7x and run in interpret mode; not yet run on a TPU.

Read next: `../put_rows/pallas_tpu.py`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Int32, Shaped

# Rows of a block: 128 lines of 8 x 48 float32 are 192 KiB of VMEM.
BLOCK = 128
_LANES = 128


def gather_rows(
    table: Shaped[jax.Array, "l k*c"],
    index: Int32[jax.Array, " m"],
    channels: int,
    interpret: Any = False,
) -> Shaped[jax.Array, "m c"]:
    """Return the rows by number, zeros for -1; see `api.gather_rows`.

    Raises:
        ValueError: If the table's type or line does not suit DMA.
    """
    check_lines("gather_rows", table)
    count = index.shape[0]
    if count == 0 or table.shape[0] == 0:
        return jnp.zeros((count, channels), table.dtype)
    blocks = jnp.pad(index, (0, -count % BLOCK), constant_values=-1).reshape(-1, 1, BLOCK)
    per_block = (1, 1, BLOCK)
    rows = pl.pallas_call(
        functools.partial(_gather_block, channels=channels),
        out_shape=jax.ShapeDtypeStruct((blocks.size, channels), table.dtype),
        grid=(blocks.shape[0],),
        in_specs=[
            pl.BlockSpec(per_block, lambda block: (block, 0, 0), memory_space=pltpu.SMEM),
            pl.BlockSpec(per_block, lambda block: (block, 0, 0)),
            pl.BlockSpec(memory_space=pltpu.HBM),
        ],
        out_specs=pl.BlockSpec((BLOCK, channels), lambda block: (block, 0)),
        scratch_shapes=[pltpu.VMEM((BLOCK, table.shape[1]), table.dtype), pltpu.SemaphoreType.DMA],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",)),
        interpret=interpret,
        name="gather_rows",
    )(blocks, blocks, pltpu.with_memory_space_constraint(table, pltpu.HBM))
    return rows[:count]


def check_lines(operation: str, table: jax.Array) -> None:
    """Raise ValueError unless single lines of the table can be moved by DMA."""
    if table.dtype.itemsize != 4 or table.shape[1] % _LANES:
        raise ValueError(
            f"{operation}: pallas_tpu got a {table.dtype} table with lines of {table.shape[1]}, "
            f"expected a 32-bit type and a multiple of {_LANES}; store 8 rows of 48 channels in a "
            "line (and 16-bit tokens in pairs as uint32), or pass implementation='xla'."
        )


def _gather_block(
    number_ref: Any, lane_ref: Any, table_ref: Any, out_ref: Any, lines_ref: Any, done: Any,
    channels: int,
) -> None:  # fmt: skip
    """Fetch the line of each row of a block, then cut the rows out of the lines."""
    per_line = table_ref.shape[1] // channels

    def copy(row: jax.Array) -> Any:
        line = jnp.maximum(number_ref[0, 0, row], 0) // per_line
        return pltpu.make_async_copy(
            table_ref.at[pl.ds(line, 1)], lines_ref.at[pl.ds(row, 1)], done
        )

    jax.lax.fori_loop(0, BLOCK, lambda row, _: copy(row).start(), None)
    jax.lax.fori_loop(0, BLOCK, lambda row, _: copy(row).wait(), None)
    number = jnp.transpose(jnp.broadcast_to(lane_ref[0], (8, BLOCK)))[:, :1]
    slot = jnp.where(number >= 0, number % per_line, -1)
    out = jnp.zeros((BLOCK, channels), out_ref.dtype)
    for place in range(per_line):
        piece = lines_ref[:, place * channels : (place + 1) * channels]
        out = jnp.where(slot == place, piece, out)
    out_ref[...] = out
