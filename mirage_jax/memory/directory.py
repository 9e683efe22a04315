"""Which row holds a voxel: a hash table of each partition, in buckets of one cache line.

An entry is a row's number in its partition plus one (24 bits) under eight more bits of the voxel's
hash; 0 is free. Entries carry no voxel: a look-up checks the voxel of the row itself, so it is
exact. A voxel has one bucket; a row whose bucket is full cannot be found and must not be stored.

The table lies in lines of eight buckets (see `ops/gather_rows`), which TPUs need not pad.
Accelerators change whole buckets in place, CPUs single slots.

Conventions: m queries, `part` the partition of each, `key` its voxel. Queries that are not `wanted`
find nothing and change nothing. Nothing here passes over stored rows.

Read next: `merge.py`, its user.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int32, UInt32

from mirage_jax.memory.grid import Key, hash_words, same_key, voxel_keys
from mirage_jax.memory.state import BUCKET_SLOTS, LatentMemory
from mirage_jax.memory.take import take_points
from mirage_jax.ops.gather_rows import gather_rows
from mirage_jax.ops.platform import current_platform
from mirage_jax.ops.put_rows import put_rows

_ROW_BITS = 24
_NOWHERE = jnp.iinfo(jnp.int32).max


class Place(NamedTuple):
    """A slot of the directory for each query; where there is none, slot is -1.

    Buckets are counted over all partitions that the tables hold.
    """

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
    bucket, tag = _bucket(memory, part, key)
    entries = _entries(memory.directory, bucket)
    alike = (entries >> _ROW_BITS == tag[:, None]) & (entries != 0) & wanted[:, None]
    first = part * (memory.order.shape[1] * memory.order.shape[2])

    def check_next(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Look at the voxel of the first row left of each query."""
        alike, found = state
        slot = jnp.argmax(alike, axis=1)
        entry = jnp.take_along_axis(entries, slot[:, None], axis=1)[:, 0]
        row = jnp.maximum((entry & (2**_ROW_BITS - 1)).astype(jnp.int32) - 1, 0)
        place = jnp.moveaxis(take_points(memory.positions, first + row), 0, -1)
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
    bucket, tag = _bucket(memory, part, key)
    place = jnp.arange(part.shape[0], dtype=jnp.int32)
    ring = jnp.where(wanted, bucket, _NOWHERE)
    ring, query = jax.lax.sort((ring, place), num_keys=1, is_stable=True)
    rank = _undo_sort(query, place - jax.lax.cummax(jnp.where(_first(ring), place, 0)))
    free = _entries(memory.directory, bucket) == 0
    chosen = free & (jnp.cumsum(free, axis=1, dtype=jnp.int32) == rank[:, None] + 1)
    fits = wanted & chosen.any(axis=1)
    slot = jnp.where(fits, jnp.argmax(chosen, axis=1).astype(jnp.int32), -1)
    return Place(bucket, slot, tag)


def enter(
    directory: UInt32[jax.Array, "V lines 8*slots"],
    place: Place,
    row: Int32[jax.Array, " m"],
    wanted: Bool[jax.Array, " m"],
    by_bucket: bool | None = None,
) -> UInt32[jax.Array, "V lines 8*slots"]:
    """Write rows into reserved slots; `by_bucket` None changes whole buckets on accelerators."""
    entry = place.tag << _ROW_BITS | (row + 1).astype(jnp.uint32)
    return _set(directory, place.bucket, place.slot, entry, wanted, by_bucket)


def remove_rows(
    memory: LatentMemory,
    part: Int32[jax.Array, " m"],
    row: Int32[jax.Array, " m"],
    wanted: Bool[jax.Array, " m"],
    voxel_size: float,
    by_bucket: bool | None = None,
) -> UInt32[jax.Array, "V lines 8*slots"]:
    """Return the directory without the entries of some rows of it."""
    number = part * (memory.order.shape[1] * memory.order.shape[2]) + row
    place = jnp.moveaxis(take_points(memory.positions, number), 0, -1)
    bucket, tag = _bucket(memory, part, voxel_keys(place, voxel_size, wanted))
    entry = tag << _ROW_BITS | (row + 1).astype(jnp.uint32)
    hit = (_entries(memory.directory, bucket) == entry[:, None]) & wanted[:, None]
    slot = jnp.argmax(hit, axis=1).astype(jnp.int32)
    nothing = jnp.zeros_like(entry)
    return _set(memory.directory, bucket, slot, nothing, hit.any(axis=1), by_bucket)


