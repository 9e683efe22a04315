"""The world grid: voxels, their place on a space-filling curve, and who owns a share of it.

A voxel's *key* interleaves the bits of its three coordinates (Morton order), so that sorting by key
puts neighbours beside each other; it is kept as two uint32 words of 30 bits, high and low.
Coordinates reach 2**19 voxels from the origin to either side; what lies beyond belongs to the
outermost voxels. Keys of absent rows are all ones, after every voxel.

A partition owns a contiguous range of keys. Ranges end at any voxel, not at coarser bricks: the
rows of a voxel stay together, as merging needs, and shares come out even in small scenes too.

Read next: `write.py`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int32, UInt32

REACH = 2**19
_ABSENT = 0xFFFFFFFF


class Key(NamedTuple):
    """Place of voxels on the curve: high, then low word."""

    high: UInt32[Any, "*batch"]
    low: UInt32[Any, "*batch"]


def voxel_keys(
    positions: Float[jax.Array, "*batch 3"], size: float, keep: Bool[jax.Array, "*batch"]
) -> Key:
    """Return the keys of the voxels that points lie in.

    Args:
        positions: World points; those not kept may be anything.
        size: Side of a voxel, scene units.
        keep: False for absent points.
    """
    place = jnp.floor(jnp.where(keep[..., None], positions, 0.0) / size)
    voxel = (jnp.clip(place, -REACH, REACH - 1).astype(jnp.int32) + REACH).astype(jnp.uint32)
    x, y, z = voxel[..., 0], voxel[..., 1], voxel[..., 2]
    absent = jnp.uint32(_ABSENT)
    high = _interleave(x >> 10, y >> 10, z >> 10)
    low = _interleave(x & 1023, y & 1023, z & 1023)
    return Key(jnp.where(keep, high, absent), jnp.where(keep, low, absent))


def same_key(first: Key, second: Key) -> Bool[jax.Array, "*batch"]:
    """Return True where two keys name one voxel."""
    return (first.high == second.high) & (first.low == second.low)


def owners(key: Key, boundaries: UInt32[jax.Array, "V-1 2"]) -> Int32[jax.Array, "*batch"]:
    """Return the partition of each key: how many boundaries lie at or before it."""
    high, low = key.high[..., None], key.low[..., None]
    passed = (high > boundaries[:, 0]) | ((high == boundaries[:, 0]) & (low >= boundaries[:, 1]))
    return jnp.sum(passed, axis=-1, dtype=jnp.int32)


def even_boundaries(
    key: Key, count: Int32[jax.Array, ""], partitions: int
) -> UInt32[jax.Array, "V-1 2"]:
    """Return boundaries that share the first `count` of sorted keys evenly."""
    cuts = jnp.arange(1, partitions, dtype=jnp.float32) / partitions
    place = jnp.clip((cuts * count).astype(jnp.int32), 0, key.high.shape[0] - 1)
    return jnp.stack([key.high[place], key.low[place]], axis=-1)


def hash_words(key: Key) -> tuple[UInt32[jax.Array, "*batch"], UInt32[jax.Array, "*batch"]]:
    """Return two well-mixed words of each key, as good as independent."""
    mixed = _mix(key.high * jnp.uint32(0x9E3779B1) ^ _mix(key.low))
    return mixed, _mix(mixed ^ jnp.uint32(0x85EBCA77))


def _interleave(x: Any, y: Any, z: Any) -> Any:
    """Return 30 bits that take turns: ... x1 y1 z1 x0 y0 z0."""
    return _spread(x) << 2 | _spread(y) << 1 | _spread(z)


def _spread(bits: Any) -> Any:
    """Move the ten low bits three places apart."""
    bits = (bits | bits << 16) & jnp.uint32(0x030000FF)
    bits = (bits | bits << 8) & jnp.uint32(0x0300F00F)
    bits = (bits | bits << 4) & jnp.uint32(0x030C30C3)
    return (bits | bits << 2) & jnp.uint32(0x09249249)


def _mix(word: Any) -> Any:
    """Scramble the bits of 32-bit words, one to one (the finaliser of MurmurHash3)."""
    word = (word ^ word >> 16) * jnp.uint32(0x85EBCA6B)
    word = (word ^ word >> 13) * jnp.uint32(0xC2B2AE35)
    return word ^ word >> 16
