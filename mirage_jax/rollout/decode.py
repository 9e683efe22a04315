"""Latents of a rollout to video frames.

The autoencoder of released weights is decoded latent by latent with carried state, in bounded
memory. The small codec is decoded at once; long rollouts in windows of equal size with some latents
of context before each, which bounds memory and compiles once; it is causal, so context as long as
its reach gives the same frames.
Read next: `mirage_jax/rollout/outputs.py`.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8

from mirage_jax.models import functional
from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.rollout.plan import plan_chunks
from mirage_jax.rollout.world import World

# Latent frames decoded at once, and how many of them only warm up the codec's causal layers.
WINDOW = 36
CONTEXT = 12


def decode_latents(
    world: World, latents: Float[Any, "b l h w c"], *, window: int = WINDOW, context: int = CONTEXT
) -> UInt8[np.ndarray, "b f H W 3"]:
    """Decode latent frames to pictures, chunk by chunk where `chunk.decode` wants each alone.

    Args:
        world: its codec is used.
        latents: the whole rollout, frame 0 that of the start picture.
        window: latent frames decoded at once.
        context: latent frames of a later window that are decoded only to be thrown away.

    Returns:
        1 + stride * (l - 1) frames.
    """
    if world.spec.chunk.decode == "carried":
        return _decode_clip(world, latents, window, context)
    frames = 1 + (latents.shape[1] - 1) * world.spec.chunk.temporal_stride
    parts = []
    for chunk in plan_chunks(frames, world.spec.chunk) if latents.shape[1] > 1 else ():
        place = slice(chunk.first_latent, chunk.first_latent + chunk.latent_frames)
        clip = _decode_clip(world, latents[:, place], window, context)
        parts.append(clip[:, min(chunk.index, 1) :])
    return np.concatenate(parts, axis=1) if parts else _decode_clip(world, latents, window, context)


def _decode_clip(world: World, latents: Any, window: int, context: int) -> np.ndarray:
    """Decode latent frames as one clip."""
    if isinstance(world.spec.codec, AutoencoderConfig):
        return FrameStream(world).frames(latents)
    decode = decoder(world.spec.codec)
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


class FrameStream:
    """Decodes a rollout piece by piece; the frames are those of the whole decoded at once."""

    def __init__(self, world: World) -> None:
        """Start before the first latent frame."""
        self._world = world
        self._past: Any = None

    def frames(self, latents: Float[Any, "b n h w c"]) -> UInt8[np.ndarray, "b f H W 3"]:
        """Decode the next latent frames.

        Args:
            latents: n frames that follow those of the calls before.

        Returns:
            Their video frames: one for the very first latent frame, `temporal_stride` for others.
        """
        codec, params = self._world.spec.codec, self._world.params["codec"]
        if isinstance(codec, AutoencoderConfig):
            parts = []
            for i in range(latents.shape[1]):
                piece, self._past = piece_decoder(codec)(params, latents[:, i : i + 1], self._past)
                parts.append(to_uint8(piece))
            return np.concatenate(parts, axis=1)
        # The small codec reaches back a few latent frames only, which are decoded once more.
        before = latents[:, :0] if self._past is None else self._past
        joined = np.concatenate([np.asarray(before), np.asarray(latents)], axis=1)
        made = to_uint8(decoder(codec)(params, joined))
        self._past = joined[:, -CONTEXT:]
        new = latents.shape[1] * codec.temporal_stride
        return made if before.shape[1] == 0 else made[:, -new:]


def encode_frames(world: World, frames: UInt8[Any, "b f H W 3"]) -> Float[np.ndarray, "b l h w c"]:
    """Encode pictures to latents; the number of frames must be 1 + stride * n."""
    video = np.asarray(frames, np.float32) / 127.5 - 1.0
    return np.asarray(_encoder(world.spec.codec)(world.params["codec"], video))


def reconstruct(world: World, frames: UInt8[Any, "b f H W 3"]) -> UInt8[np.ndarray, "b f H W 3"]:
    """Encode and decode pictures: the ceiling that the codec sets to anything generated."""
    return _decode_clip(world, encode_frames(world, frames), WINDOW, CONTEXT)


def to_uint8(video: Float[Any, "*f H W 3"]) -> UInt8[np.ndarray, "*f H W 3"]:
    """Turn values in [-1, 1] into uint8, rounding to nearest and cutting what lies outside."""
    return np.clip(np.round((np.asarray(video, np.float32) + 1.0) * 127.5), 0, 255).astype(np.uint8)


@functools.lru_cache(maxsize=8)
def decoder(codec: Any) -> Any:
    """Return the jitted function (params, latents) -> frames of a codec that decodes at once."""
    return jax.jit(
        lambda params, latents: functional.apply(codec, params, latents, method="decode")
    )


@functools.lru_cache(maxsize=8)
def piece_decoder(codec: AutoencoderConfig) -> Any:
    """Return the jitted function (params, latents, past) -> (frames, past) of an autoencoder.

    The past is used up: that of the next piece takes its place.
    """
    return jax.jit(
        lambda params, latents, past: functional.apply(
            codec, params, latents, past, method="decode_piece"
        ),
        donate_argnums=2,
    )


@functools.lru_cache(maxsize=8)
def _encoder(codec: Any) -> Any:
    return jax.jit(lambda params, video: functional.apply(codec, params, video, method="encode"))
