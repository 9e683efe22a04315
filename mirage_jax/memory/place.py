"""Where newcomers go: the page that is being filled, then unused pages, then pages given up.

Newcomers arrive sorted along the curve, so a partition's newcomers fill its pages one after the
other and each page holds neighbours. Nothing here passes over the stored rows.

Conventions: `part` is ascending and lies outside 0..V-1 for rows that are not to be stored here; V
partitions of `pages` pages.

Read next: `write.py`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int32

from mirage_jax.memory.config import MemoryConfig
from mirage_jax.memory.evict import Evicted
from mirage_jax.memory.state import LatentMemory


def admit(
    newcomer: Bool[jax.Array, " m"],
    part: Int32[jax.Array, " m"],
    rank: Int32[jax.Array, " m"],
    room: Int32[jax.Array, " V"],
    all_new: bool,
) -> Bool[jax.Array, " m"]:
    """Return the newcomers there is room for: in each partition those of lowest rank.

    The rank up to which they fit is found by bisection, which needs no second sort.

    Args:
        newcomer: Rows that need a slot.
        part: Partition of each row.
        rank: Number of each row in the write.
        room: Free slots of each partition.
        all_new: Every kept row is a newcomer of the one partition there is, so its rank says it.
    """
    if all_new:
        return newcomer & (rank < room[0])
    starts = partition_starts(part, room.shape[0])
    mine = jnp.clip(part, 0, room.shape[0] - 1)

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = (low + high + 1) // 2
        fits = count_rows(newcomer & (rank < middle[mine]), starts) <= room
        return jnp.where(fits, middle, low), jnp.where(fits, high, middle - 1)

    m = part.shape[0]
    limits = (jnp.zeros_like(room), jnp.full_like(room, m))
    limit, _ = jax.lax.fori_loop(0, m.bit_length(), halve, limits)
    return newcomer & (rank < limit[mine])


def count_rows(
    chosen: Bool[jax.Array, " m"], starts: Int32[jax.Array, " V+1"]
) -> Int32[jax.Array, " V"]:
    """Return how many of the chosen rows each partition has."""
    before = jnp.concatenate([jnp.zeros((1,), jnp.int32), jnp.cumsum(chosen, dtype=jnp.int32)])
    return jnp.diff(before[starts])


def partition_starts(part: Int32[jax.Array, " m"], partitions: int) -> Int32[jax.Array, " V+1"]:
    """Return where each partition's rows begin, and where the last one's end."""
    return jnp.searchsorted(part, jnp.arange(partitions + 1)).astype(jnp.int32)


class Allotment(NamedTuple):
    """Slots for the admitted rows, and where the next ones go.

    Attributes:
        row: Row of its partition that each admitted row becomes; meaningless for others.
        tail: Page that is being filled afterwards.
        fresh: First page that was never used, afterwards.
        filled: Rows of each partition afterwards.
    """

    row: Int32[jax.Array, " m"]
    tail: Int32[jax.Array, " V"]
    fresh: Int32[jax.Array, " V"]
    filled: Int32[jax.Array, " V"]


def allot(
    memory: LatentMemory,
    admitted: Bool[jax.Array, " m"],
    part: Int32[jax.Array, " m"],
    evicted: Evicted | None,
    config: MemoryConfig,
) -> Allotment:
    """Give each admitted row a slot; there must be room for all of them."""
    partitions, size = memory.tail.shape[0], config.page_size
    starts = partition_starts(part, partitions)
    count = count_rows(admitted, starts)
    mine = jnp.clip(part, 0, partitions - 1)
    before = jnp.cumsum(admitted, dtype=jnp.int32)
    nth = before - 1 - (jnp.cumsum(count) - count)[mine]
    tail_used = jnp.take_along_axis(memory.used, memory.tail[:, None], axis=1)[:, 0]
    beyond = nth - (size - tail_used)[mine]
    in_tail = beyond < 0
    page = _page_after_tail(memory, evicted, mine, jnp.maximum(beyond, 0) // size, config)
    page = jnp.where(in_tail, memory.tail[mine], page)
    slot = jnp.where(in_tail, tail_used[mine] + nth, beyond % size)

    # Of the pages that are filled only the last can be left with room.
    spill = jnp.maximum(count - (size - tail_used), 0)
    taken = -(-spill // size)
    owner = jnp.arange(partitions, dtype=jnp.int32)
    last = _page_after_tail(memory, evicted, owner, jnp.maximum(taken - 1, 0), config)
    return Allotment(
        row=page * size + slot,
        tail=jnp.where(taken == 0, memory.tail, last),
        fresh=jnp.minimum(memory.fresh + taken, config.pages),
        filled=memory.filled + count,
    )


def _page_after_tail(
    memory: LatentMemory,
    evicted: Evicted | None,
    part: Int32[jax.Array, "*m"],
    nth: Int32[jax.Array, "*m"],
    config: MemoryConfig,
) -> Int32[jax.Array, "*m"]:
    """Return the nth page to be filled after the tail: unused ones, then those given up."""
    fresh = memory.fresh[part] + nth
    if evicted is None:
        return fresh
    again = jnp.clip(fresh - config.pages, 0, evicted.page.shape[1] - 1)
    return jnp.where(fresh < config.pages, fresh, evicted.page[part, again])
