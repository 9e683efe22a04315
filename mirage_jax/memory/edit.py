"""Whole memories made from others: several joined into one, or one cut down to a region.

Conventions: host functions on single memories; rows keep their order of age, and joined memories
are as if written one after the other. Nothing is transformed: the memories share one world frame.

Read next: `rows.py`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from mirage_jax.memory.config import MemoryConfig
from mirage_jax.memory.merge import Rows
from mirage_jax.memory.rows import StoredRows, from_rows, rows_in_order, words_of
from mirage_jax.memory.state import LatentMemory, empty
from mirage_jax.memory.write import write

# Rows written at once when memories are joined.
_BATCH = 1 << 15


class Region(NamedTuple):
    """A part of space and time; what is None does not limit it.

    Attributes:
        box: Least and greatest corner, scene units, both inside.
        center: Of a sphere.
        radius: Of that sphere, scene units.
        time: First and last stamp, both inside.
    """

    box: Float[np.ndarray, "2 3"] | None = None
    center: Float[np.ndarray, " 3"] | None = None
    radius: float = 0.0
    time: tuple[int, int] | None = None


def inside(rows: StoredRows, region: Region) -> Bool[np.ndarray, " k"]:
    """Return which rows lie in every given part of a region."""
    kept = np.ones(len(rows.depth), bool)
    if region.box is not None:
        kept &= ((rows.positions >= region.box[0]) & (rows.positions <= region.box[1])).all(-1)
    if region.center is not None:
        kept &= np.linalg.norm(rows.positions - region.center, axis=-1) <= region.radius
    if region.time is not None:
        kept &= (rows.time >= region.time[0]) & (rows.time <= region.time[1])
    return kept


def crop(
    memory: LatentMemory, config: MemoryConfig, region: Region, outside: bool = False
) -> LatentMemory:
    """Return a memory of the rows in a region, or of all others; the capacity stays.

    Args:
        memory: One memory.
        config: Its config.
        region: What to keep.
        outside: Keep what is not in the region instead.
    """
    rows = rows_in_order(memory)
    kept = inside(rows, region) != outside
    return from_rows(StoredRows(*(table[kept] for table in rows)), config, int(memory.dropped))


def joined_config(
    configs: Sequence[MemoryConfig],
    rows: int,
    retention: Literal["append", "newest", "closest_view", "mean"] | None,
    voxel_size: float | None,
) -> MemoryConfig:
    """Return the config of a memory that joins others: the first's, with room for all rows.

    Args:
        configs: Of the memories to join.
        rows: Rows they hold together.
        retention: Rule for rows of one voxel; None takes the first config's.
        voxel_size: Scene units; None takes the first config's.

    Raises:
        ValueError: If the memories' tokens or conventions differ.
    """
    first = configs[0]
    for name in ("channels", "token_dtype", "half_cell"):
        values = [getattr(config, name) for config in configs]
        if len(set(values)) > 1:
            raise ValueError(
                f"merge memories: {name} is {values}, expected the same in all; only memories of "
                "one world can be joined."
            )
    return dataclasses.replace(
        first,
        capacity=max(rows, first.capacity),
        retention=retention or first.retention,
        voxel_size=voxel_size or first.voxel_size,
    )


def join(memories: Sequence[LatentMemory], config: MemoryConfig) -> LatentMemory:
    """Write the rows of several memories into a new one, the first memory's first.

    Rows that are means count as one token each where they meet others.

    Args:
        memories: Single memories of one world frame.
        config: Of the new memory, see `joined_config`.
    """
    add = jax.jit(write, static_argnums=2, donate_argnums=0)
    joined = empty(config)
    for memory in memories:
        rows = rows_in_order(memory)
        size = min(_BATCH, max(len(rows.depth), 1))
        for start in range(0, len(rows.depth), size):
            joined, _ = add(joined, _batch(rows, start, size), config)
    return joined


def _batch(rows: StoredRows, start: int, size: int) -> Rows:
    """Return rows start..start+size, filled up with rows that are not kept."""
    tables = [table[start : start + size] for table in (*rows[:5], words_of(rows.axes))]
    count = len(tables[0])
    padded = [
        np.concatenate([table, np.zeros((size - count, *table.shape[1:]), table.dtype)])
        for table in tables
    ]
    *fields, axes = (jnp.asarray(table) for table in padded)
    return Rows._make([*fields, jnp.arange(size) < count, axes])
