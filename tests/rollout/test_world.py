"""Worlds on disk: what is written comes back, and what is missing is named."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from tiny_world import tiny_world

from mirage_jax.models import functional
from mirage_jax.models.denoiser import FrameLayout
from mirage_jax.models.files import save_params
from mirage_jax.models.lora import LoraConfig, apply_lora, init_lora
from mirage_jax.rollout.world import World, export_world, load_spec, load_world, save_world


def test_saved_world_comes_back_whole(tmp_path):
    world = tiny_world()
    save_world(tmp_path, world)
    loaded = load_world(tmp_path)
    assert loaded.spec == world.spec
    assert jax.tree.structure(loaded.params) == jax.tree.structure(world.params)
    for got, expected in zip(
        jax.tree.leaves(loaded.params), jax.tree.leaves(world.params), strict=True
    ):
        np.testing.assert_array_equal(got, expected)


def test_half_precision_models_keep_their_weights_as_stored_and_give_the_same(tmp_path):
    world = tiny_world()
    half = dataclasses.replace(world.spec.denoiser, dtype="bfloat16")
    spec = dataclasses.replace(world.spec, denoiser=half)
    params = jax.tree.map(lambda leaf: leaf + 0.05, world.params)
    save_world(tmp_path, World(spec, params), dtype="bfloat16")
    loaded = load_world(tmp_path).params
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(loaded["denoiser"])} == {"bfloat16"}
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(loaded["codec"])} == {"float32"}
    wide = jax.tree.map(lambda leaf: leaf.astype(np.float32), loaded["denoiser"])
    x, timestep = np.ones((1, 2, 4, 4, half.latent_channels), np.float32), np.full((1, 2), 500.0)
    run = functools.partial(functional.apply, half)
    inputs = x, timestep, None, None, FrameLayout(references=0, target=2, preceding=0)
    np.testing.assert_array_equal(run(loaded["denoiser"], *inputs), run(wide, *inputs))


def test_missing_weights_are_all_named_with_the_cure(tmp_path):
    save_world(tmp_path, tiny_world())
    (tmp_path / "codec.safetensors").unlink()
    (tmp_path / "depth.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"lacks codec\.safetensors, depth\.safetensors.*mirage train"
    ):
        load_world(tmp_path)


def test_truncated_weights_are_refused(tmp_path):
    save_world(tmp_path, tiny_world())
    path = tmp_path / "denoiser.safetensors"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="denoiser"):
        load_world(tmp_path)


def test_folder_without_a_world_says_what_it_should_be(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--weights: .*world\.json"):
        load_world(tmp_path)


def test_unknown_config_key_suggests_the_nearest(tmp_path):
    save_world(tmp_path, tiny_world())
    path = tmp_path / "world.json"
    path.write_text(path.read_text().replace('"capacity"', '"capacty"'))
    with pytest.raises(ValueError, match="did you mean 'capacity'"):
        load_spec(tmp_path)


def test_export_gathers_a_training_folder_and_names_untrained_stages(tmp_path):
    world = tiny_world()
    save_world(tmp_path / "work", world)
    exported = export_world(tmp_path / "work", world.spec, tmp_path / "out", dtype="float16")
    loaded = load_world(tmp_path / "out")
    assert exported.spec == loaded.spec
    gaps = jax.tree.map(lambda a, b: float(abs(a - b).max()), exported.params, loaded.params)
    assert max(jax.tree.leaves(gaps)) < 1e-2
    (tmp_path / "work" / "denoiser.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"--workdir: .*lacks denoiser\.safetensors"):
        export_world(tmp_path / "work", world.spec, tmp_path / "out")


def test_a_lora_in_the_workdir_is_merged_into_a_denoiser_given_elsewhere(tmp_path):
    world = tiny_world()
    save_world(tmp_path / "given", world)
    config = LoraConfig(rank=2, alpha=1.0)
    lora = init_lora(config, world.params["denoiser"], jax.random.key(0))
    lora = jax.tree.map(lambda leaf: leaf + 0.1, lora)
    metadata = {"lora": dataclasses.asdict(config)}
    save_params(tmp_path / "work" / "lora.safetensors", lora, metadata)
    exported = export_world(
        tmp_path / "work", world.spec, tmp_path / "out", weights=tmp_path / "given"
    )
    expected = apply_lora(world.params["denoiser"], lora, 0.5)
    for loaded in (exported, load_world(tmp_path / "out")):
        jax.tree.map(np.testing.assert_array_equal, loaded.params["denoiser"], expected)
    changed = expected["blocks"]["ffn"]["up"]["kernel"]
    assert np.abs(changed - world.params["denoiser"]["blocks"]["ffn"]["up"]["kernel"]).max() > 1e-3
