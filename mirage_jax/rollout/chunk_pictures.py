"""Pictures of each chunk's latent frames, decoded before they are written, for models that look.

The frames are those of the video: the codec's state is carried on from chunk to chunk, or each
chunk decoded alone, as `chunk.decode` says. A latent frame stands for the last of its video frames.
Read next: `depths.py` (models of depth), `masks.py` (models of what moves).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from mirage_jax.rollout.decode import FrameStream
from mirage_jax.rollout.plan import PlannedChunk
from mirage_jax.rollout.world import World, WorldSpec


class Pictures(NamedTuple):
    """What the new latent frames of a chunk show.

    Attributes:
        new: which of the chunk's latent frames they are.
        numbers: of their video frames in the rollout.
        frames: the pictures.
    """

    new: slice
    numbers: np.ndarray
    frames: UInt8[np.ndarray, "b n H W 3"]


class ChunkPictures:
    """Decodes chunk after chunk, each once however many ask."""

    def __init__(self, world: World, latents: Float[Any, "b l h w c"]) -> None:
        """Begin with the latents of the state that the rollout starts or goes on from."""
        self._world, self._stream = world, FrameStream(world)
        self._alone = world.spec.chunk.decode == "alone"
        self._last: tuple[int, Pictures] | None = None
        # Decoded when the first chunk is asked for, if ever.
        self._before = latents if latents.shape[1] > 1 and not self._alone else None

    @property
    def world(self) -> World:
        """Whose codec is used."""
        return self._world

    def of(self, chunk: PlannedChunk, latents: Float[Any, "b t h w c"]) -> Pictures:
        """Return the pictures of a chunk; chunks come in order."""
        if self._last is None or self._last[0] != chunk.index:
            self._last = chunk.index, self._decoded(chunk, latents)
        return self._last[1]

    def _decoded(self, chunk: PlannedChunk, latents: Any) -> Pictures:
        spec = self._world.spec
        if self._before is not None:
            self._stream.frames(self._before)
            self._before = None
        stride, old = spec.chunk.temporal_stride, min(chunk.index, 1)
        if self._alone:
            made = FrameStream(self._world).frames(latents[:, : chunk.latent_frames])
            frames = made[:, ::stride][:, old:]
        else:
            made = self._stream.frames(latents[:, old : chunk.latent_frames])
            frames = made[:, (stride - 1) * old :: stride]
        numbers = last_frames(spec, chunk, chunk.latent_frames, chunk.stop)[old:]
        return Pictures(slice(old, chunk.latent_frames), numbers, frames)


def last_frames(spec: WorldSpec, chunk: PlannedChunk, count: int, frames: int) -> np.ndarray:
    """Return the video frame of each latent frame of a chunk."""
    last = (chunk.first_latent + np.arange(count)) * spec.chunk.temporal_stride
    return np.minimum(last, frames - 1)
