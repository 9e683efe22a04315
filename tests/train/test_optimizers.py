"""Optimizers by name: each layer of stacked blocks is moved as if it were alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from mirage_jax.config import from_dict
from mirage_jax.train.config import load
from mirage_jax.train.optimizer import frozen_mask, make_optimizer, parameter_names
from mirage_jax.train.stage_config import StageConfig
from mirage_jax.train.state import new_state
from mirage_jax.train.tuning import abstract_split

LAYERS, ROWS, COLUMNS = 3, 128, 192


def tree(draw):
    """Return parameters of every kind there is: stacked, listed, and alone."""
    rng = np.random.default_rng(draw)

    def normal(*shape):
        # Layers of unequal size, so that what is shared between them shows.
        size = (1.0 + np.arange(shape[0]) ** 2).reshape(-1, *(1 for _ in shape[1:]))
        return jnp.asarray(rng.normal(size=shape) * size, jnp.float32)

    return {
        "denoiser": {
            "blocks": {
                "up": {"kernel": normal(LAYERS, ROWS, COLUMNS), "bias": normal(LAYERS, 192)}
            },
            "patch_embedding": {"kernel": normal(40, 24)},
        },
        "learned_read": {"blocks": {"0": {"kernel": normal(3, 3, 8, 8)}}},
        "lora": {"blocks": {"up": {"a": normal(LAYERS, 64, 4)}}},
    }


def directions(name, params, draws, **settings):
    stage = StageConfig(optimizer=name, clip_norm=1e9, **settings)
    optimizer = make_optimizer(stage, params)
    return followed(optimizer, params, draws)


@functools.cache
def compiled(transformation):
    return jax.jit(transformation.update)


def followed(transformation, params, draws):
    state, update = transformation.init(params), compiled(transformation)
    for grads in draws:
        direction, state = update(grads, state, params)
    return direction, state


def alone(transformation, params, draws):
    """Return the direction that optax gives an array that it gets alone."""
    return followed(transformation, params, draws)[0]


@functools.cache
def moved_by(name):
    return directions(name, tree(0), GRADS, beta1=0.8, beta2=0.95)[0]


GRADS = [tree(draw) for draw in (1, 2, 3)]
MUON, ADAM = optax.contrib.scale_by_muon(), optax.scale_by_adam(0.8, 0.95)


@pytest.mark.parametrize("path", ["denoiser/blocks/up/kernel", "lora/blocks/up/a"])
def test_muon_orthogonalises_each_layers_matrix_alone(path):
    stacked, given = at(moved_by("muon"), path), [at(grads, path) for grads in GRADS]
    for layer in range(LAYERS):
        matrix = alone(MUON, given[0][layer], [g[layer] for g in given])
        expected = 0.2 * max(matrix.shape) ** 0.5 * matrix
        np.testing.assert_allclose(stacked[layer], expected, rtol=1e-3, atol=1e-5)
        # Of typical size for Adam, whatever the shape, and of the same for every layer.
        singular = np.linalg.svd(stacked[layer], compute_uv=False)
        assert np.all((singular > 0.6 * singular.mean()) & (singular < 1.5 * singular.mean()))


@pytest.mark.parametrize("name", ["muon", "adamw"])
@pytest.mark.parametrize(
    "path",
    [
        "denoiser/blocks/up/bias",
        "denoiser/patch_embedding/kernel",
        "learned_read/blocks/0/kernel",
    ],
)
def test_embeddings_convolutions_and_vectors_go_to_adam(name, path):
    expected = alone(ADAM, at(tree(0), path), [at(grads, path) for grads in GRADS])
    np.testing.assert_allclose(at(moved_by(name), path), expected, rtol=1e-5)


def test_adafactor_treats_each_layer_alone():
    direction, state = directions("adafactor", tree(0), GRADS)
    plain = optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0))
    for path in parameter_names(direction):
        stacked, given = at(direction, path), [at(grads, path) for grads in GRADS]
        if path in ("learned_read/blocks/0/kernel", "denoiser/patch_embedding/kernel"):
            np.testing.assert_allclose(stacked, alone(plain, given[0], given), rtol=1e-5)
            continue
        for layer in range(LAYERS):
            expected = alone(plain, given[0][layer], [g[layer] for g in given])
            np.testing.assert_allclose(stacked[layer], expected, rtol=1e-5)
    shapes = {leaf.shape for leaf in jax.tree.leaves(state) if leaf.size > 1}
    assert {(LAYERS, ROWS), (LAYERS, COLUMNS)} <= shapes
    assert (LAYERS, ROWS, COLUMNS) not in shapes


@pytest.mark.parametrize("name", ["adamw", "muon", "adafactor"])
def test_frozen_parameters_have_no_state_and_matrices_alone_decay(name):
    params, zero = tree(0), jax.tree.map(jnp.zeros_like, tree(0))
    patterns = ("denoiser/blocks/up/kernel", "learned_read/*")
    direction, state = directions(name, params, [zero], weight_decay=0.5, frozen=patterns)
    frozen = frozen_mask(params, patterns)
    # Without a gradient the decay is all there is; a stacked bias is a vector for each layer.
    decays = {"denoiser/patch_embedding/kernel", "lora/blocks/up/a"}
    for path in parameter_names(params):
        share = 0.5 if path in decays else 0.0
        np.testing.assert_allclose(at(direction, path), share * at(params, path), atol=1e-6)
    forbidden = {p.shape for p, f in zip(*map(jax.tree.leaves, (params, frozen))) if f}  # noqa: B905
    assert not forbidden & {leaf.shape for leaf in jax.tree.leaves(state)}


def test_the_global_norm_is_bounded_before_anything_else():
    grads = [jax.tree.map(lambda g: 1e3 * g, grads) for grads in GRADS]
    stage = StageConfig(optimizer="adamw", clip_norm=0.5)
    optimizer = make_optimizer(stage, tree(0))
    _, state = compiled(optimizer)(grads[0], optimizer.init(tree(0)), tree(0))
    assert float(optax.global_norm(state[1].mu)) == pytest.approx(0.5 * (1 - stage.beta1))


def test_muon_moves_the_matrices_of_a_denoisers_blocks_and_refuses_what_has_none():
    world = load("configs/wan5b.py:release")
    params = abstract_split(world, world.full_train).trained
    optimizer = make_optimizer(StageConfig(optimizer="muon"), params)
    shapes = jax.eval_shape(lambda p: new_state(p, optimizer, average=False), params).opt_state
    momentum = shapes[1].inner_states["muon"].inner_state[0].mu
    moved = set(parameter_names(momentum))
    assert {name.split("/")[-1] for name in moved} == {"kernel"}
    assert all("/blocks/" in name for name in moved)
    assert "denoiser/branch/blocks/block/cross_attn/q/kernel" in moved
    share = sum(leaf.size for leaf in jax.tree.leaves(momentum))
    assert share > 0.97 * sum(leaf.size for leaf in jax.tree.leaves(params))
    with pytest.raises(ValueError, match="optimizer: got 'muon' .* use 'adamw'"):
        make_optimizer(StageConfig(optimizer="muon"), {"dense": {"kernel": jnp.ones((2, 2))}})


def test_an_optimizer_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match="'optimizer' is 'adamv', .*'adamw'.*did you mean 'adamw'"):
        from_dict(StageConfig, {"optimizer": "adamv"})


def at(params, path):
    for name in path.split("/"):
        params = params[name]
    return np.asarray(params)
