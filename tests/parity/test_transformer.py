"""The denoiser against `WanTransformer3DModel` and `WanVACETransformer3DModel`.

Diffusers knows neither references nor preceding frames, and its VACE model takes one timestep a
clip, adds its hints to all tokens and masks nothing; with those restrictions both are the same
function. Frames with a timestep of their own are compared through the path it has for TI2V-5B, a
timestep for each token.
"""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from mirage_jax.models import functional  # noqa: E402
from mirage_jax.models.convert import denoiser_to_release  # noqa: E402
from mirage_jax.models.denoiser import DenoiserConfig, FrameLayout  # noqa: E402
from tests.parity.counterparts import (  # noqa: E402
    Pair,
    denoiser_pair,
    relative_error,
    to_ours,
    to_theirs,
)


def drawn_config(random: np.random.Generator, *, branch: bool) -> DenoiserConfig:
    heads = int(random.integers(1, 4))
    layers = int(random.integers(2, 5))
    later = [i for i in range(1, layers) if random.random() < 0.5]
    channels = int(random.integers(3, 9))
    return DenoiserConfig(
        latent_channels=channels,
        out_channels=channels,
        width=heads * 2 * int(random.integers(3, 17)),
        heads=heads,
        layers=layers,
        mlp_width=int(random.integers(16, 80)),
        text_width=int(random.integers(8, 40)),
        time_frequencies=2 * int(random.integers(8, 64)),
        branch_layers=(0, *later) if branch else (),
        condition_channels=int(random.integers(2, 12)) if branch else 0,
    )


def drawn_inputs(random, config: DenoiserConfig):
    """Return latents, text and condition of one random clip size."""
    batch, frames = random.integers(1, 3), random.integers(1, 6)
    height, width = 2 * random.integers(1, 6, size=2)
    shape = (batch, frames, height, width)
    x = random.standard_normal((*shape, config.latent_channels), np.float32)
    text = random.standard_normal((batch, random.integers(1, 9), config.text_width), np.float32)
    condition = random.standard_normal((*shape, config.condition_channels), np.float32)
    return x, text, condition


def ours(pair: Pair, x, timestep, condition, text):
    frames = FrameLayout(0, x.shape[1], 0)
    run = jax.jit(lambda *inputs: functional.apply(pair.config, *inputs, frames))
    return run(pair.params, x, timestep, condition, text)


def theirs(pair: Pair, x, timestep, text, **extra):
    with torch.no_grad():
        out = pair.theirs(to_theirs(x), torch.from_numpy(timestep), torch.from_numpy(text), **extra)
    return to_ours(out.sample)


def test_transformer_equals_diffusers_with_one_timestep_a_clip(random, compare):
    config = drawn_config(random, branch=False)
    pair = denoiser_pair(config)
    x, text, _ = drawn_inputs(random, config)
    timestep = random.integers(0, 1000, len(x)).astype(np.float32)
    each_frame = np.repeat(timestep[:, None], x.shape[1], axis=1)
    got = ours(pair, x, each_frame, None, text)
    compare("velocity", got, theirs(pair, x, timestep, text), x.shape, config)


def test_transformer_equals_diffusers_with_a_timestep_for_each_frame(random, compare):
    config = drawn_config(random, branch=False)
    pair = denoiser_pair(config)
    x, text, _ = drawn_inputs(random, config)
    timestep = random.uniform(0, 1000, x.shape[:2]).astype(np.float32)
    timestep[:, 0] = 0
    each_token = np.repeat(timestep, x.shape[2] * x.shape[3] // 4, axis=1)
    got = ours(pair, x, timestep, None, text)
    compare("velocity", got, theirs(pair, x, each_token, text), x.shape, config)


def test_memory_branch_equals_the_vace_model_of_diffusers(random, compare):
    config = drawn_config(random, branch=True)
    pair = denoiser_pair(config)
    x, text, condition = drawn_inputs(random, config)
    timestep = random.integers(0, 1000, len(x)).astype(np.float32)
    each_frame = np.repeat(timestep[:, None], x.shape[1], axis=1)
    got = ours(pair, x, each_frame, condition, text)
    expected = theirs(pair, x, timestep, text, control_hidden_states=to_theirs(condition))
    compare("velocity", got, expected, x.shape, config)


def test_gradients_of_all_weights_equal_those_of_diffusers(random, compare):
    config = drawn_config(random, branch=False)
    pair = denoiser_pair(config)
    x, text, _ = drawn_inputs(random, config)
    timestep = random.integers(0, 1000, len(x)).astype(np.float32)
    each_frame = np.repeat(timestep[:, None], x.shape[1], axis=1)
    frames = FrameLayout(0, x.shape[1], 0)

    def loss(params):
        out = functional.apply(config, params, x, each_frame, None, text, frames)
        return (out**2).mean()

    got = denoiser_to_release(jax.jit(jax.grad(loss))(pair.params), config, layout="diffusers")
    out = pair.theirs(to_theirs(x), torch.from_numpy(timestep), torch.from_numpy(text)).sample
    (out**2).mean().backward()
    expected = {name: weight.grad.numpy() for name, weight in pair.theirs.named_parameters()}
    worst = max(expected, key=lambda name: relative_error(got[name], expected[name]))
    assert got.keys() == expected.keys()
    compare(f"gradient of {worst}", got[worst], expected[worst], x.shape, config, within=1e-4)
