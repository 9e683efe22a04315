"""Row gather as a TPU kernel (Mosaic): one DMA of a line for each row, the row cut out in VMEM.

All lines of a block are on their way at once. Lines are whole tiles: k * c a multiple of 128. A
TPU keeps bfloat16 in pairs, line 2i in the low and line 2i + 1 in the high halves of its words,
so DMA takes two such lines at once, as words (`Lines`). Nothing of the table is padded,
copied or moved.

Compiled ahead of time for v5e, v5p, v6e and tpu7x and run in interpret mode; not yet run on a TPU.

Read next: `../put_rows/pallas_tpu.py`.
"""

import functools
from typing import Any, NamedTuple

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
    lines = Lines.of("gather_rows", table, channels)
    count = index.shape[0]
    if count == 0 or table.shape[0] == 0:
        return jnp.zeros((count, channels), table.dtype)
    blocks = jnp.pad(index, (0, -count % BLOCK), constant_values=-1).reshape(-1, 1, BLOCK)
    per_block = (1, 1, BLOCK)
    rows = pl.pallas_call(
        functools.partial(_gather_block, lines=lines),
        out_shape=jax.ShapeDtypeStruct((blocks.size, channels), lines.word),
        grid=(blocks.shape[0],),
        in_specs=[
            pl.BlockSpec(per_block, lambda block: (block, 0, 0), memory_space=pltpu.SMEM),
            pl.BlockSpec(per_block, lambda block: (block, 0, 0)),
            pl.BlockSpec(memory_space=pltpu.HBM),
        ],
        out_specs=pl.BlockSpec((BLOCK, channels), lambda block: (block, 0)),
        scratch_shapes=[pltpu.VMEM((BLOCK, table.shape[1]), lines.word), pltpu.SemaphoreType.DMA],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",)),
        interpret=interpret,
        name="gather_rows",
    )(blocks, blocks, pltpu.with_memory_space_constraint(table, pltpu.HBM))
    return lines.unpack(rows[:count], table.dtype)


class Lines(NamedTuple):
    """How a table lies in memory, in words of 32 bits.

    Attributes:
        channels: Words of a row.
        slots: Rows of a line, side by side.
        packed: Values of a word, 1 or 2: the rows of two lines share the words.
        word: Type the words are handled in.
    """

    channels: int
    slots: int
    packed: int
    word: Any

    @classmethod
    def of(cls, operation: str, table: jax.Array, channels: int) -> "Lines":
        """Return the layout of a table; raise ValueError unless DMA can move single lines of it."""
        packed, (count, width) = 4 // table.dtype.itemsize, table.shape
        known = table.dtype.itemsize == 4 or table.dtype == jnp.bfloat16
        if not known or width % _LANES or (packed == 2 and count % 16):
            raise ValueError(
                f"{operation}: pallas_tpu got a {table.dtype} table of {count} lines of {width}, "
                f"expected a 32-bit type or bfloat16, lines of a multiple of {_LANES} (store 8 "
                "rows of 48 channels in each), and whole tiles of 16 lines if bfloat16; pad the "
                "table, or pass implementation='xla'."
            )
        word = table.dtype if packed == 1 else jnp.uint32
        return cls(channels, width // channels, packed, word)

    @property
    def rows(self) -> int:
        """Rows that lie in one line of words."""
        return self.slots * self.packed

    def pack(self, rows: jax.Array) -> jax.Array:
        """Return rows as words, one value in each, in the low half if there are two."""
        if self.packed == 1:
            return rows
        return jax.lax.bitcast_convert_type(rows, jnp.uint16).astype(jnp.uint32)

    def unpack(self, words: jax.Array, dtype: Any) -> jax.Array:
        """Return rows of the table's type from words with one value in each."""
        if self.packed == 1:
            return words
        return jax.lax.bitcast_convert_type(words.astype(jnp.uint16), dtype)

    def view(self, table_ref: Any) -> Any:
        """Return the table as lines of words, inside a kernel."""
        return table_ref if self.packed == 1 else table_ref.bitcast(self.word)


def _gather_block(
    number_ref: Any, lane_ref: Any, table_ref: Any, out_ref: Any, lines_ref: Any, done: Any,
    lines: Lines,
) -> None:  # fmt: skip
    """Fetch the line of each row of a block, then cut the rows out of the lines."""
    channels, table_ref = lines.channels, lines.view(table_ref)

    def copy(row: jax.Array) -> Any:
        line = jnp.maximum(number_ref[0, 0, row], 0) // lines.rows
        return pltpu.make_async_copy(
            table_ref.at[pl.ds(line, 1)], lines_ref.at[pl.ds(row, 1)], done
        )

    jax.lax.fori_loop(0, BLOCK, lambda row, _: copy(row).start(), None)
    jax.lax.fori_loop(0, BLOCK, lambda row, _: copy(row).wait(), None)
    number = jnp.transpose(jnp.broadcast_to(lane_ref[0], (8, BLOCK)))[:, :1]
    slot = jnp.where(number >= 0, number % lines.slots, -1)
    out = jnp.zeros((BLOCK, channels), out_ref.dtype)
    for place in range(lines.slots):
        piece = lines_ref[:, place * channels : (place + 1) * channels]
        out = jnp.where(slot == place, piece, out)
    if lines.packed == 2:
        high = number // lines.slots % 2 == 1
        out = jnp.where(high, out >> 16, out & 0xFFFF)
    out_ref[...] = out
