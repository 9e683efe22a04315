"""Noising, loss and solver states against the release's."""

import re
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from mirage_jax.diffusion import flow, solvers
from tests.golden.case import Line, relative_error, within
from tests.golden.release_files import arrays, channel_last

LIMIT = 1e-4
# The shift of noise levels that the release trains with; `flow_loss.npz` does not state it.
_TRAINING_SHIFT = 5.0


def flow_loss(directory: Path) -> Iterator[Line]:
    """Compare noise levels, timesteps, noised latents and the loss."""
    stored = arrays(directory, "flow_loss.npz")
    x, noise, noisy, prediction = (
        jnp.asarray(channel_last(stored[name])) for name in ("x", "noise", "noisy", "pred")
    )
    batch, frames = x.shape[:2]
    mask = flow.noised_frames(batch, frames, config=flow.FlowConfig())
    sigma = np.where(mask[0], flow.shift_sigma(stored["u"], _TRAINING_SHIFT), 0.0)
    got = {
        "sigma": (sigma, stored["sigma"]),
        "timestep": (flow.timestep_of(sigma), stored["timestep"]),
        "noisy": (flow.add_noise(x, noise, jnp.asarray(np.tile(sigma, (batch, 1)))), noisy),
        "loss": (flow.flow_loss(prediction, flow.velocity_target(x, noise), mask), stored["loss"]),
    }
    yield _worst("flow_loss", got)


def unipc(directory: Path) -> Iterator[Line]:
    """Compare noise levels, timesteps and every state of each stored run, `s<steps>_<shift>_*`."""
    stored = arrays(directory, "unipc.npz")
    got = {}
    for case in sorted({name.rsplit("_", 1)[0] for name in stored}):
        steps, shift = re.fullmatch(r"s(\d+)_([\d.]+)", case).groups()
        plan = solvers.schedule(int(steps), float(shift), integer_timesteps=True)
        drift = jnp.asarray(stored[f"{case}_a"])

        def velocity(x, sigma, timestep, drift=drift):
            return jnp.tanh(0.7 * x + drift * timestep / 1000)

        states = solvers.sample_path(velocity, jnp.asarray(stored[f"{case}_x0"]), plan)
        got[f"{case} sigmas"] = plan.sigmas, stored[f"{case}_sigmas"]
        got[f"{case} timesteps"] = plan.timesteps, stored[f"{case}_t"]
        got[f"{case} states"] = states, stored[f"{case}_traj"]
    yield _worst("unipc", got)


def _worst(name: str, pairs: dict) -> Line:
    """Return one line for several arrays, naming the worst of them."""
    errors = {part: relative_error(*pair) for part, pair in pairs.items()}
    part = max(errors, key=errors.__getitem__)
    return within(name, errors[part], LIMIT, f"worst: {part}")
