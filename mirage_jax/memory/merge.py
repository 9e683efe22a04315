"""Which of the new rows are stored, and which stored rows they replace: the retention rules.

The new rows are sorted along the curve (only they are: a write never passes over the stored rows),
so that rows of one voxel follow each other. One of each voxel *leads*; the others give way to it.
A leader finds the row that holds its voxel already, or is a *newcomer* that needs room.

Conventions: m sorted rows; `rank` numbers the kept rows in the order they were given, so that
"newer" means of higher rank. Rows that are not kept come last.

Read next: `place.py` (where newcomers go).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int32, UInt32

from mirage_jax.memory import directory, grid
from mirage_jax.memory.config import MemoryConfig
from mirage_jax.memory.state import LatentMemory, token_table
from mirage_jax.memory.take import take
from mirage_jax.ops.gather_rows import gather_rows


class Rows(NamedTuple):
    """m candidate rows; fields as in `LatentMemory`, and `keep` says which of them exist.

    `axes` None: the rows do not know how their cells lay.
    """

    positions: Float[jax.Array, "m 3"]
    tokens: Float[jax.Array, "m c"]
    origin: Float[jax.Array, "m 3"]
    depth: Float[jax.Array, " m"]
    time: Int32[jax.Array, " m"]
    keep: Bool[jax.Array, " m"]
    axes: UInt32[jax.Array, "m 3"] | None = None


class Sorted(NamedTuple):
    """New rows along the curve.

    Attributes:
        rows: The rows; `keep` is True for the leader of each voxel only.
        key: Voxel of each row.
        part: Partition of each row, ascending; past the last one for rows that are not kept.
        rank: Number of each kept row in the write.
        weight: Tokens that each leader's token is the mean of.
        boundaries: First keys of the partitions.
        total: Kept rows of the write, before one led each voxel.
        latest: Newest stamp among them.
        camera: Middle of the box that their camera centres span.
    """

    rows: Rows
    key: grid.Key
    part: Int32[jax.Array, " m"]
    rank: Int32[jax.Array, " m"]
    weight: Float[jax.Array, " m"]
    boundaries: UInt32[jax.Array, "V-1 2"]
    total: Int32[jax.Array, ""]
    latest: Int32[jax.Array, ""]
    camera: Float[jax.Array, " 3"]


def in_write_order(memory: LatentMemory, rows: Rows) -> Sorted:
    """Take rows as they come: for a small table of one partition, where order saves nothing."""
    counted = jnp.cumsum(rows.keep, dtype=jnp.int32)
    nowhere = jnp.zeros(counted.shape, jnp.uint32)
    return Sorted(
        rows=rows,
        key=grid.Key(nowhere, nowhere),
        part=jnp.zeros_like(counted),
        rank=counted - 1,
        weight=jnp.ones(counted.shape),
        boundaries=memory.boundaries,
        total=jnp.sum(rows.keep, dtype=jnp.int32),
        latest=_latest(rows),
        camera=_middle_camera(rows),
    )


def along_curve(memory: LatentMemory, rows: Rows, config: MemoryConfig) -> Sorted:
    """Sort rows by voxel and let one lead each voxel (every row, with retention "append")."""
    key = grid.voxel_keys(rows.positions, config.voxel_size, rows.keep)
    place = jnp.arange(rows.keep.shape[0], dtype=jnp.int32)
    operands: tuple[jax.Array, ...] = (key.high, key.low, place)
    if config.retention == "closest_view":
        # Positive floats order like their bits, so the closest row comes first.
        bits = jax.lax.bitcast_convert_type(rows.depth, jnp.int32)
        operands = (key.high, key.low, bits, place)
    high, low, *_, place = jax.lax.sort(operands, num_keys=len(operands))
    key = grid.Key(high, low)
    rank = jnp.cumsum(rows.keep, dtype=jnp.int32) - 1
    rows, rank = jax.tree.map(
        lambda leaf: leaf.at[place].get(mode="promise_in_bounds", unique_indices=True),
        (rows, rank),
    )
    total = jnp.sum(rows.keep, dtype=jnp.int32)
    boundaries = memory.boundaries
    if config.partitions > 1:
        even = grid.even_boundaries(key, total, config.partitions)
        boundaries = jnp.where((memory.next_order == 0) & (total > 0), even, boundaries)
    part = jnp.where(rows.keep, grid.owners(key, boundaries), config.partitions)
    weight = jnp.ones(rank.shape)
    arranged = Sorted(
        rows, key, part, rank, weight, boundaries, total, _latest(rows), _middle_camera(rows)
    )
    return _elect(arranged, config) if config.merges else arranged


def _latest(rows: Rows) -> Int32[jax.Array, ""]:
    """Return the newest stamp of the rows that are kept."""
    never = jnp.iinfo(jnp.int32).min
    return jnp.max(jnp.where(rows.keep, rows.time, never), initial=never)


def _middle_camera(rows: Rows) -> Float[jax.Array, " 3"]:
    """Return the middle of the box of camera centres: exact, whatever order the rows have."""
    low = jnp.min(jnp.where(rows.keep[:, None], rows.origin, jnp.inf), axis=0, initial=jnp.inf)
    high = jnp.max(jnp.where(rows.keep[:, None], rows.origin, -jnp.inf), axis=0, initial=-jnp.inf)
    return (low + high) / 2


def _elect(arranged: Sorted, config: MemoryConfig) -> Sorted:
    """Keep the leader of each voxel; with retention "mean" it gets the mean of their tokens."""
    rows, key = arranged.rows, arranged.key
    change = (key.high[1:] != key.high[:-1]) | (key.low[1:] != key.low[:-1])
    edge = jnp.ones((min(1, rows.keep.shape[0]),), bool)
    first, last = jnp.concatenate([edge, change]), jnp.concatenate([change, edge])
    lead = first if config.retention == "closest_view" else last
    lead &= rows.keep
    if config.retention == "mean":
        place = jnp.arange(first.shape[0], dtype=jnp.int32)
        size = place - jax.lax.cummax(jnp.where(first, place, 0)) + 1
        tokens = _running_sum(rows.tokens.astype(jnp.float32), size)
        rows = rows._replace(tokens=tokens / size[:, None])
        arranged = arranged._replace(weight=size.astype(jnp.float32))
    return arranged._replace(rows=rows._replace(keep=lead))


def _running_sum(
    values: Float[jax.Array, "m c"], size: Int32[jax.Array, " m"]
) -> Float[jax.Array, "m c"]:
    """Return for each row the sum of the last `size` rows up to it, by doubling.

    Sums of one length are added in one order wherever they stand, so the result does not depend on
    the other rows; it needs no scatter and can be differentiated.
    """
    span = 1
    while span < values.shape[0]:
        shifted = jnp.pad(values[:-span], [(span, 0), (0, 0)])
        values = values + jnp.where(size[:, None] > span, shifted, 0.0)
        span *= 2
    return values


class Decision(NamedTuple):
    """What becomes of the leaders.

    Attributes:
        old: Row of its partition that holds the leader's voxel, -1 where none does.
        replaces: The leader takes the place of the row `old`.
        newcomer: The leader needs a slot.
        refused: There is no slot in the directory for it.
        entry: Its slot in the directory.
    """

    old: Int32[jax.Array, " m"]
    replaces: Bool[jax.Array, " m"]
    newcomer: Bool[jax.Array, " m"]
    refused: Bool[jax.Array, " m"]
    entry: directory.Place | None


def decide(memory: LatentMemory, arranged: Sorted, config: MemoryConfig) -> Decision:
    """Compare the leaders with what is stored."""
    lead = arranged.rows.keep
    nothing = jnp.zeros_like(lead)
    if not config.merges:
        return Decision(jnp.full(lead.shape, -1, jnp.int32), nothing, lead, nothing, None)
    part = jnp.clip(arranged.part, 0, memory.order.shape[0] - 1)
    old = directory.find_rows(memory, part, arranged.key, lead, config.voxel_size)
    replaces = old >= 0
    if config.retention == "closest_view":
        number = part * config.rows + jnp.maximum(old, 0)
        replaces &= arranged.rows.depth < take(memory.depth, number)
    newcomer = lead & (old < 0)
    entry = directory.reserve(memory, part, arranged.key, newcomer)
    refused = newcomer & (entry.slot < 0)
    return Decision(old, replaces, newcomer & ~refused, refused, entry)


def blend(
    memory: LatentMemory, arranged: Sorted, decision: Decision, config: MemoryConfig
) -> Sorted:
    """With retention "mean", average the leaders' tokens with those of the rows they replace."""
    if config.retention != "mean":
        return arranged
    part = jnp.clip(arranged.part, 0, memory.order.shape[0] - 1)
    number = part * config.rows + jnp.maximum(decision.old, 0)
    stored = jnp.where(decision.replaces, take(memory.weight, number), 0.0)
    weight = stored + arranged.weight
    new = arranged.rows.tokens
    number = jnp.where(decision.replaces, number, -1)
    old = gather_rows(token_table(memory), number, new.shape[-1]).astype(jnp.float32)
    tokens = old + (arranged.weight / weight)[:, None] * (new - old)
    tokens = jnp.where(decision.replaces[:, None], tokens, new)
    return arranged._replace(rows=arranged.rows._replace(tokens=tokens), weight=weight)
