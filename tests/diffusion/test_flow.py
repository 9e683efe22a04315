"""Noising, targets, draws of noise levels and the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirage_jax.diffusion import flow


def latents(seed: int, shape: tuple[int, ...] = (2, 3, 4, 5, 6)) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def test_loss_leaves_the_clean_frame_out():
    prediction, target = latents(0), latents(1)
    mask = flow.noised_frames(2, 3, config=flow.FlowConfig())
    loss = flow.flow_loss(prediction, target, mask)
    spoiled = prediction.at[:, 0].add(100.0)
    np.testing.assert_allclose(flow.flow_loss(spoiled, target, mask), loss, rtol=1e-6)
    expected = np.square(np.asarray(prediction - target))[:, 1:].mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_loss_is_zero_and_finite_when_no_frame_counts():
    x = latents(0)
    loss = flow.flow_loss(x, x + 1, jnp.zeros((2, 3), bool))
    assert float(loss) == 0.0


def test_target_is_the_derivative_of_the_noising_path():
    x, noise, step = latents(0), latents(1), 1e-2
    later, sooner = (flow.add_noise(x, noise, 0.5 + s) for s in (step, -step))
    slope = (later - sooner) / (2 * step)
    np.testing.assert_allclose(slope, flow.velocity_target(x, noise), atol=1e-4)


def test_clean_prediction_and_velocity_convert_back_and_forth():
    x, noise = latents(0), latents(1)
    sigma = jnp.asarray([[0.1, 0.5, 1.0], [0.03, 0.7, 0.9]])
    noisy = flow.add_noise(x, noise, sigma)
    velocity = flow.velocity_from_clean(x, noisy, sigma)
    np.testing.assert_allclose(velocity, flow.velocity_target(x, noise), rtol=1e-3, atol=1e-4)
    back = flow.clean_from_velocity(velocity, noisy, sigma)
    np.testing.assert_allclose(back, x, atol=1e-5)


def test_velocity_from_a_clean_prediction_stays_bounded_at_sigma_zero():
    x, noisy = latents(0), latents(1)
    sigma = jnp.zeros((2, 3))
    velocity = flow.velocity_from_clean(x, noisy, sigma, min_sigma=0.1)
    np.testing.assert_allclose(velocity, (noisy - x) / 0.1, rtol=1e-5)
    slope = jax.grad(lambda s: flow.velocity_from_clean(x, noisy, s).sum())(sigma)
    assert bool(jnp.isfinite(slope).all())


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
def test_shift_keeps_the_ends_and_the_order(shift):
    u = np.linspace(0, 1, 101)
    sigma = flow.shift_sigma(u, shift)
    np.testing.assert_allclose(sigma[[0, -1]], [0, 1])
    assert (np.diff(sigma) > 0).all()
    assert (sigma >= u - 1e-12).all()


def test_drawn_levels_are_independent_per_frame_and_clean_where_asked():
    config = flow.FlowConfig(shift=1.0, clean_frames=1)
    sigma = np.asarray(flow.draw_sigma(jax.random.key(0), 4000, 3, config=config))
    assert (sigma[:, 0] == 0).all()
    free = sigma[:, 1:]
    np.testing.assert_allclose(free.mean(0), 0.5, atol=0.03)
    np.testing.assert_allclose(free.std(0), np.sqrt(1 / 12), atol=0.02)
    assert abs(np.corrcoef(free.T)[0, 1]) < 0.06


def test_shared_fraction_of_clips_use_one_level_for_all_frames():
    config = flow.FlowConfig(shared_fraction=0.25, clean_frames=0)
    sigma = np.asarray(flow.draw_sigma(jax.random.key(1), 4000, 4, config=config))
    assert (sigma.max(1) == sigma.min(1)).mean() == pytest.approx(0.25, abs=0.03)


def test_logit_normal_levels_crowd_the_middle():
    config = flow.FlowConfig(shift=1.0, distribution="logit_normal", clean_frames=0)
    sigma = np.asarray(flow.draw_sigma(jax.random.key(2), 4000, 1, config=config))
    # A standard normal lies within log(3) of 0, hence sigma in [1/4, 3/4], with p = 0.728.
    assert ((sigma > 0.25) & (sigma < 0.75)).mean() == pytest.approx(0.728, abs=0.03)


def test_bell_weight_has_mean_one_and_peaks_in_the_middle():
    sigma = jnp.linspace(0, 1, 2001)
    weight = np.asarray(flow.loss_weight(sigma, "bell"))
    assert weight.mean() == pytest.approx(1, abs=2e-3)
    assert weight.argmax() == 1000
    assert weight.min() >= 0
    assert (flow.loss_weight(sigma, "uniform") == 1).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shift", 0.0),
        ("distribution", "normal"),
        ("weighting", "none"),
        ("clean_frames", -1),
        ("shared_fraction", 1.5),
    ],
)
def test_config_names_the_wrong_field(field, value):
    with pytest.raises(ValueError, match=field):
        flow.FlowConfig(**{field: value})
