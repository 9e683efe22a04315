"""A clip with monsters and its clean plate: the same cameras, the same pictures but for sprites."""

import numpy as np
import pytest

pytest.importorskip("vizdoom")

from mirage_jax.data.doom import pairs
from mirage_jax.data.doom.engine import Engine
from mirage_jax.data.doom.levels import Level
from mirage_jax.data.doom.record import RecordConfig, Rejected

MAP = Level("freedoom2.wad", "MAP18")


def first_pair():
    config = RecordConfig(frames=9)
    with Engine(pairs.WITH) as monsters, Engine(pairs.WITHOUT) as empty:
        for seed in range(40):
            try:
                return pairs.record_pair((monsters, empty), MAP, seed, config, kind="look_around")
            except Rejected:
                continue
    raise AssertionError("no pair in forty tries")


def test_pairs_differ_by_their_sprites_alone():
    clip, plate = first_pair()
    np.testing.assert_allclose(clip["cam_to_world"], plate["cam_to_world"], atol=1e-3)
    assert clip["moving"].mean() >= 0.01
    assert not plate["moving"].any()
    apart = np.abs(clip["rgb"].astype(int) - plate["rgb"]).max(-1) > 8
    sprites = clip["sprite"] | plate["sprite"]
    assert apart[~sprites].mean() < 0.01
    assert apart[clip["moving"]].mean() > 0.5
