"""Fingerprints of arrays: one number each, computed where the arrays lie.

The sum, modulo 2^32, of an array's 32-bit words, each times an odd number that is drawn from its
place. Sums of integers do not depend on the order, so the number is the same on any mesh and any
number of hosts; a flipped bit always changes it, anything else but for one case in four billion.
It guards against damage, not against anyone. Read next: `checkpoint.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def fingerprints(tree: Any) -> dict[str, int]:
    """Return the fingerprint of each array of a tree, by its path; all processes must call it."""
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    ]
    numbers = jax.device_get(_compiled()(jax.tree.leaves(tree)))
    return dict(zip(paths, map(int, numbers), strict=True))


@functools.cache
def _compiled() -> Callable[[list[jax.Array]], list[jax.Array]]:
    """Return the function of all arrays at once; on CPUs compiling costs more than running."""
    cpu = jax.default_backend() == "cpu"
    options = {"xla_backend_optimization_level": 0} if cpu else None
    return jax.jit(lambda leaves: [_one(leaf) for leaf in leaves], compiler_options=options)


def _one(leaf: jax.Array) -> jax.Array:
    words = _words(leaf)
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis, size in enumerate(words.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    return jnp.sum(words * _odd(place), dtype=jnp.uint32)


def _words(leaf: jax.Array) -> jax.Array:
    """Return the bits of an array as uint32; types of 8 bytes get an axis of two words."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    width = leaf.dtype.itemsize
    if width >= 4:
        return jax.lax.bitcast_convert_type(leaf, jnp.uint32)
    narrow = {1: jnp.uint8, 2: jnp.uint16}[width]
    return jax.lax.bitcast_convert_type(leaf, narrow).astype(jnp.uint32)


def _odd(place: jax.Array) -> jax.Array:
    """Return an odd number for each place, neighbours apart (the finish of MurmurHash3)."""
    place = (place ^ (place >> 16)) * jnp.uint32(0x85EBCA6B)
    place = (place ^ (place >> 13)) * jnp.uint32(0xC2B2AE35)
    return (place ^ (place >> 16)) | jnp.uint32(1)
