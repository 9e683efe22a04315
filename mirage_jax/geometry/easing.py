"""How a camera starts and stops: one easing curve shared by all presets.

Conventions: progress runs from 0 to 1; NumPy float64 only, since paths are made once on the host.

Read next: ``trajectories.py``.
"""

from typing import Any

import numpy as np
from jaxtyping import Float


def ease(progress: Float[Any, "*n"], ramp: float = 0.25) -> Float[Any, "*n"]:
    """Map progress in [0, 1] to an eased one: still at both ends, even speed in between.

    Speed rises as half a cosine wave over the first `ramp` of the time and falls likewise, so the
    peak speed is only 1 / (1 - ramp) of the mean (4/3 by default, against 3/2 for smoothstep).

    Args:
      progress: times in [0, 1]; values outside are clipped.
      ramp: fraction of the time spent speeding up, in (0, 0.5].

    Returns:
      Eased progress of the same shape; exactly 0 at 0 and 1 at 1.
    """
    if not 0 < ramp <= 0.5:
        raise ValueError(f"ease: ramp must lie in (0, 0.5]; got {ramp}. Try 0.25.")
    progress = np.clip(np.asarray(progress, dtype=np.float64), 0.0, 1.0)
    early = _ease_in(np.minimum(progress, 0.5), ramp)
    late = 1.0 - _ease_in(np.minimum(1.0 - progress, 0.5), ramp)
    return np.where(progress <= 0.5, early, late)


def _ease_in(time: np.ndarray, ramp: float) -> np.ndarray:
    """Return the way covered at `time` <= 0.5 when speeding up over `ramp`."""
    speed = 1.0 / (1.0 - ramp)
    rising = 0.5 * speed * (time - ramp / np.pi * np.sin(np.pi * time / ramp))
    return np.where(time < ramp, rising, speed * (time - 0.5 * ramp))


def there_and_back(frames: int, hold: int) -> Float[Any, "f"]:
    """Return progress 0 -> 1 -> 0 over `frames`, mirrored exactly, the last `hold` frames at 0.

    Frame k and its mirror image carry the same bits, so the way back repeats the way out.
    """
    steps = frames - hold
    index = np.arange(frames)
    nearest_end = np.clip(np.minimum(index, steps - index), 0, None)
    return ease(nearest_end / (steps // 2))


def once_around(frames: int, hold: int) -> Float[Any, "f"]:
    """Return progress 0 -> 1 over `frames`, the last `hold` frames at exactly 1."""
    return ease(np.arange(frames) / (frames - hold))
