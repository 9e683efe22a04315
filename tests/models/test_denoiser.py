"""The properties that the denoiser's parts promise; `tests/golden` compares it with the release."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirage_jax.models import functional
from mirage_jax.models.condition import RELEASE, condition_channels
from mirage_jax.models.denoiser import DenoiserConfig, FrameLayout

TINY = DenoiserConfig(
    latent_channels=4,
    out_channels=4,
    width=24,
    heads=2,
    layers=3,
    mlp_width=32,
    text_width=8,
    branch_layers=(0, 2),
    condition_channels=5,
)
# Compiling takes longer than running these sizes.
_quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
FRAMES = FrameLayout(references=1, target=3, preceding=1)


def test_the_released_condition_has_the_released_channels():
    assert condition_channels(RELEASE, 48) == 96


def test_call_returns_the_target_frames_of_every_frame():
    inputs = _inputs()
    every = _every_frame(_noisy_params(), *inputs)
    target = _target_frames(_noisy_params(), *inputs)
    np.testing.assert_array_equal(target, every[:, 1:4])


def test_branch_is_identity_at_init():
    params = _noisy_params() | {"branch": functional.init(TINY, 0)["branch"]}
    x, timestep, condition, text = _inputs()
    with_branch = _every_frame(params, x, timestep, condition, text)
    without = _every_frame(params, x, timestep, None, text)
    np.testing.assert_allclose(with_branch, without, rtol=1e-5, atol=1e-6)


def test_hints_enter_after_their_own_block_and_not_the_references():
    """With attention and feed-forward off, blocks are the identity and hints just add up."""
    params = _noisy_params()
    for part in ("self_attn", "cross_attn", "ffn"):
        last = "down" if part == "ffn" else "o"
        for blocks in (params["blocks"], params["branch"]["blocks"]["block"]):
            blocks[part][last] = jax.tree.map(jnp.zeros_like, blocks[part][last])
    x, timestep, condition, text = _inputs()
    changed = _every_frame(params, x, timestep, condition + 1, text)
    same = _every_frame(params, x, timestep, condition, text)
    moved = np.abs(changed - same).max(axis=(0, 2, 3, 4)) > 1e-4
    np.testing.assert_array_equal(moved, [False, True, True, True, True])


def test_timestep_of_a_frame_touches_that_frame_only_when_attention_is_off():
    params = _noisy_params()
    for part in ("self_attn", "cross_attn"):
        params["blocks"][part]["o"] = jax.tree.map(jnp.zeros_like, params["blocks"][part]["o"])
    x, timestep, _, text = _inputs()

    def run(timestep):
        return _every_frame(params, x, timestep, None, text)

    moved = np.abs(run(timestep.at[0, 2].add(300.0)) - run(timestep)).max(axis=(2, 3, 4)) > 1e-5
    expected = np.zeros((2, 5), bool)
    expected[0, 2] = True
    np.testing.assert_array_equal(moved, expected)


@pytest.mark.parametrize("what", ["timestep", "text", "reference", "condition"])
def test_every_input_reaches_the_target_frames(what):
    x, timestep, condition, text = _inputs()
    before = _every_frame(_noisy_params(), x, timestep, condition, text)
    changed = {
        "timestep": (x, timestep.at[:, 1].set(1.0), condition, text),
        "text": (x, timestep, condition, text + 1.0),
        "reference": (x.at[:, 0].add(1.0), timestep, condition, text),
        "condition": (x, timestep, condition + 1.0, text),
    }[what]
    after = _every_frame(_noisy_params(), *changed)
    assert float(jnp.abs(after - before)[:, 1:4].max()) > 1e-3


def test_clean_prediction_starts_as_its_base():
    config = dataclasses.replace(TINY, prediction="clean", text_width=0)
    x, timestep, condition, _ = _inputs()
    base = jax.random.normal(jax.random.key(5), (2, 3, 4, 6, 4))
    params = functional.init(config, 0)

    @_quick_jit
    def run(params, base):
        inputs = x, timestep, condition, None, FRAMES
        return functional.apply(config, params, *inputs, base=base)

    got = run(params, base)
    np.testing.assert_array_equal(got, base)
    assert "cross_attn" not in params["blocks"]
    assert "text_embedding" not in params


@pytest.mark.parametrize(
    "change",
    [
        {"remat": "full", "products": "bfloat16"},
        {"remat": "dots", "unroll": 3, "attention": "recomputed"},
        {"dtype": "bfloat16"},
    ],
)
def test_ways_of_computing_do_not_change_the_result(change):
    plain = dataclasses.replace(TINY, text_width=0)
    params = _noisy_params(plain)
    value, gradient = _value_and_gradient(plain, params)
    got, got_gradient = _value_and_gradient(dataclasses.replace(plain, **change), params)
    tolerance = 0.05 if "bfloat16" in change.values() else 1e-4
    np.testing.assert_allclose(got, value, rtol=tolerance)
    difference = _norm(jax.tree.map(jnp.subtract, gradient, got_gradient))
    assert difference < 2 * tolerance * _norm(gradient)


def test_the_released_size_has_five_billion_backbone_parameters_and_builds_abstractly():
    config = DenoiserConfig(
        width=3072,
        heads=24,
        layers=30,
        mlp_width=14336,
        text_width=4096,
        branch_layers=tuple(range(0, 30, 2)),
        condition_channels=96,
    )
    params = functional.abstract_params(config)
    branch = functional.count_params(params["branch"])
    backbone = functional.count_params(params) - branch
    assert backbone == pytest.approx(5.0e9, rel=0.01)
    assert branch == pytest.approx(2.6e9, rel=0.02)
    frames = FrameLayout(references=4, target=9, preceding=2)
    x = jax.ShapeDtypeStruct((1, 15, 44, 80, 48), jnp.float32)
    out = jax.eval_shape(
        lambda params, x, t, s, text: functional.apply(config, params, x, t, s, text, frames),
        params,
        x,
        jax.ShapeDtypeStruct((1, 15), jnp.float32),
        jax.ShapeDtypeStruct((1, 11, 44, 80, 96), jnp.float32),
        jax.ShapeDtypeStruct((1, 512, 4096), jnp.float32),
    )
    assert out.shape == (1, 9, 44, 80, 48)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 5}, "heads"),
        ({"patch": (2, 2, 2)}, "patch"),
        ({"branch_layers": (0, 3)}, "branch_layers"),
        ({"branch_layers": ()}, "condition_channels"),
        ({"remat": "some"}, "remat"),
    ],
)
def test_configs_that_contradict_themselves_are_refused(change, message):
    with pytest.raises(ValueError, match=f"denoiser.{message}: got"):
        dataclasses.replace(TINY, **change)


def test_inputs_that_do_not_fit_are_refused_by_name():
    x, timestep, condition, text = _inputs()
    params = _noisy_params()

    def run(x=x, timestep=timestep, condition=condition, text=text, **kwargs):
        return functional.apply(TINY, params, x, timestep, condition, text, FRAMES, **kwargs)

    with pytest.raises(ValueError, match="x: got"):
        run(x=x[:, 1:])
    with pytest.raises(ValueError, match="timestep: got"):
        run(timestep=timestep[:, 0])
    with pytest.raises(ValueError, match="condition: got"):
        run(condition=condition[..., 1:])
    with pytest.raises(ValueError, match="text: got None"):
        run(text=None)
    with pytest.raises(ValueError, match="base: got"):
        run(base=x[:, 1:4])


def _inputs():
    keys = jax.random.split(jax.random.key(1), 4)
    x = jax.random.normal(keys[0], (2, FRAMES.total, 4, 6, 4))
    timestep = jax.random.uniform(keys[1], (2, FRAMES.total), maxval=600.0)
    condition = jax.random.normal(keys[2], (2, FRAMES.remembered, 4, 6, 5))
    return x, timestep, condition, jax.random.normal(keys[3], (2, 3, 8))


@functools.lru_cache
def _noisy_leaves(config):
    leaves, structure = jax.tree.flatten(functional.abstract_params(config))
    rng = np.random.default_rng(0)
    drawn = [rng.normal(0.1, leaf.shape[-1] ** -0.5, leaf.shape) for leaf in leaves]
    return structure, [jnp.asarray(leaf, jnp.float32) for leaf in drawn]


def _noisy_params(config=TINY):
    """Return parameters without the zeros of initialisation, which hide mistakes."""
    return jax.tree.unflatten(*_noisy_leaves(config))


@_quick_jit
def _every_frame(params, x, timestep, condition, text):
    inputs = x, timestep, condition, text, FRAMES
    return functional.apply(TINY, params, *inputs, method="every_frame")


@_quick_jit
def _target_frames(params, x, timestep, condition, text):
    return functional.apply(TINY, params, x, timestep, condition, text, FRAMES)


@functools.lru_cache
def _loss(config):
    x, timestep, condition, _ = _inputs()

    def loss(params):
        out = functional.apply(config, params, x, timestep, condition, None, FRAMES)
        return jnp.mean(jnp.square(out))

    return _quick_jit(jax.value_and_grad(loss))


def _value_and_gradient(config, params):
    return _loss(config)(params)


def _norm(tree):
    return float(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)) ** 0.5)
