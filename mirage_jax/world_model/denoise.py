"""From what memory shows to latents: the denoiser's inputs, its velocity, and sampling a chunk.

Read next: `mirage_jax/models/denoiser.py`, `mirage_jax/diffusion/solvers.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from mirage_jax.diffusion import solvers
from mirage_jax.diffusion.config import SamplingConfig
from mirage_jax.memory import features as feature_lib
from mirage_jax.models import functional
from mirage_jax.models.denoiser import FrameLayout
from mirage_jax.models.learned_read import exactness
from mirage_jax.world_model.look import Observation
from mirage_jax.world_model.parts import Params, WorldConfigLike

# Sigma below which dividing by it would only amplify rounding; the solver never asks for less but
# at its last step.
_SMALLEST_SIGMA = 1e-3


class ChunkInputs(NamedTuple):
    """What the denoiser is given of one chunk besides the noisy frames.

    Attributes:
        first: [b, h, w, c] clean latent of target frame 0.
        preceding: [b, p, h, w, c] clean latents right before it (p may be 0).
        condition: [b, T + p, h, w, channels] from `observe`, target frames first.
        base: [b, T, h, w, c] read at the target frames, the guess that is corrected.
        exact: [b, T, h, w] how nearly each cell is seen as it was stored, 0 to 1; a denoiser that
            predicts clean latents corrects the base only as far as this is below 1.
        text: [b, n, dt] text embeddings or None.
        negative: [b, n, dt] text embeddings that guidance leads away from, or None.
        references: [b, R, h, w, c] clean past latents that see the same place, best first, or None.
    """

    first: Float[Array, "b h w c"]
    preceding: Float[Array, "b p h w c"]
    condition: Float[Array, "b tp h w cc"]
    base: Float[Array, "b t h w c"]
    exact: Float[Array, "b t h w"]
    text: Any = None
    negative: Any = None
    references: Any = None


def chunk_inputs(
    first, preceding, observation: Observation, text=None, negative=None, references=None
) -> ChunkInputs:
    """Bundle the clean latents and the observation of a chunk.

    Target frame 0 of the base is the clean one.
    """
    targets = observation.base.shape[1] - preceding.shape[1]
    base = observation.base[:, :targets].at[:, 0].set(first)
    exact = exactness(feature_lib.read_features(observation.read))[:, :targets]
    condition = observation.condition
    return ChunkInputs(first, preceding, condition, base, exact, text, negative, references)


def predict_velocity(
    config: WorldConfigLike,
    params: Params,
    noisy: Float[Array, "b t h w c"],
    sigma: Float[Array, "b t"],
    inputs: ChunkInputs,
    timestep: Float[Array, "b t"] | None = None,
) -> Float[Array, "b t h w c"]:
    """Return the flow velocity (noise minus clean) of the target frames.

    Target frame 0, the preceding and the reference frames are clean: their noise level is 0
    whatever `sigma` says, and the returned velocity of frame 0 is 0.

    Args:
        config: see `WorldConfigLike`.
        params: parameters of the models.
        noisy: target frames at noise level sigma; frame 0 is replaced by the clean one.
        sigma: noise level of each target frame in [0, 1].
        inputs: the clean frames and the condition.
        timestep: what the denoiser is told of each target frame's noise level; None: 1000 sigma.

    Returns:
        The velocity; the clean estimate is `noisy - sigma * velocity`.
    """
    batch, targets = noisy.shape[:2]
    preceding = inputs.preceding.shape[1]
    noisy = noisy.at[:, 0].set(inputs.first)
    sigma = sigma.at[:, 0].set(0.0)
    told = 1000.0 * sigma if timestep is None else timestep.at[:, 0].set(0.0)
    frames = [noisy, inputs.preceding.astype(noisy.dtype)]
    timesteps = [told, jnp.zeros((batch, preceding), sigma.dtype)]
    references = 0 if inputs.references is None else inputs.references.shape[1]
    if references:
        frames.insert(0, inputs.references.astype(noisy.dtype))
        timesteps.insert(0, jnp.zeros((batch, references), sigma.dtype))
    clean = config.denoiser.prediction == "clean"
    out = functional.apply(
        config.denoiser,
        params["denoiser"],
        jnp.concatenate(frames, axis=1),
        jnp.concatenate(timesteps, axis=1),
        inputs.condition,
        inputs.text,
        FrameLayout(references=references, target=targets, preceding=preceding),
        base=inputs.base if clean else None,
    )
    if clean:
        out = out + inputs.exact[..., None] * (inputs.base - out)
        out = (noisy - out) / jnp.maximum(sigma, _SMALLEST_SIGMA)[:, :, None, None, None]
    return out.at[:, 0].set(0.0)


def sample_chunk(
    config: WorldConfigLike,
    params: Params,
    inputs: ChunkInputs,
    noise: Float[Array, "b t h w c"],
    sampling: SamplingConfig,
) -> Float[Array, "b t h w c"]:
    """Denoise the target frames of a chunk from noise.

    Frame 0 is held clean before and after every solver step. With guidance g the velocity is
    u + g (v - u), where v is that of the text and u that of the negative text.

    Raises:
        ValueError: guidance without a negative text.
    """
    guided = sampling.guidance != 1.0
    if guided and inputs.negative is None:
        raise ValueError(
            f"sampling.guidance: got {sampling.guidance} without a negative text, expected its "
            "embeddings; give those of the empty prompt, or set guidance to 1.0"
        )

    def velocity(noisy, sigma, timestep):
        levels = jnp.broadcast_to(jnp.asarray(sigma, noisy.dtype), noisy.shape[:2])
        told = None  # predict_velocity derives it per frame
        if sampling.integer_timesteps:
            told = jnp.broadcast_to(jnp.asarray(timestep, noisy.dtype), noisy.shape[:2])
        wanted = predict_velocity(config, params, noisy, levels, inputs, told)
        if not guided:
            return wanted
        away = inputs._replace(text=inputs.negative)
        unwanted = predict_velocity(config, params, noisy, levels, away, told)
        return unwanted + sampling.guidance * (wanted - unwanted)

    plan = solvers.schedule(
        sampling.steps, sampling.shift, integer_timesteps=sampling.integer_timesteps
    )
    is_first = (jnp.arange(noise.shape[1]) == 0)[None, :, None, None, None]
    hold = solvers.Hold(mask=is_first, value=inputs.first[:, None])
    return solvers.sample(velocity, noise, plan, solver=sampling.solver, hold=hold)
