"""Moves the borders between partitions of space where one would fill and others have room.

Borders are drawn where the first rows lie; a walk that leads elsewhere fills one partition. Between
chunks, on the host, the rows are shared out evenly again: nothing that is remembered changes, only
who holds it. Rows get other numbers. Read next: `mirage_jax/memory/rows.py`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mirage_jax.memory.config import MemoryConfig
from mirage_jax.memory.rows import balance, rebalance
from mirage_jax.memory.state import LatentMemory

# Fullest partition over the mean from which on moving the rows is worth it.
_UNEVEN = 1.3


def make_room(memory: LatentMemory, config: MemoryConfig, rows: int) -> LatentMemory:
    """Return memories in which a write of so many rows finds room, where evening them out helps.

    Args:
        memory: Stacked memories [b]; divided over devices as it may be.
        config: Their rules.
        rows: Most rows that the next write adds to each.

    Returns:
        The memories, placed as before; the same object where none needed it.
    """
    if config.partitions == 1:
        return memory
    filled = jax.device_get(memory.filled)
    uneven = [one.max() + rows > config.room and one.max() > _UNEVEN * one.mean() for one in filled]
    if not any(uneven):
        return memory
    members = []
    for index, wanted in enumerate(uneven):
        member = jax.tree.map(lambda leaf, i=index: leaf[i], memory)
        members.append(_evened(jax.device_get(member), config) if wanted else member)
    moved = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    return jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), moved, memory)


def _evened(memory: LatentMemory, config: MemoryConfig) -> LatentMemory:
    try:
        even = rebalance(memory, config)
    except ValueError:  # rows of one voxel are never parted, and may be too many for a share
        return memory
    return even if balance(even) < balance(memory) else memory
