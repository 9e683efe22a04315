"""Row writes as a TPU kernel (Mosaic): lines are fetched, changed in VMEM and sent back in place.

The new rows (not the table) are sorted by number first, so that each line is touched once: no two
DMAs write the same place, and the order of the blocks does not matter. The table is aliased to the
result, so with a donated table nothing but the touched lines moves. Lines of 16-bit values are
changed two at a time, as the words that they share.

Compiled ahead of time for v5e, v5p, v6e and tpu7x and run in interpret mode; not yet run on a TPU.

Read next: `../gather_rows/pallas_tpu.py`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Int32, Shaped

from mirage_jax.ops.gather_rows.pallas_tpu import BLOCK, Lines

# Lines changed by one call, a multiple of `BLOCK`: what is laid out for them stays small.
_LINES = 2048
_LAST = jnp.iinfo(jnp.int32).max


def put_rows(
    table: Shaped[jax.Array, "l k*c"],
    rows: Shaped[jax.Array, "m c"],
    index: Int32[jax.Array, " m"],
    interpret: Any = False,
) -> Shaped[jax.Array, "l k*c"]:
    """Return the table with the rows written; see `api.put_rows`.

    Raises:
        ValueError: If the table's type or line does not suit DMA.
    """
    lines = Lines.of("put_rows", table, rows.shape[1])
    count = rows.shape[0]
    if count == 0 or table.shape[0] == 0:
        return table
    index = jnp.pad(index, (0, -count % BLOCK), constant_values=-1)
    line, source = _rows_of_lines(index, lines.rows)
    words, most = lines.pack(rows), min(_LINES, line.shape[0])
    padding = -line.shape[0] % most
    line = jnp.pad(line, (0, padding), constant_values=-1)
    source = jnp.pad(source, ((0, padding), (0, 0)), constant_values=-1)

    def step(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        start, table = state
        here = jax.lax.dynamic_slice_in_dim(line, start, most)
        from_row = jax.lax.dynamic_slice_in_dim(source, start, most)
        new = _lay_out(words, from_row, lines)
        return start + most, write_lines(table, here, from_row, new, interpret)

    # Rows that lie together share lines: mostly an eighth of the lines there might be.
    touched = jnp.sum(line >= 0, dtype=jnp.int32)
    start = (jnp.zeros((), jnp.int32), table)
    return jax.lax.while_loop(lambda state: state[0] < touched, step, start)[1]


def _lay_out(
    words: Shaped[jax.Array, "m c"], source: Int32[jax.Array, "l slots"], lines: Lines
) -> Shaped[jax.Array, "l k*c"]:
    """Return lines of words with the rows in their slots; anything where there is none."""
    # Slot after slot: an axis of 48 channels would be padded to 128 lanes.
    slots = [words[jnp.clip(slot, 0, words.shape[0] - 1)] for slot in source.T]
    low, high = slots[: lines.slots], slots[lines.slots :]
    if high:
        low = [first | second << 16 for first, second in zip(low, high, strict=True)]
    return jnp.concatenate(low, axis=1)


def write_lines(
    table: Shaped[jax.Array, "l k*c"],
    line: Int32[jax.Array, " m"],
    source: Int32[jax.Array, "m slots"],
    new: Shaped[jax.Array, "m k*c"],
    interpret: Any = False,
) -> Shaped[jax.Array, "l k*c"]:
    """Return the table with some slots of some lines replaced, in place if it is donated.

    Args:
        table: Lines of k rows of c channels.
        line: Lines of words to change, none twice, -1 for none; m is a multiple of `BLOCK`.
        source: Negative for slots that stay; k of them, or those of both lines of 16-bit values.
        new: What goes into the other slots, in words.
        interpret: False on a TPU; True or `pltpu.InterpretParams` to run elsewhere.
    """
    packed = 4 // table.dtype.itemsize
    lines = Lines.of("put_rows", table, table.shape[1] * packed // source.shape[1])
    block = line.reshape(-1, 1, BLOCK)
    return pl.pallas_call(
        functools.partial(_put_block, lines=lines),
        out_shape=jax.ShapeDtypeStruct(table.shape, table.dtype),
        grid=(block.shape[0],),
        in_specs=[
            pl.BlockSpec((1, 1, BLOCK), lambda block: (block, 0, 0), memory_space=pltpu.SMEM),
            pl.BlockSpec((BLOCK, source.shape[1]), lambda block: (block, 0)),
            pl.BlockSpec((BLOCK, table.shape[1]), lambda block: (block, 0)),
            pl.BlockSpec(memory_space=pltpu.HBM),
        ],
        out_specs=pl.BlockSpec(memory_space=pltpu.HBM),
        scratch_shapes=[
            pltpu.VMEM((BLOCK, table.shape[1]), lines.word),
            pltpu.SemaphoreType.DMA,
            pltpu.SemaphoreType.DMA,
        ],
        input_output_aliases={3: 0},
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary",)),
        interpret=interpret,
        name="put_rows",
    )(block, source, new, table)


def _rows_of_lines(
    index: Int32[jax.Array, " m"], per_line: int
) -> tuple[Int32[jax.Array, " m"], Int32[jax.Array, "m k"]]:
    """Return the lines that are touched, each once, and the new row of each of their slots.

    Args:
        index: Number of each new row, -1 for none.
        per_line: Rows k of a line.

    Returns:
        line: Numbers of lines, -1 behind the last.
        source: Which of the m new rows goes into the slot, -1 for none.
    """
    m = index.shape[0]
    number, row = jax.lax.sort(
        (jnp.where(index < 0, _LAST, index), jnp.arange(m, dtype=jnp.int32)), num_keys=1
    )
    line = jnp.where(number == _LAST, -1, number // per_line)
    before = jnp.concatenate([jnp.full((1,), -1, jnp.int32), line[:-1]])
    first = (line != before) & (line >= 0)
    order = jnp.cumsum(first, dtype=jnp.int32)
    # The start of the j-th line is where the running count first reaches j + 1.
    start = jnp.searchsorted(order, jnp.arange(1, m + 1)).astype(jnp.int32)
    touched = jnp.where(start < m, line[jnp.minimum(start, m - 1)], -1)
    source = jnp.full((m, per_line), -1, jnp.int32)
    for step in range(per_line):
        at = jnp.minimum(start + step, m - 1)
        mine = (start + step < m) & (touched >= 0) & (line[at] == touched)
        here = mine[:, None] & (number[at] % per_line == jnp.arange(per_line)[:, None]).T
        source = jnp.where(here, row[at][:, None], source)
    return touched, source


def _put_block(
    line_ref: Any, source_ref: Any, new_ref: Any, same_table: Any, table_ref: Any, *scratch: Any,
    lines: Lines,
) -> None:  # fmt: skip
    """Change the lines of a block; `table_ref` is the table itself, aliased to the result."""
    lines_ref, fetched, sent = scratch
    channels, table_ref = lines.channels, lines.view(table_ref)

    def each(act: Any) -> None:
        def one(row: jax.Array, carry: None) -> None:
            line = line_ref[0, 0, row]

            @pl.when(line >= 0)
            def _() -> None:
                act(table_ref.at[pl.ds(line, 1)], lines_ref.at[pl.ds(row, 1)])

        jax.lax.fori_loop(0, BLOCK, one, None)

    each(lambda far, near: pltpu.make_async_copy(far, near, fetched).start())
    each(lambda far, near: pltpu.make_async_copy(far, near, fetched).wait())
    for place in range(lines.slots):
        piece = slice(place * channels, (place + 1) * channels)
        old, new = lines_ref[:, piece], new_ref[:, piece]
        changed = source_ref[:, place : place + 1] >= 0
        if lines.packed == 1:
            lines_ref[:, piece] = jnp.where(changed, new, old)
        else:
            other = source_ref[:, lines.slots + place : lines.slots + place + 1] >= 0
            low = jnp.where(changed, new, old) & jnp.uint32(0xFFFF)
            lines_ref[:, piece] = low | jnp.where(other, new, old) & jnp.uint32(0xFFFF0000)
    each(lambda far, near: pltpu.make_async_copy(near, far, sent).start())
    each(lambda far, near: pltpu.make_async_copy(near, far, sent).wait())
