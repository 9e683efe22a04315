"""Lay chunks end to end so that every video frame is made once.

The first chunk makes `chunk.video_frames` frames, each later one starts from the last generated
latent as its clean frame 0 and adds `chunk.new_frames`. Any number of frames is accepted and
rounded up to 1 + stride * n.
Read next: `mirage_jax/rollout/loop.py`.
"""

from __future__ import annotations

import dataclasses

from mirage_jax.models.config import ChunkConfig


@dataclasses.dataclass(frozen=True)
class PlannedChunk:
    """Where one chunk's frames go.

    Attributes:
        index: position in the rollout, from 0.
        start: first video frame it adds.
        stop: one past the last video frame it adds.
        model_frames: video frames of the chunk with the overlapping one: what the model is asked
            for.
        first_latent: latent frame of the rollout that is this chunk's clean frame 0.
        latent_frames: latent frames of the chunk, the clean one included.
    """

    index: int
    start: int
    stop: int
    model_frames: int
    first_latent: int
    latent_frames: int

    @property
    def new_latents(self) -> int:
        """Latent frames the chunk adds to the rollout."""
        return self.latent_frames if self.index == 0 else self.latent_frames - 1


def round_up_frames(frames: int, temporal_stride: int = 4) -> int:
    """Return the least 1 + stride * n, n >= 1, that is not below `frames`.

    Raises:
        ValueError: if `frames` is not positive.
    """
    if frames < 1:
        raise ValueError(f"frames: got {frames}, expected at least 1; ask for example for 49")
    return 1 + temporal_stride * max(1, -(-(frames - 1) // temporal_stride))


def plan_chunks(frames: int, chunk: ChunkConfig) -> tuple[PlannedChunk, ...]:
    """Plan the chunks of a rollout.

    Args:
        frames: video frames wanted; rounded up by `round_up_frames`.
        chunk: the model's chunk shape.

    Returns:
        The chunks in order; together they cover frames 0 .. rounded - 1 exactly once.
    """
    stride = chunk.temporal_stride
    total = round_up_frames(frames, stride)
    plan: list[PlannedChunk] = []
    start = 0
    while start < total:
        overlap = 1 if plan else 0
        stop = min(total, start + (chunk.new_frames if plan else chunk.video_frames))
        model_frames = stop - start + overlap
        plan.append(
            PlannedChunk(
                index=len(plan),
                start=start,
                stop=stop,
                model_frames=model_frames,
                first_latent=(start - overlap) // stride,
                latent_frames=1 + (model_frames - 1) // stride,
            )
        )
        start = stop
    return tuple(plan)


def made_frames(planned: PlannedChunk, chunk: ChunkConfig) -> int:
    """Return the latent frames that the model makes for a chunk, those to be cut included."""
    return planned.latent_frames if chunk.last == "short" else chunk.latent_frames
