"""Baselines that need fitting: principal components of patches as a codec of the same sizes.

The others (copy, hole-filled read, memory off) are rows of the evaluations themselves.
Read next: `mirage_jax/eval/codec.py`, `mirage_jax/models/pca.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mirage_jax.models import functional, pca
from mirage_jax.models.codec import CodecConfig


def fit_pca_codec(
    codec: CodecConfig, clips: Sequence[Any], *, count: int = 64, frames: int = 17
) -> tuple[CodecConfig, dict]:
    """Fit the linear codec with the strides and channels of `codec`.

    Args:
        codec: whose sizes to take.
        clips: random access to training clips.
        count: clips used, spread over the split.
        frames: frames of each, 1 + stride * n.

    Returns:
        Config of the linear codec (no convolutions) and its parameters.
    """
    linear = dataclasses.replace(codec, width=0)
    chosen = np.unique(np.linspace(0, len(clips) - 1, min(count, len(clips))).astype(int))
    videos = np.stack([np.asarray(clips[int(i)]["rgb"][:frames]) for i in chosen])
    return linear, pca.fit(linear, functional.init(linear, 0), videos)
