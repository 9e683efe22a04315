"""The ablation: all systems on the same scenes and seeds, gains paired, runs go on."""

import dataclasses

import pytest
from tiny_world import tiny_world, wall_clip

from mirage_jax.eval import run_protocol
from mirage_jax.eval.ablation import NOT_QUICK, PROTOCOLS, run_ablation, with_systems
from mirage_jax.eval.protocols import Protocol, Setting, list_items, load_protocol
from mirage_jax.eval.run_protocol import RunOptions
from mirage_jax.eval.systems import SYSTEMS

CLIPS = [wall_clip(17, seed) | {"level": f"L{seed}"} for seed in range(2)]
FACTS = {"world": "tiny", "split": "val", "command": "mirage evaluate ablation"}


def test_one_table_has_all_systems_with_paired_gains_and_a_stopped_run_goes_on(
    tmp_path, monkeypatch
):
    # The world's own configs for the RGB cache: other tests have compiled those.
    same = dataclasses.replace(SYSTEMS["rgb_cache"], spec=lambda spec: spec)
    monkeypatch.setitem(SYSTEMS, "rgb_cache", same)
    systems = ("latent", "no_memory", "rgb_cache")
    # A camera at rest comes back in the frames of one chunk.
    setting = Setting(items=2, frames=9, batch=1, seeds=(0,), systems=systems, path="static")
    asked = [Protocol(name, tuple(list_items(CLIPS)), setting) for name in PROTOCOLS]
    values = run_ablation(tiny_world(), CLIPS, asked, RunOptions(tmp_path), FACTS)
    assert {"truth", "codec", "copy", *systems} <= values.keys()
    for protocol in PROTOCOLS:
        for metric in ("psnr", "ssim"):
            key = f"{protocol}_{metric}"
            for name, over in (("rgb_cache", "latent"), ("latent", "rgb_cache")):
                gain = values[name][f"{key}_gain_over_{over}"]
                assert gain == pytest.approx(values[name][key] - values[over][key], abs=1e-5)
                low, high = values[name][f"{key}_gain_over_{over}_ci95"]
                assert low <= gain <= high
        assert values["truth"][f"{protocol}_psnr"] == 100.0
    text = (tmp_path / "ablation.md").read_text()
    assert "| rgb_cache |" in text
    assert "`reference_only` is absent: the world 'tiny' was trained without" in text
    assert (tmp_path / "ablation_revisit.png").stat().st_size > 1000

    def never(*arguments, **options):
        raise AssertionError("measured already")

    monkeypatch.setattr(run_protocol, "run_system", never)
    assert run_ablation(tiny_world(), CLIPS, asked, RunOptions(tmp_path), FACTS) == values


def test_an_ablation_has_every_system_that_the_world_can_run():
    spec = tiny_world().spec
    every = with_systems(load_protocol("nvs"), spec, quick=False).setting
    generating = {name for name, system in SYSTEMS.items() if system.kind == "rollout"}
    assert set(every.systems) == generating - {"reference_only"}
    assert len(every.seeds) >= 3
    quick = with_systems(load_protocol("nvs", quick=True), spec, quick=True).setting
    assert set(every.systems) - set(quick.systems) == set(NOT_QUICK)
    assert len(quick.seeds) == 1
    some = with_systems(load_protocol("nvs"), spec, quick=False, names="latent,release").setting
    assert some.systems == ("latent", "release")
    with pytest.raises(ValueError, match="got 'reference_only', expected some of"):
        with_systems(load_protocol("nvs"), spec, quick=False, names="reference_only")
