"""Clips of random content in the right shapes, for tests of files."""

import numpy as np

from mirage_jax.data.clip import ClipShape, clip_spec

SHAPE = ClipShape(3, 8, 12)


def random_clip(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    clip = {}
    for name, (dims, dtype) in clip_spec(SHAPE).items():
        clip[name] = np.asarray(rng.uniform(0, 100, dims)).astype(dtype)
    return clip | {"level": "freedoom2/MAP01", "path": "walk", "object_names": "Tree\nImp"}
