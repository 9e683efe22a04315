"""Decoding the latents of one chunk, as a rollout does it: what is compiled, and its operations.

The autoencoder of released weights decodes latent by latent with carried state, so a chunk runs one
program several times; the small codec decodes the chunk's latents at once, after some that it has
decoded before. The first piece of a clip costs a little less than the others and is counted as one.

Read next: `mirage_jax/rollout/decode.py`, `steps.py`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mirage_jax.models import functional
from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.rollout import decode
from mirage_jax.train.config import WorldConfig


@dataclasses.dataclass(frozen=True)
class Decoding:
    """What decodes a later chunk of rollouts side by side.

    Attributes:
        program: jitted function of parameters and `arrays`.
        params: abstract parameters of the codec.
        arrays: abstract latents, and the carried state where there is one; all of them have rows.
        times: that it runs for a chunk.
    """

    program: Any
    params: Any
    arrays: tuple[Any, ...]
    times: int


def decoding(world: WorldConfig, rows: int) -> Decoding:
    """Describe how the latents of a later chunk of so many rollouts are decoded."""
    codec, chunk = world.codec, world.chunk
    params = functional.abstract_params(codec)
    carried = chunk.decode == "carried"
    # The first latent of a later chunk is the last of the one before, which is decoded already.
    new = chunk.latent_frames - (1 if carried else 0)
    if isinstance(codec, AutoencoderConfig):
        program, latents = decode.piece_decoder(codec), _latents(world, rows, 1)
        _, past = jax.eval_shape(lambda p, x: program(p, x, None), params, latents)
        return Decoding(program, params, (latents, past), new)
    before = decode.CONTEXT if carried else 0
    return Decoding(decode.decoder(codec), params, (_latents(world, rows, before + new),), 1)


def operations(world: WorldConfig) -> float:
    """Count the operations of decoding a later chunk, as the compiler counts them."""
    one = decoding(world, 1)
    counted = one.program.lower(one.params, *one.arrays).cost_analysis()
    return one.times * counted["flops"]


def _latents(world: WorldConfig, rows: int, frames: int) -> jax.ShapeDtypeStruct:
    shape = (rows, frames, *world.grid_hw, world.denoiser.latent_channels)
    return jax.ShapeDtypeStruct(shape, jnp.float32)
