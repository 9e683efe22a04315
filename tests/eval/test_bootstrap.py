"""Intervals over scenes: seeds of one scene are not scenes."""

import numpy as np
import pytest
from scipy import stats

from mirage_jax.eval.bootstrap import gain, interval


def test_interval_is_near_that_of_scipys_bootstrap():
    values = np.random.default_rng(0).normal(20, 3, 40)
    ours = interval({(f"s{i}", 0): v for i, v in enumerate(values)})
    theirs = stats.bootstrap((values,), np.mean, method="percentile", rng=1).confidence_interval
    assert ours.mean == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.15)


def test_more_seeds_of_the_same_scenes_do_not_narrow_the_interval():
    rng = np.random.default_rng(0)
    scenes = {f"s{i}": rng.normal(20, 3) for i in range(10)}
    one = interval({(s, 0): v for s, v in scenes.items()})
    many = interval({(s, seed): v for s, v in scenes.items() for seed in range(5)})
    assert (one.mean, one.low, one.high) == pytest.approx((many.mean, many.low, many.high))
    assert (many.scenes, many.runs) == (10, 50)


def test_gains_are_paired_and_values_that_are_not_finite_are_left_out():
    a = {("x", 0): 3.0, ("x", 1): 4.0, ("y", 0): 30.0, ("z", 0): np.nan}
    b = {("x", 0): 1.0, ("y", 0): 28.0, ("z", 0): 1.0}
    found = gain(a, b)
    assert (found.mean, found.scenes, found.runs) == (2.25, 2, 3)
    assert interval({("x", 0): np.nan}) is None
