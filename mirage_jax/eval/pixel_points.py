"""Points of every pixel: written, drawn for cameras, closed, and brought to the latent grid.

The compiled parts of `pixel_caches.py`, batched over rollouts b. Colours are in [-1, 1], depth is
z-depth with 0 = unknown, cameras are those of pixels. Read next: `pixel_caches.py`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from mirage_jax import world_model
from mirage_jax.geometry import depth as depth_lib
from mirage_jax.geometry.camera import Camera
from mirage_jax.memory import fill
from mirage_jax.memory.read import MemoryRead, read
from mirage_jax.memory.state import LatentMemory, MemoryConfig
from mirage_jax.memory.write import write_frames
from mirage_jax.rollout.plan import PlannedChunk, plan_chunks
from mirage_jax.rollout.world import WorldSpec

# Share of a cell's pixels, over its video frames, that must show a point for the cell to be seen.
_SEEN_SHARE = 0.5
# A pixel with this many of its eight neighbours nearer by this relative margin is seen through.
_CRACK_NEIGHBOURS = 5
_CRACK_MARGIN = 0.1
# Pixels lie closer than cells, so a page may hold more of them and still be culled as well.
_PAGE_ROWS = 512
# Side in cells of the window in which depth must be one surface for it to be interpolated.
_SURFACE_WINDOW = 3


def pixel_config(spec: WorldSpec, cameras: Camera, channels: int, **changes: Any) -> MemoryConfig:
    """Return the rules of a memory that appends every pixel of every latent frame of a walk."""
    count = cameras.cam_to_world.shape[1]
    last = plan_chunks(count, spec.chunk)[-1]
    latents = last.first_latent + last.latent_frames
    rules: dict[str, Any] = {"write_where": "all"} | changes
    return dataclasses.replace(
        spec.memory,
        capacity=latents * spec.height * spec.width,
        channels=channels,
        retention="append",
        when_full="stop",
        partitions=1,
        page_rows=max(spec.memory.page_rows, _PAGE_ROWS),
        **rules,
    )


def clip_frames(latent_frames: np.ndarray, stride: int) -> np.ndarray:
    """Return the video frames whose clip has the given latent frames, after one to be dropped.

    A codec makes its first latent frame of one picture alone, unlike all that follow, so the clip
    begins one latent frame early. Negative numbers stand for the start, held still.

    Args:
        latent_frames: numbers without gaps, ascending.
        stride: video frames of a latent frame.

    Raises:
        ValueError: there are gaps.
    """
    if (np.diff(latent_frames) != 1).any():
        raise ValueError(
            f"latent frames: got {latent_frames.tolist()}, expected numbers without gaps; read "
            "target and preceding frames of one chunk together"
        )
    first = (int(latent_frames[0]) - 1) * stride
    return first + np.arange(1 + stride * len(latent_frames))


def new_latents(chunk: PlannedChunk) -> np.ndarray:
    """Return the numbers of the latent frames that a chunk made and that are to be written."""
    return chunk.first_latent + np.arange(1, chunk.latent_frames)


def to_unit(frames: UInt8[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """Return 8-bit colours as values in [-1, 1]."""
    return np.asarray(frames, np.float32) / 127.5 - 1.0


def _cell_shares(mask: Any, grid_hw: tuple[int, int]) -> Any:
    """Return the mean over the pixels of each cell."""
    cells = (*mask.shape[:-2], grid_hw[0], mask.shape[-2] // grid_hw[0], grid_hw[1], -1)
    return mask.reshape(cells).mean((-3, -1))


def mended(seen: MemoryRead, shell: float) -> MemoryRead:
    """Close the cracks and gaps of a read at pixel resolution.

    A pixel is a crack where most of those around it lie on one surface in front of what it shows.

    Args:
        seen: the read, gaps open.
        shell: largest relative range of depths on one surface.
    """
    tokens, depth, visible = seen.tokens, seen.depth, seen.visibility
    for _ in range(2):
        visible = visible & ~_cracks(depth, visible)
        tokens, depth, closed = fill.close_holes(tokens, depth, visible, shell)
        visible = visible | closed
    return seen._replace(tokens=tokens, depth=depth, visibility=visible)


def _cracks(depth: Any, visible: Any) -> Any:
    """Return True for pixels whose surroundings are a surface in front of them."""
    height, width = depth.shape[-2:]
    away = jnp.where(visible, depth, jnp.inf)
    pad = [(0, 0)] * (depth.ndim - 2) + [(1, 1), (1, 1)]
    away = jnp.pad(away, pad, constant_values=jnp.inf)
    around = [
        away[..., down : down + height, right : right + width]
        for down in range(3)
        for right in range(3)
        if (down, right) != (1, 1)
    ]
    count = sum(near * (1 + _CRACK_MARGIN) < depth for near in around)
    return visible & (count >= _CRACK_NEIGHBOURS)


@functools.lru_cache(maxsize=8)
def look(config: MemoryConfig, hw: tuple[int, int]) -> Any:
    """Return the compiled read: (memories [b], cameras [b, n]) -> `MemoryRead`."""
    one = functools.partial(read, grid_hw=hw, config=config)
    return jax.jit(jax.vmap(lambda memory, camera: one(memory, camera)))


@functools.lru_cache(maxsize=8)
def write(config: MemoryConfig) -> Any:
    """Return the compiled write: memories, values, depth, keep, cameras, times -> memories.

    The memories given are written in place. Values are [b, n, H, W, c], times [n].
    """

    def one(memory, values, depth, keep, camera, times):
        return write_frames(memory, values, depth, keep, camera, config, times)[0]

    def every(memory, values, depth, keep, cameras, times) -> LatentMemory:
        return jax.vmap(one, in_axes=(0, 0, 0, 0, 0, None))(
            memory, values, depth, keep, cameras, times
        )

    return jax.jit(every, donate_argnums=0)


@functools.lru_cache(maxsize=8)
def draw(spec: WorldSpec, config: MemoryConfig) -> Any:
    """Return the compiled read: draw, close, fill, encode, and measure on the latent grid."""
    look = jax.vmap(functools.partial(read, grid_hw=spec.frame_hw, config=config))
    stride = spec.chunk.temporal_stride

    def draw(params, memory: LatentMemory, cameras: Camera) -> MemoryRead:
        seen = mended(look(memory, cameras), config.shell)
        video = fill.fill_holes(seen.tokens, seen.visibility)
        tokens = world_model.encode(spec, params, video)[:, 1:]
        groups = (seen.visibility.shape[0], -1, stride, *spec.frame_hw)
        share = seen.visibility[:, 1:].reshape(groups).mean(2)
        visible = _cell_shares(share, spec.grid_hw) >= _SEEN_SHARE
        last = jax.tree.map(lambda leaf: leaf[:, stride::stride], seen)
        return _on_grid(last, tokens, visible, spec.grid_hw)

    return jax.jit(draw)


def _on_grid(
    seen: MemoryRead, tokens: Float[Array, "b n h w c"], visible: Any, hw: tuple[int, int]
) -> MemoryRead:
    """Return a read of cells from that of pixels: what was drawn is exact where it is seen."""
    depth = fill.fill_holes(seen.depth[..., None], seen.visibility)[..., 0]
    depth, known = world_model.grid_depth(depth, jnp.ones_like(seen.visibility), hw)
    visible = visible & known
    batch, count, height, width = visible.shape
    shown = nothing_shown(batch, count, height, width, tokens.shape[-1])
    return shown._replace(
        tokens=jnp.where(visible[..., None], tokens, 0.0),
        visibility=visible,
        depth=jnp.where(visible, depth, 0.0),
        axes=jnp.where(visible[..., None, None], jnp.eye(3, 2), 0.0),
    )


def nothing_shown(batch: int, count: int, height: int, width: int, channels: int) -> MemoryRead:
    """Return the read of an empty memory."""
    shape = (batch, count, height, width)
    zero, never = jnp.zeros(shape), jnp.zeros(shape, jnp.int32)
    return MemoryRead(
        tokens=jnp.zeros((*shape, channels)),
        visibility=jnp.zeros(shape, bool),
        depth=zero,
        index=never - 1,
        offset=jnp.zeros((*shape, 2)),
        scale=zero,
        angle=zero,
        age=never,
        axes=jnp.zeros((*shape, 3, 2)),
    )


@functools.lru_cache(maxsize=8)
def start_tokens(spec: WorldSpec) -> Any:
    """Return the compiled encoder of start pictures: (params, images) -> tokens [b, h, w, c]."""

    def tokens(params, image):
        picture = jnp.asarray(image, jnp.float32) / 127.5 - 1.0
        if spec.chunk.write.start == "held":
            return world_model.encode_held(spec, params, picture)
        return world_model.encode(spec, params, picture[:, None])[:, 0]

    return jax.jit(tokens)


def enlarge(tokens: Any, hw: tuple[int, int]) -> Any:
    """Enlarge [b, n, h, w, c] tokens bilinearly to pixel resolution."""
    shape = (*tokens.shape[:2], *hw, tokens.shape[-1])
    return jax.image.resize(jnp.asarray(tokens), shape, "linear")


def enlarge_depth(depth: Any, keep: Any, hw: tuple[int, int]) -> tuple[Any, Any]:
    """Enlarge [b, n, h, w] depth and mask of cells to pixels; see the module docstring."""
    depth = np.asarray(depth, np.float32)
    rows, columns = hw[0] // depth.shape[2], hw[1] // depth.shape[3]
    nearest = depth.repeat(rows, axis=2).repeat(columns, axis=3)
    known = np.asarray(keep, bool) & (depth > 0)
    inverse = np.where(depth > 0, 1.0 / np.maximum(depth, 1e-6), 0.0)
    smooth = depth_lib.edge_validity(depth, _SURFACE_WINDOW) & known
    smooth = depth_lib.resize_validity(smooth, hw)
    plane = 1.0 / np.maximum(depth_lib.resize_depth(inverse, hw), 1e-6)
    values = np.where(smooth, plane, nearest)
    return values, known.repeat(rows, axis=2).repeat(columns, axis=3)
