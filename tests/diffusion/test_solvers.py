"""Solvers against exact paths and their own order of convergence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirage_jax.diffusion import solvers


def noise(seed: int = 0, shape: tuple[int, ...] = (1, 3, 2, 2, 4)) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def test_sampling_ends_at_the_last_state_of_the_path():
    plan, start = solvers.schedule(4), noise()

    def velocity(x, sigma, timestep):
        return jnp.tanh(0.7 * x + timestep / 1000)

    path = solvers.sample_path(velocity, start, plan)
    np.testing.assert_array_equal(solvers.sample(velocity, start, plan), path[-1])


@pytest.mark.parametrize("solver", list(solvers.SOLVERS))
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_solvers_recover_the_exact_path_to_a_single_data_point(solver, steps):
    """With one data point the velocity is (x - data) / sigma and the path a straight line."""
    data, start = noise(1), noise(2)
    plan = solvers.schedule(steps, 3.0)
    first = plan.sigmas[0]
    path = solvers.sample_path(lambda x, s, _: (x - data) / s, start, plan, solver=solver)
    for state, sigma in zip(path, plan.sigmas[1:], strict=True):
        np.testing.assert_allclose(state, data + sigma / first * (start - data), atol=1e-5)


@pytest.mark.parametrize("solver", list(solvers.SOLVERS))
def test_solvers_start_from_pure_noise_without_nan(solver):
    plan = solvers.Schedule(np.linspace(1, 0, 6), np.linspace(1000, 200, 5))
    data = noise(1)
    out = solvers.sample(lambda x, s, _: (x - data) / s, noise(2), plan, solver=solver)
    np.testing.assert_allclose(out, data, atol=1e-5)


def gaussian_error(solver: str, steps: int) -> float:
    """Error at sigma 0.2 for data N(0, 0.5^2), whose exact path scales x by the marginal's std."""
    variance = 0.25

    def std(sigma):
        return ((1 - sigma) ** 2 * variance + sigma**2) ** 0.5

    def velocity(x, sigma, _):
        return x * (sigma - (1 - sigma) * variance) / std(sigma) ** 2

    sigmas = np.linspace(0.9, 0.2, steps + 1)
    with jax.enable_x64(True):
        start = jnp.ones((), jnp.float64)
        plan = solvers.Schedule(sigmas, sigmas[:-1] * 1000)
        out = solvers.sample(velocity, start, plan, solver=solver)
        return abs(float(out) - std(0.2) / std(0.9))


def test_unipc_converges_with_a_higher_order_than_euler():
    order = {
        solver: np.log2(gaussian_error(solver, 32) / gaussian_error(solver, 64))
        for solver in solvers.SOLVERS
    }
    assert order["euler"] == pytest.approx(1.0, abs=0.15)
    assert order["unipc"] > 1.8
    assert gaussian_error("unipc", 32) < 0.1 * gaussian_error("euler", 32)


@pytest.mark.parametrize("solver", list(solvers.SOLVERS))
def test_held_frames_reach_the_model_clean_and_leave_clean(solver):
    clean, start = noise(3), noise(4)
    plan = solvers.schedule(5)
    hold = solvers.hold_first_frames(clean, 1)

    def velocity(x, sigma, _):
        leak = jnp.abs(x[:, :1] - clean[:, :1]).max()  # 0 unless the model saw a noisy held frame
        return jnp.tanh(x) + 1e3 * leak

    path = solvers.sample_path(velocity, start, plan, solver=solver, hold=hold)
    for state in path:
        np.testing.assert_array_equal(state[:, :1], clean[:, :1])
    free = solvers.sample(lambda x, *_: jnp.tanh(x), start, plan, solver=solver)
    np.testing.assert_allclose(path[-1][:, 1:], free[:, 1:], atol=1e-6)


def test_model_sees_the_timesteps_of_the_schedule_in_order():
    plan = solvers.schedule(6, 5.0)
    seen = solvers.sample_path(
        lambda x, sigma, timestep: jnp.full_like(x, timestep), jnp.zeros(()), plan, solver="euler"
    )
    steps = np.diff(np.concatenate([[0.0], seen])) / np.diff(plan.sigmas)
    np.testing.assert_allclose(steps, plan.timesteps, rtol=1e-4)


def test_sampling_traces_the_model_once_and_works_under_jit_and_grad():
    traces = []

    def velocity(x, sigma, _):
        traces.append(x.shape)
        return jnp.tanh(x)

    plan = solvers.schedule(9)
    run = jax.jit(lambda x: solvers.sample(velocity, x, plan).sum())
    assert jnp.isfinite(run(noise()))
    assert len(traces) == 1
    assert jnp.isfinite(jax.grad(run)(noise())).all()


def test_sample_keeps_the_type_of_its_input():
    out = solvers.sample(lambda x, *_: x, noise().astype(jnp.bfloat16), solvers.schedule(3))
    assert out.dtype == jnp.bfloat16


def test_wrong_solver_and_malformed_schedules_are_named():
    plan = solvers.schedule(3)
    with pytest.raises(ValueError, match=r"Solver.*heun.*unipc"):
        solvers.sample(lambda x, *_: x, noise(), plan, solver="heun")
    with pytest.raises(ValueError, match="strictly falling"):
        solvers.sample(lambda x, *_: x, noise(), plan._replace(sigmas=plan.sigmas[::-1]))
    with pytest.raises(ValueError, match=r"timesteps.*\(3,\)"):
        solvers.sample(lambda x, *_: x, noise(), plan._replace(timesteps=plan.timesteps[:2]))
    with pytest.raises(ValueError, match="steps"):
        solvers.schedule(0)
