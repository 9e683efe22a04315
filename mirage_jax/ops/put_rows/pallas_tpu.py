"""Row writes as a TPU kernel (Mosaic): lines are fetched, changed in VMEM and sent back in place.

The new rows (not the table) are sorted by number first, so that each line is touched once: no two
DMAs write the same place, and the order of the blocks does not matter. The table is aliased to the
result, so with a donated table nothing but the touched lines moves.

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

from mirage_jax.ops.gather_rows.pallas_tpu import BLOCK, check_lines

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
    check_lines("put_rows", table)
    count, channels = rows.shape
    if count == 0 or table.shape[0] == 0:
        return table
    per_line = table.shape[1] // channels
    spare = -count % BLOCK
    index = jnp.pad(index, (0, spare), constant_values=-1)
    line, source = _rows_of_lines(index, per_line)
    new = rows[jnp.clip(source, 0, count - 1)].reshape(-1, table.shape[1])
    return write_lines(table, line, source, new, interpret)


def write_lines(
    table: Shaped[jax.Array, "l k*c"],
    line: Int32[jax.Array, " m"],
    source: Int32[jax.Array, "m k"],
    new: Shaped[jax.Array, "m k*c"],
    interpret: Any = False,
) -> Shaped[jax.Array, "l k*c"]:
    """Return the table with some slots of some lines replaced, in place if it is donated.

    Args:
        table: Lines of k rows of c channels.
        line: Lines to change, none twice, -1 for none; m is a multiple of `BLOCK`.
        source: Negative for slots that stay.
        new: What goes into the other slots.
        interpret: False on a TPU; True or `pltpu.InterpretParams` to run elsewhere.
    """
    per_line = source.shape[1]
    lines = line.reshape(-1, 1, BLOCK)
    return pl.pallas_call(
        functools.partial(_put_block, channels=table.shape[1] // per_line),
        out_shape=jax.ShapeDtypeStruct(table.shape, table.dtype),
        grid=(lines.shape[0],),
        in_specs=[
            pl.BlockSpec((1, 1, BLOCK), lambda block: (block, 0, 0), memory_space=pltpu.SMEM),
            pl.BlockSpec((BLOCK, per_line), lambda block: (block, 0)),
            pl.BlockSpec((BLOCK, table.shape[1]), lambda block: (block, 0)),
            pl.BlockSpec(memory_space=pltpu.HBM),
        ],
        out_specs=pl.BlockSpec(memory_space=pltpu.HBM),
        scratch_shapes=[
            pltpu.VMEM((BLOCK, table.shape[1]), table.dtype),
            pltpu.SemaphoreType.DMA,
            pltpu.SemaphoreType.DMA,
        ],
        input_output_aliases={3: 0},
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary",)),
        interpret=interpret,
        name="put_rows",
    )(lines, source, new, table)


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
    channels: int,
) -> None:  # fmt: skip
    """Change the lines of a block; `table_ref` is the table itself, aliased to the result."""
    lines_ref, fetched, sent = scratch

    def each(act: Any) -> None:
        def one(row: jax.Array, carry: None) -> None:
            line = line_ref[0, 0, row]
            far, near = table_ref.at[pl.ds(line, 1)], lines_ref.at[pl.ds(row, 1)]

            @pl.when(line >= 0)
            def _() -> None:
                act(far, near)

        jax.lax.fori_loop(0, BLOCK, one, None)

    each(lambda far, near: pltpu.make_async_copy(far, near, fetched).start())
    each(lambda far, near: pltpu.make_async_copy(far, near, fetched).wait())
    for place in range(table_ref.shape[1] // channels):
        piece = slice(place * channels, (place + 1) * channels)
        changed = source_ref[:, place : place + 1] >= 0
        lines_ref[:, piece] = jnp.where(changed, new_ref[:, piece], lines_ref[:, piece])
    each(lambda far, near: pltpu.make_async_copy(near, far, sent).start())
    each(lambda far, near: pltpu.make_async_copy(near, far, sent).wait())