def _entries(
    directory: UInt32[jax.Array, "V lines 8*slots"], bucket: Int32[jax.Array, " m"]
) -> UInt32[jax.Array, "m slots"]:
    """Return what buckets hold; nothing for bucket -1."""
    return gather_rows(directory.reshape(-1, directory.shape[-1]), bucket, BUCKET_SLOTS)


def _set(
    directory: UInt32[jax.Array, "V lines 8*slots"],
    bucket: Int32[jax.Array, " m"],
    slot: Int32[jax.Array, " m"],
    entry: UInt32[jax.Array, " m"],
    wanted: Bool[jax.Array, " m"],
    by_bucket: bool | None,
) -> UInt32[jax.Array, "V lines 8*slots"]:
    """Return the directory with some slots changed; no slot twice."""
    if current_platform() != "cpu" if by_bucket is None else by_bucket:
        return _set_by_bucket(directory, bucket, slot, entry, wanted)
    flat = directory.reshape(-1, BUCKET_SLOTS)
    # Places past the end are all different, so that none occurs twice in the scatter.
    outside = flat.shape[0] + jnp.arange(bucket.shape[0], dtype=jnp.int32)
    bucket = jnp.where(wanted, bucket, outside)
    flat = flat.at[bucket, slot].set(entry, mode="drop", unique_indices=True)
    return flat.reshape(directory.shape)


def _set_by_bucket(
    directory: UInt32[jax.Array, "V lines 8*slots"],
    bucket: Int32[jax.Array, " m"],
    slot: Int32[jax.Array, " m"],
    entry: UInt32[jax.Array, " m"],
    wanted: Bool[jax.Array, " m"],
) -> UInt32[jax.Array, "V lines 8*slots"]:
    """Sort the changes by bucket and let the first of each bucket write all of them."""
    bucket, slot, entry = jax.lax.sort(
        (jnp.where(wanted, bucket, _NOWHERE), slot, entry), num_keys=1
    )
    writes = jnp.where(_first(bucket) & (bucket != _NOWHERE), bucket, -1)
    content = _entries(directory, writes)
    for step in range(BUCKET_SLOTS):  # no bucket has more changes than slots
        ahead = [
            jnp.pad(x[step:], (0, min(step, len(x))), constant_values=-1 if x is bucket else 0)
            for x in (bucket, slot, entry)
        ]
        here = (ahead[0] == writes)[:, None] & (ahead[1][:, None] == jnp.arange(BUCKET_SLOTS))
        content = jnp.where(here & (writes >= 0)[:, None], ahead[2][:, None], content)
    flat = directory.reshape(-1, directory.shape[-1])
    return put_rows(flat, content, writes).reshape(directory.shape)


def _first(sorted_keys: Int32[jax.Array, " m"]) -> Bool[jax.Array, " m"]:
    """Return True where a key is not that of the place before."""
    edge = jnp.ones((min(1, sorted_keys.shape[0]),), bool)
    return jnp.concatenate([edge, sorted_keys[1:] != sorted_keys[:-1]])


def _undo_sort(source: Int32[jax.Array, " m"], values: jax.Array) -> jax.Array:
    """Return sorted values where they came from, which accelerators do by sorting once more."""
    if current_platform() != "cpu":
        # Without the barrier XLA sees a permutation undone and scatters on GPUs.
        source = jax.lax.optimization_barrier(source)
        return jax.lax.sort((source, values), num_keys=1)[1]
    return jnp.zeros_like(values).at[source].set(values, unique_indices=True)


def _bucket(
    memory: LatentMemory, part: Int32[jax.Array, " m"], key: Key
) -> tuple[Int32[jax.Array, " m"], UInt32[jax.Array, " m"]]:
    """Return the bucket of each voxel, and the eight bits that its entry carries."""
    first, second = hash_words(key)
    buckets = memory.directory.shape[-2] * memory.directory.shape[-1] // BUCKET_SLOTS
    bucket = (first & jnp.uint32(buckets - 1)).astype(jnp.int32)
    return part * buckets + bucket, second >> _ROW_BITS
