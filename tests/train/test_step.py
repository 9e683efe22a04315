"""The update: compiled once, guarded against bad numbers, and sparing what is frozen."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirage_jax.train.optimizer import frozen_mask, learning_rate, make_optimizer
from mirage_jax.train.stage_config import DenoiserStageConfig, StageConfig
from mirage_jax.train.state import new_state
from mirage_jax.train.step import ROW_LOSSES, make_step

STAGE = StageConfig(steps=20, batch=1, learning_rate=0.1, warmup_steps=2, weight_decay=0.1)


def loss(params, fixed, batch, keys):
    del fixed, keys
    error = batch["x"] @ params["dense"]["kernel"].T + params["dense"]["bias"] - 1.0
    return jnp.mean(jnp.square(error), axis=1), {"seen": jnp.sum(batch["x"])}


def start(stage=STAGE):
    params = {"dense": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(3)}, "rest": jnp.ones((2, 2))}
    optimizer = make_optimizer(stage, params)
    state = jax.device_put(new_state(params, optimizer), jax.devices()[0])
    return state, make_step(loss, optimizer, stage, seed=0)


def test_the_step_is_compiled_once_for_all_steps():
    state, step = start()
    for value in range(3):
        state, _ = step(state, {}, {"x": np.full((1, 2), value, np.float32)})
    assert step._cache_size() == 1
    assert int(state.step) == 3


def noisy_loss(params, fixed, batch, keys):
    """A loss with draws of its own and an array without rows."""
    draws = jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys)
    return loss(params, fixed, {"x": batch["x"] + draws * batch["scale"]}, keys)


@pytest.mark.parametrize("count", [2, 3, 6])
def test_micro_batches_give_the_update_of_the_whole_batch(count):
    rng = np.random.default_rng(count)
    x = rng.normal(size=(3, 6, 2)).astype(np.float32)
    outcome = {}
    for accumulate in (1, count):
        stage = dataclasses.replace(STAGE, batch=6, accumulate=accumulate)
        state, _ = start(stage)
        optimizer = make_optimizer(stage, state.params)
        step = make_step(noisy_loss, optimizer, stage, seed=0, shared=["scale"])
        for rows in x:
            state, metrics = step(state, {}, {"x": rows, "scale": np.full(2, 0.1, np.float32)})
        outcome[accumulate] = jax.tree.map(np.asarray, (state, metrics))
        assert step._cache_size() == 1
    (whole, told), (parts, told_by_parts) = outcome.values()
    assert np.abs(told[ROW_LOSSES] - told[ROW_LOSSES].mean()).min() > 1e-3  # rows do differ
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), whole, parts)
    del told["seen"], told_by_parts["seen"]  # a sum over rows, of which the mean is reported
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), told, told_by_parts)


def test_micro_batches_take_less_memory():
    def wide(params, fixed, batch, keys):
        hidden = jnp.tanh(batch["x"] @ params["up"])
        return jnp.mean(jnp.square(jnp.sin(hidden) @ params["up"].T), axis=1), {}

    shapes = {"up": jax.ShapeDtypeStruct((4, 1024), jnp.float32)}
    batch = {"x": jax.ShapeDtypeStruct((256, 4), jnp.float32)}
    needed = {}
    for accumulate in (1, 8):
        stage = StageConfig(batch=256, accumulate=accumulate)
        optimizer = make_optimizer(stage, shapes)
        state = jax.eval_shape(lambda p, o=optimizer: new_state(p, o), shapes)
        compiled = make_step(wide, optimizer, stage, seed=0).lower(state, {}, batch).compile()
        needed[accumulate] = compiled.memory_analysis().temp_size_in_bytes
    assert needed[8] < needed[1] / 4, needed


def test_micro_batches_that_would_differ_are_refused():
    with pytest.raises(ValueError, match="accumulate: got 4 micro-batches of a batch of 6"):
        StageConfig(batch=6, accumulate=4)
    with pytest.raises(ValueError, match="batch of 8 with 2 first chunks.*first_fraction"):
        DenoiserStageConfig(batch=8, accumulate=4)
    assert DenoiserStageConfig(batch=8, accumulate=2).accumulate == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_update_that_is_not_finite_changes_nothing_but_the_step_and_is_reported(bad):
    state, step = start()
    state, _ = step(state, {}, {"x": np.ones((1, 2), np.float32)})
    before = jax.tree.map(np.array, state)
    state, metrics = step(state, {}, {"x": np.array([[1.0, bad]], np.float32)})
    assert float(metrics["skipped"]) == 1.0
    assert int(state.step) == 2
    for a, b in zip(jax.tree.leaves(before[1:]), jax.tree.leaves(state[1:]), strict=True):
        np.testing.assert_array_equal(a, np.asarray(b))


def test_frozen_parameters_do_not_move_and_have_no_moments():
    stage = StageConfig(steps=20, batch=1, learning_rate=0.1, frozen=("dense/k*", "rest"))
    state, step = start(stage)
    before = jax.tree.map(np.array, state.params)
    for _ in range(4):
        state, _ = step(state, {}, {"x": np.ones((1, 2), np.float32)})
    np.testing.assert_array_equal(before["dense"]["kernel"], state.params["dense"]["kernel"])
    np.testing.assert_array_equal(before["rest"], state.params["rest"])
    assert np.abs(np.asarray(state.params["dense"]["bias"])).min() > 0
    moments = [leaf.shape for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert set(moments) == {(3,)}


def test_a_frozen_pattern_that_matches_nothing_is_refused():
    with pytest.raises(ValueError, match="'kernle'.*dense/bias"):
        frozen_mask({"dense": {"bias": jnp.zeros(1)}}, ("kernle",))


def test_weight_decay_shrinks_matrices_without_gradient_and_leaves_vectors():
    state, step = start()
    state, _ = step(state, {}, {"x": np.zeros((1, 2), np.float32)})
    assert np.all(np.asarray(state.params["rest"]) < 1.0)
    still = {"dense": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(3)}}
    direction, _ = make_optimizer(STAGE, still).update(
        jax.tree.map(jnp.zeros_like, still), make_optimizer(STAGE, still).init(still), still
    )
    np.testing.assert_array_equal(direction["dense"]["bias"], np.zeros(3))


def test_the_learning_rate_rises_to_its_peak_and_falls_to_its_floor():
    stage = StageConfig(steps=100, learning_rate=2.0, warmup_steps=10, final_fraction=0.1)
    rates = np.array([learning_rate(stage, jnp.asarray(n)) for n in range(101)])
    assert np.all(np.diff(rates[:10]) > 0)
    assert np.all(np.diff(rates[10:]) <= 0)
    assert rates.max() == pytest.approx(2.0)
    assert rates[100] == pytest.approx(0.2)


def test_the_average_follows_at_once_in_the_beginning_and_slowly_later():
    stage = StageConfig(steps=500, learning_rate=0.01, warmup_steps=1, ema_decay=0.5)
    state, step = start(stage)
    batch = {"x": np.ones((1, 2), np.float32)}
    state, _ = step(state, {}, batch)
    first = np.asarray(state.ema["dense"]["bias"])
    np.testing.assert_allclose(first, 0.9 * np.asarray(state.params["dense"]["bias"]), rtol=1e-5)
    for _ in range(20):
        before = np.array(state.ema["dense"]["bias"])
        state, _ = step(state, {}, batch)
    half = (before + np.asarray(state.params["dense"]["bias"])) / 2
    np.testing.assert_allclose(np.asarray(state.ema["dense"]["bias"]), half, rtol=1e-5)
