"""What each protocol measures of one video: metrics, curves, and sums that add up over scenes.

`Score` is what a judge returns. Frames after the first count, unless a judge says otherwise.
Read next: `follow.py` (nvs), `comeback.py` (revisit), `camera.py`, `motion.py`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from mirage_jax.eval.metrics.lpips import Lpips
from mirage_jax.eval.metrics.raft import Raft


@dataclasses.dataclass(frozen=True)
class Score:
    """What was measured of one video.

    Attributes:
        metrics: name -> value; NaN where it cannot be told.
        curves: name -> values in order.
        sums: name -> numbers that add up over scenes.
    """

    metrics: dict[str, float]
    curves: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    sums: dict[str, list[Any]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Ruler:
    """What judges share.

    Attributes:
        chunk_ends: one past the last frame of each chunk.
        lpips: with its true weights, or None: then its key is absent.
        raft: with a user's weights, or None: likewise.
    """

    chunk_ends: tuple[int, ...]
    lpips: Lpips | None = None
    raft: Raft | None = None
