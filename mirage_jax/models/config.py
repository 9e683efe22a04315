"""The shape of one chunk.

How many latent frames are made at once, which past ones the denoiser sees, and what of them memory
is written from. The defaults are those of our own worlds; `release_chunk` has the conventions that
the released weights are run with.

A chunk is a run of latent frames denoised together. Latent frame 0 stands for video frame 0,
every later one for `temporal_stride` frames, and has the camera of the last of them. Read next:
`mirage_jax/rollout/plan.py` lays chunks end to end, and `mirage_jax/models/denoiser.py` turns the
counts into a `FrameLayout`.
"""

from __future__ import annotations

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class ReferenceConfig:
    """Which past latent frames are shown to the denoiser because they see the same place.

    Attributes:
        most: largest number of reference frames; 0 shows none (the release: 4).
        voxel_size: side of the cubes in which places are compared, scene units.
        threshold: least overlap (intersection over union of cubes seen) of a reference frame.
    """

    most: int = 0
    voxel_size: float = 0.1
    threshold: float = 0.04

    def __post_init__(self) -> None:
        if self.most < 0:
            raise ValueError(f"references.most: got {self.most}, expected 0 (off) or more")
        if not self.voxel_size > 0:
            raise ValueError(
                f"references.voxel_size: got {self.voxel_size}, expected a positive length in "
                "scene units"
            )
        if not 0.0 <= self.threshold <= 1.0:
            raise ValueError(
                f"references.threshold: got {self.threshold}, expected an overlap in [0, 1]"
            )


@dataclasses.dataclass(frozen=True)
class WriteConfig:
    """What of a rollout is written into memory; every later latent frame is in any case.

    Attributes:
        start: latent of the start picture that is stored: "held", as a camera at rest sees it, or
            "single", the first latent frame, encoded alone (release).
        start_twice: the first chunk writes its clean first frame once more (release).
        depth: depth of a cell: of its "surface", never between two of them, or "bilinear" with
            masks by nearest neighbour (release).
        masks: masks of what moves hold for "every" write, or for the "start" picture alone
            (release).
        sky: "far": sky is remembered, as a surface so far away that it turns with the camera and
            never moves past it; "unknown": it is not.
        sky_beyond: z-depth in scene units from which on a cell is sky; None for the depth at which
            sky is remembered (`world_model.FAR`).
    """

    start: Literal["held", "single"] = "held"
    start_twice: bool = False
    depth: Literal["surface", "bilinear"] = "surface"
    masks: Literal["every", "start"] = "every"
    sky: Literal["far", "unknown"] = "far"
    sky_beyond: float | None = None

    def __post_init__(self) -> None:
        if self.sky_beyond is not None and not self.sky_beyond > 0:
            raise ValueError(
                f"write.sky_beyond: got {self.sky_beyond}, expected a positive distance in scene "
                "units, or None"
            )


@dataclasses.dataclass(frozen=True)
class ChunkConfig:
    """Counts of latent frames in a chunk.

    Attributes:
        latent_frames: target latent frames, the clean first one included (5: 17 video frames; the
            release uses 9: 33).
        preceding: past latent frames right before the clean first one that the denoiser sees (later
            chunks only).
        temporal_stride: video frames per latent frame after the first.
        preceding_reads: what memory shows to preceding frames: read "again" with the target
            frames, or "kept" from the chunk that made them (release).
        last: a short last chunk is made "whole" and cut (nothing more is compiled), or "short", as
            the release does.
        decode: frames of a later chunk are decoded with the codec's state "carried" on, or the
            chunk "alone", as if its clean first frame were that of a clip (release).
        references: past latent frames that see the same place (later chunks only).
        write: what is written into memory.
    """

    latent_frames: int = 5
    preceding: int = 2
    temporal_stride: int = 4
    preceding_reads: Literal["again", "kept"] = "again"
    last: Literal["whole", "short"] = "whole"
    decode: Literal["carried", "alone"] = "carried"
    references: ReferenceConfig = ReferenceConfig()
    write: WriteConfig = WriteConfig()

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


def release_chunk(
    *,
    latent_frames: int = 9,
    preceding: int = 2,
    temporal_stride: int = 4,
    references: ReferenceConfig = ReferenceConfig(most=4),
) -> ChunkConfig:
    """Return the chunks that the released weights are run with.

    Args:
        latent_frames: target latent frames of a chunk, the clean first one included.
        preceding: past latent frames right before it.
        temporal_stride: video frames per latent frame after the first.
        references: which past latent frames are shown again.
    """
    return ChunkConfig(
        latent_frames=latent_frames,
        preceding=preceding,
        temporal_stride=temporal_stride,
        preceding_reads="kept",
        last="short",
        decode="alone",
        references=references,
        write=WriteConfig(start="single", start_twice=True, depth="bilinear", masks="start"),
    )
