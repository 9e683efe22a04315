"""Masks of what moves along a path: where nothing is remembered, whatever its depth says.

They are known beforehand, or a model looks at each picture before it is written. They hold for the
write of the start picture and for every write after it; a world whose masks hold for the start
alone (`WriteConfig.masks`, the release) takes the first.
Conventions: True = may be remembered. Read next: `mirage_jax/geometry/mask_files.py` (the files),
`mirage_jax/rollout/chunk.py` (who asks).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool

from mirage_jax.geometry.mask_files import Masks
from mirage_jax.rollout.chunk import KeepProvider
from mirage_jax.rollout.chunk_pictures import ChunkPictures, last_frames
from mirage_jax.rollout.depths import to_cells
from mirage_jax.rollout.paths import ResolvedPath
from mirage_jax.rollout.plan import PlannedChunk
from mirage_jax.rollout.scene import MaskSource, Scene, fit_grids
from mirage_jax.rollout.world import WorldSpec


def fit_masks(
    masks: Masks, scene: Scene, walked: ResolvedPath, spec: WorldSpec
) -> Bool[np.ndarray, "f H W"]:
    """Bring masks to the frames of a path and to the world's frame size.

    Args:
        masks: of the size of the scene's picture, cropped and resized as it is, or of the world's
            frames; one for all frames, one for each frame of the path, or one for each of the
            scene's recording.
        scene: as it was loaded, before it was fitted to the world.
        walked: the path.
        spec: of the world.

    Returns:
        One mask, or one for each frame.

    Raises:
        ValueError: another size, or another number of frames.
    """
    keep, size = masks.keep, scene.image.shape[:2]
    if keep.shape[1:] == size:
        keep = fit_grids(keep, spec.frame_hw)
    elif keep.shape[1:] != spec.frame_hw:
        raise ValueError(
            f"--mask: got masks of {keep.shape[1]}x{keep.shape[2]}, expected {size[0]}x{size[1]} "
            f"as the scene's picture or {spec.height}x{spec.width} as the world's frames; resize "
            "them to the nearest pixel"
        )
    frames, longest_pause = len(walked.cameras.cam_to_world), spec.chunk.temporal_stride - 1
    if len(keep) == 1 or frames - longest_pause <= len(keep) <= frames:
        return keep
    if walked.recorded is not None and len(keep) > int(walked.recorded.max()):
        return keep[walked.recorded]
    raise ValueError(
        f"--mask: got {len(keep)} masks for {frames} frames, expected one for each frame of the "
        "path, or one for all of them"
    )


def masked_start(scene: Scene, masks: Bool[np.ndarray, "f H W"]) -> Scene:
    """Return a scene whose start picture is remembered where the first mask allows it too."""
    return dataclasses.replace(scene, keep=scene.keep & masks[0])


def path_masks(spec: WorldSpec, masks: Bool[Any, "b f H W"]) -> KeepProvider | None:
    """Return a provider of masks that are known for every frame of the path, or for all alike.

    Args:
        spec: the world's sizes, and for which writes its masks hold.
        masks: of the video frames; the last goes on for frames past the end.

    Returns:
        The provider, or None where masks hold for the start picture alone.
    """
    if spec.chunk.write.masks == "start":
        return None
    masks = np.asarray(masks)

    def provide(chunk: PlannedChunk, latents: Any) -> Any:
        count = latents.shape[1]
        frames = last_frames(spec, chunk, count, masks.shape[1])
        known = np.ones((len(masks), count, *spec.frame_hw), np.float32)
        return to_cells(spec, known, masks[:, frames])[1]

    return provide


def decoded_masks(pictures: ChunkPictures, source: MaskSource) -> KeepProvider | None:
    """Return a provider that shows a model the pictures of every chunk before they are written.

    Args:
        pictures: of the rollout.
        source: the model.

    Returns:
        The provider, or None where masks hold for the start picture alone.
    """
    spec = pictures.world.spec
    if spec.chunk.write.masks == "start":
        return None

    def provide(chunk: PlannedChunk, latents: Any) -> Any:
        new, _, frames = pictures.of(chunk, latents)
        keep = np.ones((*latents.shape[:2], *spec.frame_hw), bool)
        keep[:, new] = np.stack([source.keep(view) for view in frames])
        return to_cells(spec, np.ones(keep.shape, np.float32), keep)[1]

    return provide
