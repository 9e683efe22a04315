"""The UniPC solver and its noise levels against `UniPCMultistepScheduler`.

The release starts at a level of 0.999 before the shift, as `schedule` does; Diffusers starts at 1
unless it is given the levels. Both starts are compared.
"""

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from diffusers import UniPCMultistepScheduler  # noqa: E402

from mirage_jax.diffusion.solvers import Schedule, sample_path, schedule  # noqa: E402


def states(scheduler: UniPCMultistepScheduler, x: np.ndarray, weight: float) -> np.ndarray:
    """Follow a velocity field that bends with state and time."""
    state, path = torch.from_numpy(x), []
    for sigma, timestep in zip(scheduler.sigmas, scheduler.timesteps, strict=False):
        velocity = torch.tanh(weight * state + sigma)
        state = scheduler.step(velocity, timestep, state, return_dict=False)[0]
        path.append(state.numpy())
    return np.stack(path)


@pytest.mark.parametrize("start", ["release", "diffusers"])
def test_sigmas_and_every_state_equal_diffusers(random, start, compare):
    steps, shift = int(random.integers(1, 26)), float(random.uniform(1, 8))
    weight = float(random.uniform(0.2, 1.5))
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )
    ours, sizes = schedule(steps, shift), f"{steps=} {shift=:.2f}"
    if start == "release":
        even = np.linspace(0.999, 0, steps + 1)[:-1]
        scheduler.set_timesteps(sigmas=even)
        compare("sigmas", ours.sigmas, scheduler.sigmas.numpy(), sizes, within=1e-6)
        compare("timesteps", np.floor(ours.timesteps), scheduler.timesteps.numpy(), sizes)
    else:
        scheduler.set_timesteps(steps)
        sigmas = scheduler.sigmas.numpy().astype(np.float64)
        ours = Schedule(sigmas, 1000 * sigmas[:-1])
    x = random.standard_normal((2, 5), np.float32)
    path = sample_path(lambda x, sigma, _: jnp.tanh(weight * x + sigma), jnp.asarray(x), ours)
    compare("states", path, states(scheduler, x, weight), sizes, within=1e-4)
