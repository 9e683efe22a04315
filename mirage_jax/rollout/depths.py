"""Depth of generated frames from outside: known along the path, or estimated from decoded frames.

Both make a `DepthProvider` for worlds without a depth head (or to overrule it). A latent frame has
the depth of the last of its video frames, whose camera it has.
Conventions: z-depth in scene units, 0 = unknown; masks True = may be remembered.
Read next: `mirage_jax/rollout/chunk.py` (who calls a provider).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from mirage_jax import world_model
from mirage_jax.geometry.depth import validate_depth
from mirage_jax.rollout.chunk import DepthProvider
from mirage_jax.rollout.decode import FrameStream
from mirage_jax.rollout.paths import ResolvedPath
from mirage_jax.rollout.plan import PlannedChunk
from mirage_jax.rollout.scene import Scene, read_array
from mirage_jax.rollout.world import World, WorldSpec

# (index of the video frames [f], frames [b, f, H, W, 3]) -> z-depth [b, f, H, W]
DepthEstimator = Callable[[np.ndarray, UInt8[np.ndarray, "b f H W 3"]], Any]


class PathDepth(NamedTuple):
    """Depth that is known for every frame of a path.

    Attributes:
        depth: [f, H, W] z-depth of the video frames.
        keep: [f, H, W] False where content must not be remembered; None keeps all.
    """

    depth: Float[np.ndarray, "f H W"]
    keep: Bool[np.ndarray, "f H W"] | None = None


def find_path_depth(
    spec: WorldSpec, scene: Scene, walked: ResolvedPath, file: str | Path | None
) -> PathDepth | None:
    """Return the depth along a path: that of a file, or what the scene recorded on its own path.

    Args:
        spec: of the world; one with a depth head uses it unless a file is given.
        scene: of the world's frame size.
        walked: the path.
        file: .npy or .npz (first array) with z-depth [f, H, W] of the path's frames, or None.

    Returns:
        The depth, or None where the world reads it off its latents.

    Raises:
        ValueError: the world needs depth and there is none, or the file does not fit the path.
    """
    count = len(walked.cameras.cam_to_world)
    if file is not None:
        return PathDepth(_read_depth(Path(file), count, spec))
    if spec.depth_head is not None:
        return None
    if walked.recorded is None or scene.depths is None:
        raise ValueError(
            f"--path-depth: got nothing, and the world {spec.name!r} has no depth head, expected "
            "z-depth of every frame of the path; give a .npy of it, or --path recorded with a "
            "geometry.npz that holds depth for each of its cameras"
        )
    keep = None
    if scene.keeps is not None and spec.chunk.write.masks == "every":
        keep = scene.keeps[walked.recorded]
    return PathDepth(scene.depths[walked.recorded], keep)


def _read_depth(file: Path, count: int, spec: WorldSpec) -> np.ndarray:
    depth = read_array(file, "--path-depth")
    longest_pause = spec.chunk.temporal_stride - 1
    fits = depth.ndim == 3 and depth.shape[1:] == spec.frame_hw
    if not fits or not count - longest_pause <= len(depth):
        raise ValueError(
            f"--path-depth: got shape {depth.shape}, expected [{count}, {spec.height}, "
            f"{spec.width}]: one z-depth picture of the world's size for each frame of the path"
        )
    validate_depth(depth, "--path-depth")
    return depth


def path_depth(
    spec: WorldSpec,
    depth: Float[Any, "b f H W"],
    keep: Bool[Any, "b f H W"] | None = None,
) -> DepthProvider:
    """Return a provider of depth that is known for every frame of the path.

    Args:
        spec: the world's sizes and how it brings depth to cells.
        depth: of the video frames; the last goes on for frames past the end.
        keep: False where content must not be remembered; None keeps all.

    Raises:
        ValueError: depth and mask do not have the world's frame size.
    """
    depth = np.asarray(depth)
    keep = np.broadcast_to(np.True_, depth.shape) if keep is None else np.asarray(keep)
    if depth.shape[2:] != spec.frame_hw or keep.shape != depth.shape:
        raise ValueError(
            f"depth along the path: got depth {depth.shape} and mask {keep.shape}, expected [b, f, "
            f"{spec.height}, {spec.width}]; fit the scene with rollout.scene.fit_scene"
        )

    def provide(chunk: PlannedChunk, seen: Any, latents: Any) -> tuple[Any, Any]:
        del seen
        frames = _last_frames(spec, chunk, latents.shape[1], depth.shape[1])
        return _to_cells(spec, depth[:, frames].astype(np.float32), keep[:, frames])

    return provide


def decoded_depth(
    world: World, estimate: DepthEstimator, latents: Float[Any, "b l h w c"]
) -> DepthProvider:
    """Return a provider that decodes each chunk and asks an estimator for the depth of its frames.

    The frames are those of the video: the codec's state is carried on from chunk to chunk, or each
    chunk decoded alone, as `chunk.decode` says.

    Args:
        world: its codec is used.
        estimate: gets the numbers of the video frames in the rollout and the pictures, one for each
            latent frame; returns their z-depth.
        latents: of the state that the rollout starts or goes on from.
    """
    spec, alone = world.spec, world.spec.chunk.decode == "alone"
    stride, stream = spec.chunk.temporal_stride, FrameStream(world)
    if latents.shape[1] > 1 and not alone:
        stream.frames(latents)

    def provide(chunk: PlannedChunk, seen: Any, latents: Any) -> tuple[Any, Any]:
        del seen
        old = min(chunk.index, 1)
        if alone:
            pictures = FrameStream(world).frames(latents[:, : chunk.latent_frames])[:, ::stride]
            pictures = pictures[:, old:]
        else:
            made = stream.frames(latents[:, old : chunk.latent_frames])
            pictures = made[:, (stride - 1) * old :: stride]
        numbers = _last_frames(spec, chunk, chunk.latent_frames, chunk.stop)[old:]
        depth = np.asarray(estimate(numbers, pictures), np.float32)
        # Nothing is written of the clean first frame of a later chunk, nor of frames to be cut.
        pad = [(0, 0), (old, latents.shape[1] - chunk.latent_frames), (0, 0), (0, 0)]
        depth = np.pad(depth, pad)
        return _to_cells(spec, depth, depth > 0)

    return provide


def _last_frames(spec: WorldSpec, chunk: PlannedChunk, count: int, frames: int) -> np.ndarray:
    """Return the video frame of each latent frame of a chunk."""
    last = (chunk.first_latent + np.arange(count)) * spec.chunk.temporal_stride
    return np.minimum(last, frames - 1)


def _to_cells(spec: WorldSpec, depth: Any, keep: Any) -> tuple[Any, Any]:
    return world_model.grid_depth(depth, keep, spec.grid_hw, spec.chunk.write.depth)
