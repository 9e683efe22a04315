"""Which row holds a voxel: a hash table of each partition, in buckets of one cache line.

An entry is a row's number in its partition plus one (24 bits) under eight more bits of the voxel's
hash; 0 is free. Entries carry no voxel: a look-up checks the voxel of the row itself, so it is
exact. A voxel has one bucket; a row whose bucket is full cannot be found and must not be stored.

Conventions: m queries, `part` the partition of each, `key` its voxel. Queries that are not `wanted`
find nothing and change nothing. Nothing here passes over stored rows.

Read next: `merge.py`, its user.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int32, UInt32

from mirage_jax.memory.grid import Key, hash_words, same_key, voxel_keys
from mirage_jax.memory.state import LatentMemory

_ROW_BITS = 24


class Place(NamedTuple):
    """A slot of the directory for each query; where there is none, slot is -1."""

    bucket: Int32[jax.Array, " m"]
    slot: Int32[jax.Array, " m"]
    tag: UInt32[jax.Array, " m"]


def find_rows(
    memory: LatentMemory,
    part: Int32[jax.Array, " m"],
    key: Key,
    wanted: Bool[jax.Array, " m"],
    voxel_size: float,
) -> Int32[jax.Array, " m"]:
    """Return the row of its partition that holds each voxel, -1 where none does."""
    bucket, tag = _bucket(memory, key)
    entries = memory.directory[part, bucket]
    alike = (entries >> _ROW_BITS == tag[:, None]) & (entries != 0) & wanted[:, None]
    page_rows = memory.order.shape[-1]

    def check_next(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Look at the voxel of the first row left of each query."""
        alike, found = state
        slot = jnp.argmax(alike, axis=1)
        entry = jnp.take_along_axis(entries, slot[:, None], axis=1)[:, 0]
        row = jnp.maximum((entry & (2**_ROW_BITS - 1)).astype(jnp.int32) - 1, 0)
        place = memory.positions[part, row // page_rows, :, row % page_rows]
        hit = alike.any(axis=1)
        hit &= same_key(voxel_keys(place, voxel_size, hit), key)
        alike &= (jnp.arange(alike.shape[1]) != slot[:, None]) & ~hit[:, None]
        return alike, jnp.where(hit, row, found)

    # More than one turn is needed only where another voxel of the bucket has the same eight bits.
    found = jnp.full(part.shape, -1, jnp.int32)
    return jax.lax.while_loop(lambda state: state[0].any(), check_next, (alike, found))[1]


def reserve(
    memory: LatentMemory, part: Int32[jax.Array, " m"], key: Key, wanted: Bool[jax.Array, " m"]
) -> Place:
    """Find a free slot for each new voxel; voxels of one bucket take its free slots in order."""
    bucket, tag = _bucket(memory, key)
    m, buckets = part.shape[0], memory.directory.shape[1]
    ring = jnp.where(wanted, part * buckets + bucket, jnp.iinfo(jnp.int32).max)
    place = jnp.arange(m, dtype=jnp.int32)
    ring, query = jax.lax.sort((ring, place), num_keys=1, is_stable=True)
    first = jnp.concatenate([jnp.ones((1,), bool), ring[1:] != ring[:-1]])[:m]
    rank = place - jax.lax.cummax(jnp.where(first, place, 0))
    rank = jnp.zeros_like(rank).at[query].set(rank, unique_indices=True)
    free = memory.directory[part, bucket] == 0
    chosen = free & (jnp.cumsum(free, axis=1, dtype=jnp.int32) == rank[:, None] + 1)
    fits = wanted & chosen.any(axis=1)
    slot = jnp.where(fits, jnp.argmax(chosen, axis=1).astype(jnp.int32), -1)
    return Place(bucket, slot, tag)


def enter(
    directory: UInt32[jax.Array, "V buckets slots"],
    part: Int32[jax.Array, " m"],
    place: Place,
    row: Int32[jax.Array, " m"],
    wanted: Bool[jax.Array, " m"],
) -> UInt32[jax.Array, "V buckets slots"]:
    """Write rows into reserved slots."""
    entry = place.tag << _ROW_BITS | (row + 1).astype(jnp.uint32)
    slot = jnp.where(wanted, place.slot, _outside(directory, part))
    return directory.at[part, place.bucket, slot].set(entry, mode="drop", unique_indices=True)


def remove_rows(
    memory: LatentMemory,
    part: Int32[jax.Array, " m"],
    row: Int32[jax.Array, " m"],
    wanted: Bool[jax.Array, " m"],
    voxel_size: float,
) -> UInt32[jax.Array, "V buckets slots"]:
    """Return the directory without the entries of some rows of it."""
    page_rows = memory.order.shape[-1]
    place = memory.positions[part, row // page_rows, :, row % page_rows]
    bucket, tag = _bucket(memory, voxel_keys(place, voxel_size, wanted))
    entry = tag << _ROW_BITS | (row + 1).astype(jnp.uint32)
    hit = (memory.directory[part, bucket] == entry[:, None]) & wanted[:, None]
    outside = _outside(memory.directory, part)
    slot = jnp.where(hit.any(axis=1), jnp.argmax(hit, axis=1), outside)
    return memory.directory.at[part, bucket, slot].set(0, mode="drop", unique_indices=True)


def _outside(directory: jax.Array, part: jax.Array) -> Int32[jax.Array, " m"]:
    """Return slots past the end, all different, so that no place occurs twice in a scatter."""
    return directory.shape[2] + jnp.arange(part.shape[0], dtype=jnp.int32)


def _bucket(
    memory: LatentMemory, key: Key
) -> tuple[Int32[jax.Array, " m"], UInt32[jax.Array, " m"]]:
    """Return the bucket of each voxel, and the eight bits that its entry carries."""
    first, second = hash_words(key)
    bucket = (first & jnp.uint32(memory.directory.shape[1] - 1)).astype(jnp.int32)
    return bucket, second >> _ROW_BITS
