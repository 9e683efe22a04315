"""The shape of one chunk.

How many latent frames are made at once and which past ones the denoiser sees.

A chunk is a run of latent frames denoised together. Latent frame 0 stands for video frame 0,
every later one for `temporal_stride` frames, and has the camera of the last of them. Read next:
`mirage_jax/rollout/plan.py` lays chunks end to end, and `mirage_jax/models/denoiser.py` turns the
counts into a `FrameLayout`.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class ChunkConfig:
    """Counts of latent frames in a chunk.

    Attributes:
        latent_frames: target latent frames, the clean first one included (5: 17 video frames; the
            release uses 9: 33).
        preceding: past latent frames right before the clean first one that the denoiser sees (later
            chunks only).
        temporal_stride: video frames per latent frame after the first.
    """

    latent_frames: int = 5
    preceding: int = 2
    temporal_stride: int = 4

    def __post_init__(self) -> None:
        if self.latent_frames < 2:
            raise ValueError(
                f"chunk.latent_frames: got {self.latent_frames}, expected at least 2 "
                "(one clean frame and one to generate); set it to 5"
            )
        if self.preceding < 0:
            raise ValueError(f"chunk.preceding: got {self.preceding}, expected 0 or more")
        if self.temporal_stride < 1:
            raise ValueError(
                f"chunk.temporal_stride: got {self.temporal_stride}, expected at least 1"
            )

    @property
    def video_frames(self) -> int:
        """Video frames of one chunk, its first included."""
        return 1 + self.temporal_stride * (self.latent_frames - 1)

    @property
    def new_frames(self) -> int:
        """Video frames that a chunk after the first adds."""
        return self.video_frames - 1
