"""Rows of an evaluation that no memory makes: they say what a number means.

The truth must be perfect, its blurred and its shifted copy must lose where blur and misplacement
are measured, and nothing can be better than the truth through the codec.
Read next: `mirage_jax/eval/systems.py` for what generates.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

from mirage_jax.rollout.decode import reconstruct
from mirage_jax.rollout.world import World

BLUR_SIGMA, SHIFT_PIXELS = 1.5, 4

TRUTH, COPY, CODEC, BLURRED, SHIFTED = "truth", "copy", "codec", "truth_blurred", "truth_shifted"
DESCRIPTIONS = {
    TRUTH: "the recorded frames",
    CODEC: "the recorded frames through the world's codec: a ceiling",
    COPY: "the start picture, repeated",
    BLURRED: f"the recorded frames, blurred with a Gaussian of sigma {BLUR_SIGMA}",
    SHIFTED: f"the recorded frames, shifted {SHIFT_PIXELS} pixels to the right",
}


def anchor_videos(
    name: str, world: World, truth: UInt8[np.ndarray, "b f H W 3"]
) -> UInt8[np.ndarray, "b f H W 3"]:
    """Return the videos of a row.

    Args:
        name: one of `DESCRIPTIONS`.
        world: whose codec is meant.
        truth: recorded frames.
    """
    if name == TRUTH:
        return truth
    if name == COPY:
        return np.repeat(truth[:, :1], truth.shape[1], axis=1)
    if name == CODEC:
        return np.asarray(reconstruct(world, truth))[:, : truth.shape[1]]
    change = blurred if name == BLURRED else shifted
    return np.stack([np.stack([change(frame) for frame in video]) for video in truth])


def blurred(frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Return a frame blurred."""
    return cv2.GaussianBlur(np.ascontiguousarray(frame), (0, 0), BLUR_SIGMA)


def shifted(frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Return a frame moved to the right; its first column fills what is uncovered."""
    moved = np.roll(frame, SHIFT_PIXELS, axis=1)
    moved[:, :SHIFT_PIXELS] = frame[:, :1]
    return moved
