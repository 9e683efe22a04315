"""Latents of a rollout to video frames.

Short rollouts are decoded at once. Long ones are decoded in windows of equal size with some latents
of context before each, which bounds memory and compiles once; the codec is causal, so context as
long as its reach gives the same frames.
Read next: `mirage_jax/rollout/outputs.py`.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8

from mirage_jax.models import functional
from mirage_jax.rollout.world import World

# Latent frames decoded at once, and how many of them only warm up the codec's causal layers.
WINDOW = 36
CONTEXT = 12


def decode_latents(
    world: World, latents: Float[Any, "b l h w c"], *, window: int = WINDOW, context: int = CONTEXT
) -> UInt8[np.ndarray, "b f H W 3"]:
    """Decode latent frames to pictures.

    Args:
        world: its codec is used.
        latents: the whole rollout, frame 0 that of the start picture.
        window: latent frames decoded at once.
        context: latent frames of a later window that are decoded only to be thrown away.

    Returns:
        1 + stride * (l - 1) frames.
    """
    decode = _decoder(world.spec.codec)
    params, count = world.params["codec"], latents.shape[1]
    parts = [to_uint8(decode(params, latents[:, : min(window, count)]))]
    stop = window
    while stop < count:
        # The last window is moved back instead of cut short: one shape, one compilation.
        stop_next = min(count, stop + window - context)
        frames = to_uint8(decode(params, latents[:, stop_next - window : stop_next]))
        new = (stop_next - stop) * world.spec.chunk.temporal_stride
        parts.append(frames[:, -new:])
        stop = stop_next
    return np.concatenate(parts, axis=1)


def encode_frames(world: World, frames: UInt8[Any, "b f H W 3"]) -> Float[np.ndarray, "b l h w c"]:
    """Encode pictures to latents; the number of frames must be 1 + stride * n."""
    video = np.asarray(frames, np.float32) / 127.5 - 1.0
    return np.asarray(_encoder(world.spec.codec)(world.params["codec"], video))


def reconstruct(world: World, frames: UInt8[Any, "b f H W 3"]) -> UInt8[np.ndarray, "b f H W 3"]:
    """Encode and decode pictures: the ceiling that the codec sets to anything generated."""
    return decode_latents(world, encode_frames(world, frames))


def to_uint8(video: Float[Any, "*f H W 3"]) -> UInt8[np.ndarray, "*f H W 3"]:
    """Turn values in [-1, 1] into uint8, rounding to nearest and cutting what lies outside."""
    return np.clip(np.round((np.asarray(video, np.float32) + 1.0) * 127.5), 0, 255).astype(np.uint8)


@functools.lru_cache(maxsize=8)
def _decoder(codec: Any) -> Any:
    return jax.jit(
        lambda params, latents: functional.apply(codec, params, latents, method="decode")
    )


@functools.lru_cache(maxsize=8)
def _encoder(codec: Any) -> Any:
    return jax.jit(lambda params, video: functional.apply(codec, params, video, method="encode"))
