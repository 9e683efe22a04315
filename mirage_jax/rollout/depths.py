"""Depth of generated frames from outside: known along the path, or estimated from decoded frames.

Both make a `DepthProvider` for worlds without a depth head (or to overrule it). A latent frame has
the depth of the last of its video frames, whose camera it has.
Conventions: z-depth in scene units, 0 = unknown; masks True = may be remembered.
Read next: `mirage_jax/rollout/chunk.py` (who calls a provider), `depth_sources.py`,
`aligned_depth.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from mirage_jax import world_model
from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.depth_alignment import Model
from mirage_jax.geometry.depth_files import DepthReading, pseudo_depth, read_depth, z_depth
from mirage_jax.rollout.aligned_depth import MemoryAlignment
from mirage_jax.rollout.chunk import DepthProvider
from mirage_jax.rollout.chunk_pictures import ChunkPictures, last_frames
from mirage_jax.rollout.depth_sources import HUB, DepthSource, open_source
from mirage_jax.rollout.paths import ResolvedPath
from mirage_jax.rollout.plan import PlannedChunk
from mirage_jax.rollout.scene import Scene
from mirage_jax.rollout.world import WorldSpec

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


class EstimatedDepth(NamedTuple):
    """Depth that a source reads off decoded frames.

    Attributes:
        source: a depth model; files are for depth that is known.
        name: of the source, for the fingerprint of a saved state.
        align: to memory, or None for depth in the scene's own units.
    """

    source: DepthSource
    name: str
    align: MemoryAlignment | None

    def silenced(self) -> EstimatedDepth:
        """Return the same without messages."""
        if self.align is None:
            return self
        return self._replace(align=dataclasses.replace(self.align, say=lambda line: None))

    def provider(self, pictures: ChunkPictures) -> DepthProvider:
        """Return the provider of a rollout of one view, whose pictures are given.

        Raises:
            ValueError: disparity without an alignment of scale and shift, or distances along rays.
        """
        if self.source.kind == "ray":
            raise ValueError(
                f"--path-depth: {self.name} gives distances along rays, expected z-depth or "
                "disparity; choose another model, or drop --depth-as ray"
            )
        disparity = self.source.kind == "disparity"
        if disparity and (self.align is None or self.align.model != "disparity"):
            raise ValueError(
                f"--path-depth: {self.name} gives disparity of unknown scale and shift, expected "
                "an alignment of both; --align-depth disparity"
            )

        def estimate(numbers: np.ndarray, frames: np.ndarray) -> np.ndarray:
            maps = self.source.depth(frames[0])
            return (pseudo_depth(maps.values) if disparity else maps.values)[None]

        return decoded_depth(pictures, estimate, self.align)


@dataclasses.dataclass(frozen=True)
class PathDepthRequest:
    """What `--path-depth` and its companions ask for.

    Attributes:
        text: a file with depth [f, H, W] of the path's frames, "hf:MODEL", or None.
        reading: answers to what the depth leaves open.
        device: for models.
        align: "auto", "scale", "disparity" or "none": how estimates are aligned to memory.
        say: receives a line for each frame that is not remembered.
    """

    text: str | None = None
    reading: DepthReading = DepthReading()
    device: str = "cpu"
    align: Literal["auto", "scale", "disparity", "none"] = "auto"
    say: Callable[[str], None] = lambda line: None


@contextmanager
def open_path_depth(
    spec: WorldSpec, scene: Scene, walked: ResolvedPath, request: PathDepthRequest
) -> Iterator[PathDepth | EstimatedDepth | None]:
    """Give the depth along a path: of a file, of a model, or what the scene recorded on its own.

    Args:
        spec: of the world; one with a depth head uses it unless something is asked for.
        scene: of the world's frame size.
        walked: the path.
        request: see there.

    Yields:
        The depth, or None where the world reads it off its latents. A model ends with the context.

    Raises:
        ValueError: the world needs depth and there is none, or it does not fit the path.
    """
    text = request.text
    if text is None:
        yield None if spec.depth_head is not None else _recorded_depth(spec, scene, walked)
    elif text.startswith(HUB):
        with open_source(text, request.reading, request.device) as source:
            yield EstimatedDepth(source, text, _alignment(source, request))
    else:
        yield PathDepth(_read_depth(Path(text), walked.cameras, spec, request.reading))


def _alignment(source: DepthSource, request: PathDepthRequest) -> MemoryAlignment | None:
    if request.align == "none":
        return None
    needed: Model = "disparity" if source.kind == "disparity" else "scale"
    return MemoryAlignment(needed if request.align == "auto" else request.align, request.say)


def _recorded_depth(spec: WorldSpec, scene: Scene, walked: ResolvedPath) -> PathDepth:
    if walked.recorded is None or scene.depths is None:
        raise ValueError(
            f"--path-depth: got nothing, and the world {spec.name!r} has no depth head, expected "
            "z-depth of every frame of the path; give a file of it, hf:MODEL to estimate it, or "
            "--path recorded with a geometry.npz that holds depth for each of its cameras"
        )
    keep = None
    if scene.keeps is not None and spec.chunk.write.masks == "every":
        keep = scene.keeps[walked.recorded]
    return PathDepth(scene.depths[walked.recorded], keep)


def _read_depth(file: Path, cameras: Camera, spec: WorldSpec, reading: DepthReading) -> np.ndarray:
    maps = read_depth(file, reading)
    count, longest_pause = len(cameras.cam_to_world), spec.chunk.temporal_stride - 1
    shape = maps.values.shape
    if shape[1:] != spec.frame_hw or not count - longest_pause <= shape[0]:
        raise ValueError(
            f"--path-depth: got shape {shape}, expected [{count}, {spec.height}, "
            f"{spec.width}]: one z-depth picture of the world's size for each frame of the path"
        )
    first = Camera(np.eye(4), np.asarray(cameras.intrinsics[0]))
    return z_depth(maps, first)


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
        frames = last_frames(spec, chunk, latents.shape[1], depth.shape[1])
        return to_cells(spec, depth[:, frames].astype(np.float32), keep[:, frames])

    return provide


def decoded_depth(
    pictures: ChunkPictures, estimate: DepthEstimator, align: MemoryAlignment | None = None
) -> DepthProvider:
    """Return a provider that decodes each chunk and asks an estimator for the depth of its frames.

    Args:
        pictures: of the rollout.
        estimate: gets the numbers of the video frames in the rollout and the pictures, one for each
            latent frame; returns their z-depth.
        align: brings the depth onto what memory shows, or None for depth in scene units.
    """
    spec = pictures.world.spec

    def provide(chunk: PlannedChunk, seen: Any, latents: Any) -> tuple[Any, Any]:
        new, numbers, frames = pictures.of(chunk, latents)
        depth = np.asarray(estimate(numbers, frames), np.float32)
        # Nothing is written of the clean first frame of a later chunk, nor of frames to be cut.
        pad = [(0, 0), (new.start, latents.shape[1] - new.stop), (0, 0), (0, 0)]
        depth = np.pad(depth, pad)
        cells, keep = to_cells(spec, depth, depth > 0)
        if align is None:
            return cells, keep
        cells, keep = np.array(cells), np.array(keep)
        for view in range(len(cells)):
            shown = np.asarray(seen.read.depth[view, new])
            visible = np.asarray(seen.read.visibility[view, new])
            aligned, fits = align.align(cells[view, new], shown, visible, numbers)
            cells[view, new], keep[view, new] = aligned, keep[view, new] & fits
        return cells, keep

    return provide


def to_cells(spec: WorldSpec, depth: Any, keep: Any) -> tuple[Any, Any]:
    """Bring depth and masks of frames to cells, as the world's writes want it."""
    return world_model.grid_depth(depth, keep, spec.grid_hw, spec.chunk.write.depth)
