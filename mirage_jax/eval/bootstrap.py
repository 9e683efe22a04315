"""Means with intervals over scenes, where every scene may have been run with several seeds.

Seeds of one scene are not independent scenes: values are averaged over the seeds of a scene first,
and scenes are resampled (percentile bootstrap, 2000 draws, seeded, so equal values give equal
intervals). Gains are paired: two systems are compared on the same scenes and seeds.
Read next: `mirage_jax/eval/results.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_DRAWS = 2000

# (scene, seed) -> value
Values = Mapping[tuple[str, int], float]


class Interval(NamedTuple):
    """A mean over scenes with its 95 % interval, the median, and how many scenes and runs."""

    mean: float
    low: float
    high: float
    median: float
    scenes: int
    runs: int


def interval(values: Values) -> Interval | None:
    """Return the mean over scenes; None where no value is finite."""
    by_scene: dict[str, list[float]] = {}
    for (scene, _), value in values.items():
        if np.isfinite(value):
            by_scene.setdefault(scene, []).append(float(value))
    if not by_scene:
        return None
    means = np.array([np.mean(by_scene[scene]) for scene in sorted(by_scene)])
    low, high = mean_interval(means)
    return Interval(
        mean=float(means.mean()),
        low=low,
        high=high,
        median=float(np.median(means)),
        scenes=len(means),
        runs=sum(map(len, by_scene.values())),
    )


def mean_interval(values: Float[np.ndarray, " n"], draws: int = _DRAWS) -> tuple[float, float]:
    """Return the 95 % interval of the mean of finite values, at least one."""
    chosen = np.random.default_rng(0).integers(0, len(values), (draws, len(values)))
    low, high = np.percentile(values[chosen].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def gain(values: Values, over: Values) -> Interval | None:
    """Return the mean difference of two systems on the scenes and seeds that both have.

    A system without chance has one seed, 0, which stands for all.
    """
    differences = {}
    for (scene, seed), value in values.items():
        other = over.get((scene, seed), over.get((scene, 0)))
        if other is not None:
            differences[scene, seed] = value - other
    return interval(differences)
