"""Efficiency: every system by chunk, and the ratios that are named."""

import dataclasses
import json

import numpy as np
import pytest

from mirage_jax.eval.efficiency import (
    EfficiencyConfig,
    Walk,
    compare,
    evaluate_efficiency,
    marks,
    there_and_back,
    walk_frames,
)
from mirage_jax.eval.efficiency_report import write_efficiency
from mirage_jax.eval.report import jsonable
from mirage_jax.eval.systems import STAGES, SYSTEMS
from mirage_jax.eval.views import stack_starts
from tests.tiny_world import batched, flat_scene, sideways_and_back, tiny_world


class TinyWalk:
    def __repr__(self) -> str:
        return "tiny"

    def load(self, chunks: int) -> Walk:
        cameras = batched(sideways_and_back(walk_frames(tiny_world(), chunks), reach=2.0))
        return Walk(tiny_world(), stack_starts([flat_scene()]), cameras, None)


def test_every_system_has_its_seconds_and_bytes_by_chunk(tmp_path, monkeypatch):
    # One chunk, and the world's own configs for the RGB cache: other tests have compiled that.
    same = dataclasses.replace(SYSTEMS["rgb_cache"], spec=lambda spec: spec)
    monkeypatch.setitem(SYSTEMS, "rgb_cache", same)
    config = EfficiencyConfig(
        chunks=1, passes=2, systems=("latent", "rgb_cache", "no_memory"), isolated=False
    )
    results = evaluate_efficiency(TinyWalk(), config, folder=tmp_path)
    for name in config.systems:
        one = results[name]
        assert set(one["wall_seconds"]) == set(one["cpu_seconds"]) == set(STAGES)
        assert all(len(values) == 1 for values in one["wall_seconds"].values())
        assert len(one["cache_bytes"]) == len(one["seconds_per_frame"]) == 1
        # Stages of a chunk over its frames are what a frame takes.
        total = sum(np.array(values) for values in one["wall_seconds"].values())
        np.testing.assert_allclose(total / one["new_frames"], one["seconds_per_frame"], atol=1e-5)
        assert one["peak_process_bytes"] > 2**20
    assert results["no_memory"]["peak_cache_bytes"] == 0
    cache = results["rgb_cache"]["cache_bytes"][0] / results["latent"]["cache_bytes"][0]
    assert results["cache_ratio_vs_rgb_chunk1"] == pytest.approx(cache)
    assert results["paper"] == {"speed_ratio": 10.57, "cache_ratio": 55.0}

    class NoWalk(TinyWalk):
        def load(self, chunks: int) -> Walk:
            raise AssertionError("measured already")

    kept = evaluate_efficiency(NoWalk(), config, folder=tmp_path)
    assert kept == results

    facts = {"world": "tiny", "command": "mirage evaluate efficiency", "chunks": 1, "clock": "wall"}
    text = write_efficiency(tmp_path, results, facts)
    stored = json.loads((tmp_path / "efficiency.json").read_text())
    assert stored["latent"] == jsonable(results["latent"])
    assert f"| cache | {cache:.2f} | 1.00 | 55 |" in text
    assert (tmp_path / "efficiency.png").stat().st_size > 1000


def test_ratios_are_named_at_chunks_1_5_and_20_with_their_growth():
    assert marks(20) == (1, 5, 20)
    assert marks(3) == (1, 3)
    cost = {1: 1.0, 5: 2.0, 20: 8.0}
    ours = {"seconds_per_frame": 1.0, "read_seconds": 0.5, "cache_bytes": 10}
    flat = {f"{key}_chunk{n}": value for key, value in ours.items() for n in cost}
    grown = {f"{key}_chunk{n}": value * cost[n] for key, value in ours.items() for n in cost}
    found = compare({"latent": flat, "rgb_cache": grown}, 20)
    for what in ("speed", "read", "cache"):
        assert [found[f"{what}_ratio_vs_rgb_chunk{n}"] for n in cost] == [1.0, 2.0, 8.0]
        assert found[f"{what}_ratio_growth"] == 8.0
    assert compare({"latent": flat}, 20) == {}


def test_a_path_is_walked_there_and_back_and_again():
    assert there_and_back(3, 9).tolist() == [0, 1, 2, 1, 0, 1, 2, 1, 0]
    assert there_and_back(1, 3).tolist() == [0, 0, 0]


def test_unknown_systems_and_walks_of_no_chunks_are_refused():
    with pytest.raises(ValueError, match="got rgb, expected names of latent"):
        EfficiencyConfig(systems=("rgb",))
    with pytest.raises(ValueError, match="--chunks: got 0"):
        EfficiencyConfig(chunks=0)
