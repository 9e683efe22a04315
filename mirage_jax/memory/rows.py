"""The rows of a memory without their pages, and a memory made anew from rows.

Listing is how memories are saved, exported and compared: in insertion order, whatever the pages,
partitions and devices. Building is how they are loaded and rebalanced: rows are sorted along the
curve as a whole, partitions get equal shares, and pages come out full and compact. Both run on the
host, in NumPy arrays and one pass over the rows; neither is for use under `jax.jit`.

Read next: `files.py`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float16, Int32, UInt32

from mirage_jax.memory import directory, grid
from mirage_jax.memory.config import MemoryConfig
from mirage_jax.memory.put import measure_pages
from mirage_jax.memory.state import BUCKET_SLOTS, LINE, NO_ROW, LatentMemory, empty


class StoredRows(NamedTuple):
    """k rows in the order they were written; fields as in `LatentMemory`, axes as numbers."""

    positions: Float[np.ndarray, "k 3"]
    tokens: Float[np.ndarray, "k c"]
    origin: Float[np.ndarray, "k 3"]
    depth: Float[np.ndarray, " k"]
    time: Int32[np.ndarray, " k"]
    weight: Float[np.ndarray, " k"]
    axes: Float16[np.ndarray, "k 3 2"]


def row_numbers(memory: LatentMemory) -> Int32[np.ndarray, " k"]:
    """Return the numbers of the rows in use, oldest first: `MemoryRead.index` counts like this."""
    order = np.asarray(memory.order).reshape(-1)
    used = np.flatnonzero(order != NO_ROW)
    return used[np.argsort(order[used], kind="stable")].astype(np.int32)


def positions_in_order(memory: LatentMemory) -> Float[np.ndarray, "k 3"]:
    """Return the world points of the rows in use, oldest first; reads no other table."""
    return _take_points(memory.positions, row_numbers(memory))


def _take_points(table: jax.Array, number: np.ndarray) -> Float[np.ndarray, "k 3"]:
    """Return rows of a table of points, whose x, y and z are contiguous within a page."""
    size = table.shape[-1]
    return np.asarray(table).reshape(-1, 3, size)[number // size, :, number % size]


def _axes_in_order(memory: LatentMemory, number: np.ndarray) -> Float16[np.ndarray, "k 3 2"]:
    """Return the axes of rows as numbers; see `axes.py`."""
    if not memory.axes.size:
        return np.zeros((len(number), 3, 2), np.float16)
    words = np.ascontiguousarray(_take_points(memory.axes, number), "<u4")
    return words.view("<f2").reshape(-1, 3, 2).astype(np.float16)


def words_of(axes: Float16[np.ndarray, "k 3 2"]) -> UInt32[np.ndarray, "k 3"]:
    """Return the axes of rows as they are stored."""
    return np.ascontiguousarray(axes, "<f2").view("<u4")[..., 0].astype(np.uint32)


def rows_in_order(memory: LatentMemory) -> StoredRows:
    """List the rows of one memory in the order they were written.

    Args:
        memory: One memory, not a stack.

    Returns:
        Copies; the weight of rows that are no mean is 1, axes that are not kept are 0.
    """
    number = row_numbers(memory)
    flat = {n: np.asarray(getattr(memory, n)).reshape(-1) for n in ("depth", "time", "weight")}
    tokens = np.asarray(memory.tokens).reshape(-1, memory.tokens.shape[-1] // LINE)
    weight = flat.pop("weight")
    return StoredRows(
        positions=_take_points(memory.positions, number),
        origin=_take_points(memory.origin, number),
        tokens=tokens[number],
        weight=weight[number] if weight.size else np.ones(len(number), np.float32),
        axes=_axes_in_order(memory, number),
        **{name: table[number] for name, table in flat.items()},
    )


def from_rows(rows: StoredRows, config: MemoryConfig, refused: int = 0) -> LatentMemory:
    """Build a memory that holds these rows, in this order of age.

    Args:
        rows: Rows that one memory held: no two of a voxel, where the config merges.
        config: Rules; may differ from those the rows were written by in capacity and partitions.
        refused: Rows dropped so far.

    Raises:
        ValueError: If a partition, or a bucket of its directory, has no room for its share.
    """
    count = len(rows.depth)
    key = grid.voxel_keys(jnp.asarray(rows.positions), config.voxel_size, jnp.ones(count, bool))
    high, low = np.asarray(key.high), np.asarray(key.low)
    along = np.lexsort((low, high))
    key = grid.Key(high[along], low[along])
    memory = jax.tree.map(np.array, empty(config))
    if count:
        even = grid.even_boundaries(key, jnp.asarray(count), config.partitions)
        memory = memory._replace(boundaries=np.asarray(even))
    part = np.asarray(grid.owners(jax.tree.map(jnp.asarray, key), memory.boundaries))
    filled = np.bincount(part, minlength=config.partitions)
    if filled.max(initial=0) > config.room:
        raise ValueError(
            f"memory from rows: a partition would hold {filled.max()} of {count} rows, expected at "
            f"most {config.room}; raise the capacity or take fewer partitions."
        )
    row = np.arange(count) - (np.cumsum(filled) - filled)[part]
    _fill_tables(memory, rows, along, part, row)
    _fill_pages(memory, filled)
    memory = memory._replace(
        filled=filled.astype(np.int32),
        next_order=np.int32(count),
        latest=np.max(rows.time, initial=np.iinfo(np.int32).min),
    )
    memory.refused[:1] = refused
    memory = measure_pages(jax.tree.map(jnp.asarray, memory))
    return _index(memory, key, part, row) if config.merges else memory


def rebalance(memory: LatentMemory, config: MemoryConfig) -> LatentMemory:
    """Share the rows of one memory evenly among its partitions; what it shows does not change.

    For when one partition is full and others are not: rows that were merged or dropped so far stay
    so. New boundaries are quantiles of the rows along the curve.

    Args:
        memory: One memory, not a stack.
        config: Its config, or one with another number of partitions or another capacity.

    Raises:
        ValueError: If a partition has no room for its share.
    """
    return from_rows(rows_in_order(memory), config, int(memory.dropped))


def balance(memory: LatentMemory) -> float:
    """Return how full the fullest partition is over the mean, 1 where all are alike."""
    filled = np.asarray(memory.filled, np.float64)
    return float(filled.max() / max(filled.mean(), 1e-9)) if filled.any() else 1.0


def _fill_tables(
    memory: LatentMemory, rows: StoredRows, along: np.ndarray, part: np.ndarray, row: np.ndarray
) -> None:
    """Put rows into their slots, in place."""
    page, slot = np.divmod(row, memory.order.shape[-1])
    for name in ("positions", "origin"):
        getattr(memory, name)[part, page, :, slot] = getattr(rows, name)[along]
    memory.order[part, page, slot] = along
    for name in ("depth", "time", "weight"):
        if getattr(memory, name).size:
            getattr(memory, name)[part, page, slot] = getattr(rows, name)[along]
    if memory.axes.size:
        memory.axes[part, page, :, slot] = words_of(rows.axes)[along]
    tokens = memory.tokens.reshape(len(memory.order), -1, rows.tokens.shape[-1])
    tokens[part, row] = rows.tokens[along]


def _fill_pages(memory: LatentMemory, filled: np.ndarray) -> None:
    """Set how full the pages are, in place."""
    size = memory.order.shape[-1]
    memory.used[:] = (memory.order != NO_ROW).sum(-1)
    memory.tail[:] = np.maximum(filled - 1, 0) // size
    memory.fresh[:] = memory.tail + 1


def _index(memory: LatentMemory, key: grid.Key, part: np.ndarray, row: np.ndarray) -> LatentMemory:
    """Enter all rows into the directory."""
    owner, slot = jnp.asarray(part, jnp.int32), jnp.asarray(row, jnp.int32)
    wanted = jnp.ones(owner.shape, bool)
    place = directory.reserve(memory, owner, jax.tree.map(jnp.asarray, key), wanted)
    if not bool((place.slot >= 0).all()):
        raise ValueError(
            "memory from rows: a bucket of the directory is full, expected fewer than "
            f"{BUCKET_SLOTS} rows in each; are two rows of one voxel among them? "
            "Otherwise raise the capacity."
        )
    return memory._replace(directory=directory.enter(memory.directory, place, slot, wanted))
