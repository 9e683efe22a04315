"""What others keep in place of a latent memory: a point for every pixel of every latent frame.

`RgbCache` is the usual way, built with the same parts as the latent memory, so that the two differ
in what they store alone. Points of every pixel, xyz and rgb, are kept. For each chunk they are seen
from the camera of every *video* frame at pixel resolution (the nearest wins its pixel, by the same
rasterizer); cracks through which farther points show are closed with what surrounds them, and so
are gaps within a surface; what is left open is filled from around it and marked, and the clip is
encoded by the world's codec. Its latents are what the denoiser is shown. They are drawn for the
target cameras already: they are taken as exact where they are seen, and no learned read corrects
them.

`FeatureCache` keeps the latent tokens, enlarged to pixel resolution, of every pixel, and is read on
the latent grid as the latent memory is.

Depth below the latent grid comes from the recording, where there is one, and otherwise from the
world's depth head as everything else: inverse depth is interpolated within surfaces (exact on
planes), and beside an edge a pixel takes the nearest cell's depth.

Conventions: pixel cameras; rows are appended, as RGB pipelines do, after the same filter of what
moved as the latent memory's. One memory of static size serves a whole walk.
Read next: `pixel_points.py` (how points are drawn), `mirage_jax/eval/systems.py`.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, UInt8

from mirage_jax import world_model
from mirage_jax.eval import pixel_points as points
from mirage_jax.geometry.camera import Camera
from mirage_jax.memory.files import nbytes
from mirage_jax.memory.read import MemoryRead
from mirage_jax.memory.state import MemoryConfig, empty
from mirage_jax.rollout.chunk import Start
from mirage_jax.rollout.loop import ChunkResult
from mirage_jax.rollout.world import World

# xyz in float32 and rgb in uint8, as in the README's table of memory.
RGB_POINT_BYTES = 15


class PathDepth(NamedTuple):
    """Depth and mask of every video frame of a recorded path.

    Attributes:
        depth: [b, f, H, W] z-depth, 0 = unknown.
        keep: [b, f, H, W] True where the content is static.
    """

    depth: Float[np.ndarray, "b f H W"]
    keep: Bool[np.ndarray, "b f H W"]


class Cache(Protocol):
    """What a rollout reads and writes in place of the latent memory."""

    @property
    def bytes(self) -> int:
        """Bytes of the rows in use of one rollout, the mean over those of the batch."""
        ...

    def read(self, latent_frames: np.ndarray) -> MemoryRead:
        """Return what the cameras of latent frames are shown, [b, n, h, w]."""
        ...

    def write(self, result: ChunkResult, frames: UInt8[np.ndarray, "b k H W 3"]) -> None:
        """Store what a chunk brought; `frames` are its new video frames."""
        ...


class _Walk:
    """The path of a rollout in pixels, the memory along it, and depth for its pixels."""

    def __init__(
        self,
        world: World,
        start: Start,
        cameras: Camera,
        config: MemoryConfig,
        recorded: PathDepth | None,
    ) -> None:
        self.world, self.recorded = world, recorded
        self.cameras = Camera(*(np.asarray(leaf, np.float32) for leaf in cameras))
        memory = jax.tree.map(
            lambda leaf: jnp.repeat(leaf[None], len(start.image), axis=0), empty(config)
        )
        self.memory, self.config = memory, config

    def cameras_of(self, video_frames: np.ndarray) -> Camera:
        """Return the cameras [b, n] of video frames; those past the end repeat the last."""
        last = self.cameras.cam_to_world.shape[1] - 1
        frames = np.minimum(video_frames, last)
        return Camera(*(leaf[:, frames] for leaf in self.cameras))

    def add(self, values: Any, depth: Any, keep: Any, latent_frames: np.ndarray) -> None:
        """Store [b, n, H, W, c] values at the pixels of latent frames."""
        frames = latent_frames * self.world.spec.chunk.temporal_stride
        self.memory = points.write(self.config)(
            self.memory,
            jnp.asarray(values),
            jnp.asarray(depth, jnp.float32),
            jnp.asarray(keep),
            self.cameras_of(frames),
            jnp.asarray(latent_frames, jnp.int32),
        )
        jax.block_until_ready(self.memory)

    def pixel_depth(self, result: ChunkResult) -> tuple[Any, Any]:
        """Return depth and mask at the pixels of a chunk's new latent frames."""
        spec = self.world.spec
        if self.recorded is None:
            return points.enlarge_depth(result.depth, result.keep, spec.frame_hw)
        frames = points.new_latents(result.chunk) * spec.chunk.temporal_stride
        frames = np.minimum(frames, self.recorded.depth.shape[1] - 1)
        depth = np.asarray(self.recorded.depth[:, frames], np.float32)
        return depth, self.recorded.keep[:, frames] & (depth > 0)

    @property
    def rows(self) -> float:
        """Rows in use of one rollout, the mean over the batch."""
        return float(np.mean(np.asarray(self.memory.count)))


