"""Dense optical flow and what is told by it: displacement, motion, consistency in time.

Flow is that of `dis_flow.py`, in pixels of the original frame; no network, so no number here is
RAFT's.

* Endpoint error: mean length of the difference of two flow fields.
* Motion magnitude: mean over adjacent frames of the median length (WorldScore's formula).
* Consistency: WorldScore's photometric consistency with DIS in place of SEA-RAFT: follow the
  forward flow from a pixel to the next frame, round to the nearest pixel (clipped to the picture),
  add the backward flow there, and take the distance to the start; mean over pixels inside a rim and
  over adjacent frames. WorldScore's rim is 15 pixels of 512, and is scaled to the picture's width.
Read next: `dis_flow.py`, `mirage_jax/eval/image.py` (`displacement`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from mirage_jax.eval.metrics.dis_flow import ENLARGE, enlarged_flow

_RIM, _RIM_WIDTH = 15, 512


def dense_flow(
    a: UInt8[np.ndarray, "H W 3"], b: UInt8[np.ndarray, "H W 3"]
) -> Float[np.ndarray, "H W 2"]:
    """Return how far content of `a` lies to the right and down in `b`, in pixels."""
    large = enlarged_flow(a, b)
    # One value a pixel again: the mean over its enlarged block, whose values are added one after
    # the other.
    blocks = large.reshape(a.shape[0], ENLARGE, a.shape[1], ENLARGE, 2)
    total = np.zeros((*a.shape[:2], 2), large.dtype)
    for row, column in np.ndindex(ENLARGE, ENLARGE):
        total += blocks[:, row, :, column]
    return total / np.float32(ENLARGE**2) / ENLARGE


def flows(video: UInt8[np.ndarray, "f H W 3"]) -> Float[np.ndarray, "n H W 2"]:
    """Return the flow from every frame to the next."""
    return np.stack([dense_flow(a, b) for a, b in zip(video[:-1], video[1:], strict=True)])


def motion_magnitude(fields: Float[np.ndarray, "n H W 2"]) -> float:
    """Return the mean over fields of the median length, in pixels."""
    return float(np.median(np.linalg.norm(fields, axis=-1), axis=(1, 2)).mean())


def endpoint_error(
    got: Float[np.ndarray, "n H W 2"], true: Float[np.ndarray, "n H W 2"]
) -> Float[np.ndarray, " n"]:
    """Return the mean length of the difference of flow fields, in pixels."""
    return np.linalg.norm(got - true, axis=-1).mean(axis=(1, 2))


def round_trip(
    forward: Float[np.ndarray, "H W 2"], backward: Float[np.ndarray, "H W 2"], rim: int
) -> float:
    """Return how far pixels land from where they started, in pixels.

    Args:
        forward: flow from the first frame to the second.
        backward: flow from the second to the first.
        rim: pixels at each side that do not count as starts.
    """
    height, width = forward.shape[:2]
    rows, columns = np.mgrid[rim : height - rim, rim : width - rim]
    start = np.stack([columns, rows], axis=-1)
    there = start + forward[rows, columns]
    column = np.clip(np.rint(there[..., 0]).astype(int), 0, width - 1)
    row = np.clip(np.rint(there[..., 1]).astype(int), 0, height - 1)
    back = there + backward[row, column]
    return float(np.linalg.norm(back - start, axis=-1).mean())


def flow_consistency(
    video: UInt8[np.ndarray, "f H W 3"], forward: Sequence[Any] | np.ndarray | None = None
) -> float:
    """Return the mean round trip over adjacent frames, in pixels; 0 is best.

    Args:
        video: at least two frames.
        forward: flows to the next frames, where they are known already.
    """
    rim = rim_pixels(video.shape[2])
    forward = flows(video) if forward is None else forward
    backward = [dense_flow(b, a) for a, b in zip(video[:-1], video[1:], strict=True)]
    pairs = zip(forward, backward, strict=True)
    return float(np.mean([round_trip(there, back, rim) for there, back in pairs]))


def rim_pixels(width: int) -> int:
    """Return the rim that does not count, for pictures of a width."""
    return round(_RIM * width / _RIM_WIDTH)
