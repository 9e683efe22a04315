"""Stages that start from given weights: what moves, what does not, and what is left on disk."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import tiny_wan

from mirage_jax.models import files, functional
from mirage_jax.models.branch_start import without_branch
from mirage_jax.models.lora import apply_lora
from mirage_jax.train import latent_files, loop, start
from mirage_jax.train.denoiser_stage import DenoiserObjective
from mirage_jax.train.optimizer import make_optimizer
from mirage_jax.train.state import new_state
from mirage_jax.train.step import make_step
from mirage_jax.train.windows.scores import ValidationWindows, validation_windows


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Steps here are tiny: compiling them well takes far longer than running them."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latents")
    return latent_files.encode_split(tiny_wan.codec(), tiny_wan.clips(), folder)


def randomised(params, seed=0):
    """Parameters without zeros, so that nothing cancels."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), params)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder of given weights: a backbone without a memory branch, as it is published."""
    folder = tmp_path_factory.mktemp("weights")
    config = without_branch(tiny_wan.world().denoiser)
    files.save_params(folder / "denoiser.safetensors", randomised(functional.init(config, 0)))
    return folder


def objective_of(name, latents, folders, variant="paper", windows=None):
    world = tiny_wan.world(variant)
    given = functools.partial(start.given_params, world, world.denoiser_stage(name), folders)
    windows = windows or ValidationWindows([], [], [], 1)
    return DenoiserObjective(world, tiny_wan.codec(), latents, windows, name=name, given=given)


def memorise(objective, steps=40):
    """Train on one batch with one draw of noise; return the state, the fixed part, the losses."""
    params, fixed = objective.init()
    before = jax.tree.map(np.array, fixed)
    optimizer = make_optimizer(objective.stage, params)
    state = jax.device_put(new_state(params, optimizer, average=False), jax.devices()[0])
    keys = jax.random.split(jax.random.key(0), objective.stage.batch)

    def loss(params, fixed, batch, _):
        return objective.loss(params, fixed, batch, keys)

    step, batch, losses = make_step(loss, optimizer, objective.stage, 0), objective.batch(0), []
    for _ in range(steps):
        state, metrics = step(state, fixed, batch)
        losses.append(float(metrics["loss"]))
    jax.tree.map(np.testing.assert_array_equal, fixed, before)
    return state, fixed, losses


def paths(tree):
    return {"/".join(path) for path in functional.flatten(tree)}


def test_branch_then_lora_then_all_of_it_each_from_what_the_one_before_left(
    latents, weights, tmp_path
):
    folders = [tmp_path, weights]
    given = files.load_tree(weights / "denoiser.safetensors")

    branch = objective_of("branch", latents, folders)
    state, fixed, losses = memorise(branch)
    assert losses[-1] < 0.9 * losses[0]
    assert paths(state.params) == {
        f"denoiser/branch/{name}"
        for name in paths(
            start.given_params(branch._world, branch.stage, folders)["denoiser"]["branch"]
        )
    }
    assert branch.export(state.exported, fixed, 40, tmp_path) == [tmp_path / "denoiser.safetensors"]
    left = files.load_params(tmp_path / "denoiser.safetensors", tiny_wan.world().denoiser)
    for path, leaf in functional.flatten(given).items():
        np.testing.assert_array_equal(functional.flatten(left)[path], leaf)

    lora = objective_of("lora", latents, folders)
    state, fixed, tuned = memorise(lora)
    # A fresh LoRA changes nothing: this stage begins where the one before ended.
    assert tuned[0] == pytest.approx(losses[-1], rel=0.05)
    assert tuned[-1] < 0.9 * tuned[0]
    assert {path.split("/")[0] for path in paths(state.params)} == {"lora"}
    assert lora.export(state.exported, fixed, 40, tmp_path) == [tmp_path / "lora.safetensors"]
    after = files.load_params(tmp_path / "denoiser.safetensors", tiny_wan.world().denoiser)
    jax.tree.map(np.testing.assert_array_equal, after, left)
    factors = files.load_tree(tmp_path / "lora.safetensors")
    merged = {"denoiser": apply_lora(after, factors, lora.stage.lora.scale)}

    full = objective_of("full", latents, folders)
    full.stage = lora.stage
    batch, keys = full.batch(0), jax.random.split(jax.random.key(0), full.stage.batch)
    losses, _ = jax.jit(full.loss)(merged, {}, batch, keys)
    beside, _ = jax.jit(lora.loss)(state.params, fixed, batch, keys)
    np.testing.assert_allclose(losses, beside, rtol=1e-4)


def test_all_parameters_of_given_weights_are_trained_by_the_full_stage(latents, weights):
    objective = objective_of("full", latents, [weights])
    params, fixed = objective.init()
    assert fixed == {}
    assert paths(params) == {
        f"denoiser/{name}" for name in paths(functional.abstract_params(tiny_wan.world().denoiser))
    }
    _, _, losses = memorise(objective, steps=20)
    assert losses[-1] < 0.7 * losses[0]


def test_a_velocity_is_what_the_loss_is_of(latents):
    drawn = DenoiserObjective(
        tiny_wan.world(), tiny_wan.codec(), latents, ValidationWindows([], [], [], 1)
    )
    params, fixed = drawn.init()
    batch = drawn.batch(0)
    keys = jax.random.split(jax.random.key(0), len(batch["target"]))
    losses, _ = jax.jit(drawn.loss)(params, fixed, batch, keys)
    # The head of a fresh denoiser is zero, so its error is the velocity noise - x of the frames
    # after the first, whatever their noise level: 1 + x^2 on average.
    squares = np.square(batch["target"][:, 1:].astype(np.float32))
    np.testing.assert_allclose(losses, 1 + squares.mean(axis=(1, 2, 3, 4)), rtol=0.2)
    assert float(losses.mean()) == pytest.approx(1 + squares.mean(), rel=0.1)


def test_a_run_keeps_the_lora_alone_and_goes_on_only_beside_the_same_weights(
    latents, weights, tmp_path
):
    world = tiny_wan.world()
    clips = tiny_wan.clips()[:1]
    windows = validation_windows(latents, clips, world.chunk, 2)
    objective = objective_of("lora", latents, [weights], windows=windows)
    objective.stage = dataclasses.replace(objective.stage, steps=2)
    options = loop.RunOptions(tmp_path, weights=weights)
    state = loop.train(objective, 0, options).state
    size = functional.count_params(state.params)
    assert {path.split("/")[0] for path in paths(state.params)} == {"lora"}
    assert functional.count_params(state.opt_state) == 2 * size + 1  # moments and a count
    assert functional.count_params(state.ema) == 0
    stored = sum(f.stat().st_size for f in (tmp_path / "lora" / "checkpoints").rglob("*"))
    assert stored < 2 * 12 * size + 200_000
    assert (tmp_path / "lora.safetensors").is_file()
    assert not (tmp_path / "denoiser.safetensors").exists()
    assert (tmp_path / "lora" / "pictures" / "lora_0000002.png").stat().st_size > 1000

    assert int(loop.train(objective, 0, options).state.step) == 2
    other = files.load_tree(weights / "denoiser.safetensors")
    other["head"]["linear"]["bias"] += 1.0
    files.save_params(tmp_path / "denoiser.safetensors", other)
    with pytest.raises(ValueError, match="fixed: .* -> .*expected the same model"):
        loop.train(objective_of("lora", latents, [tmp_path]), 0, options)