class RgbCache:
    """A point for every pixel, drawn for each target camera and encoded; see the module docstring.

    Bytes are counted as such caches are kept: xyz in float32 and rgb in uint8.
    """

    def __init__(
        self,
        world: World,
        start: Start,
        cameras: Camera,
        recorded: PathDepth | None = None,
        write_where: Literal["all", "unseen"] = "all",
    ) -> None:
        """Store the pixels of the start pictures.

        Args:
            world: configs and parameters.
            start: start pictures [b].
            cameras: [b, f] cameras of the video frames.
            recorded: true depth of the path, in place of the depth head's.
            write_where: which pixels are written; see `MemoryConfig`.
        """
        config = points.pixel_config(
            world.spec, cameras, 3, select="nearest", close_holes=False, write_where=write_where
        )
        self._walk = _Walk(world, start, cameras, config, recorded)
        keep = np.asarray(start.keep)[:, None] & (np.asarray(start.depth)[:, None] > 0)
        colors = points.to_unit(np.asarray(start.image)[:, None])
        self._walk.add(colors, np.asarray(start.depth)[:, None], keep, np.zeros(1, int))

    @property
    def bytes(self) -> int:
        """See `Cache`."""
        return round(self._walk.rows * RGB_POINT_BYTES)

    def read(self, latent_frames: np.ndarray) -> MemoryRead:
        """See `Cache`."""
        order = np.sort(latent_frames)
        spec = self._walk.world.spec
        clip = points.clip_frames(order, spec.chunk.temporal_stride)
        cameras = self._walk.cameras_of(np.maximum(clip, 0))
        found = points.draw(spec, self._walk.config)(
            self._walk.world.params, self._walk.memory, cameras
        )
        place = latent_frames - order[0]
        return jax.tree.map(lambda leaf: leaf[:, place], found)

    def draw(self, video_frames: np.ndarray) -> MemoryRead:
        """Return what the points show to video frames, at pixel resolution and in [-1, 1]."""
        config = self._walk.config
        look = points.look(config, self._walk.world.spec.frame_hw)
        return points.mended(
            look(self._walk.memory, self._walk.cameras_of(video_frames)), config.shell
        )

    def write(self, result: ChunkResult, frames: UInt8[np.ndarray, "b k H W 3"]) -> None:
        """See `Cache`."""
        stride = self._walk.world.spec.chunk.temporal_stride
        first = stride if result.chunk.index == 0 else stride - 1
        depth, keep = self._walk.pixel_depth(result)
        self._walk.add(
            points.to_unit(frames[:, first::stride]), depth, keep, points.new_latents(result.chunk)
        )


class FeatureCache:
    """Latent tokens of every pixel, read on the latent grid; see the module docstring."""

    def __init__(
        self, world: World, start: Start, cameras: Camera, recorded: PathDepth | None = None
    ) -> None:
        """Store the start pictures' tokens, of a camera at rest where the world does so."""
        spec = world.spec
        config = points.pixel_config(spec, cameras, spec.memory.channels)
        self._walk = _Walk(world, start, cameras, config, recorded)
        tokens = points.start_tokens(spec)(world.params, np.asarray(start.image))
        keep = np.asarray(start.keep)[:, None] & (np.asarray(start.depth)[:, None] > 0)
        self._walk.add(
            points.enlarge(tokens[:, None], spec.frame_hw),
            start.depth[:, None],
            keep,
            np.zeros(1, int),
        )

    @property
    def bytes(self) -> int:
        """See `Cache`."""
        return nbytes(self._walk.memory).used // len(self._walk.memory.count)

    def read(self, latent_frames: np.ndarray) -> MemoryRead:
        """See `Cache`."""
        spec = self._walk.world.spec
        cameras = self._walk.cameras_of(latent_frames * spec.chunk.temporal_stride)
        cameras = world_model.grid_camera(cameras, spec.frame_hw, spec.grid_hw)
        return points.look(self._walk.config, spec.grid_hw)(self._walk.memory, cameras)

    def write(self, result: ChunkResult, frames: UInt8[np.ndarray, "b k H W 3"]) -> None:
        """See `Cache`."""
        del frames
        depth, keep = self._walk.pixel_depth(result)
        latents = result.state.latents[:, points.new_latents(result.chunk)]
        tokens = points.enlarge(latents, self._walk.world.spec.frame_hw)
        self._walk.add(tokens, depth, keep, points.new_latents(result.chunk))


class NothingShown:
    """Shows nothing and keeps nothing: for systems that see the past in other ways."""

    bytes = 0

    def __init__(
        self, world: World, start: Start, cameras: Camera, recorded: PathDepth | None = None
    ) -> None:
        """Take the sizes."""
        del cameras, recorded
        self._shape = (len(start.image), *world.spec.grid_hw)
        self._channels = world.spec.memory.channels

    def read(self, latent_frames: np.ndarray) -> MemoryRead:
        """See `Cache`."""
        batch, height, width = self._shape
        return points.nothing_shown(batch, len(latent_frames), height, width, self._channels)

    def write(self, result: ChunkResult, frames: UInt8[np.ndarray, "b k H W 3"]) -> None:
        """See `Cache`."""
