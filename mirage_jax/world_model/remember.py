"""Cameras and depth on the latent grid, and memories that latent frames are written into.

Read next: `mirage_jax/memory/write.py`.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mirage_jax.geometry import camera as camera_lib
from mirage_jax.geometry import depth as depth_lib
from mirage_jax.memory import state, write
from mirage_jax.world_model.parts import FAR, WorldConfigLike
from mirage_jax.world_model.shares import WRITE_SCOPE, on_own_share

# Share of a cell's pixels that must be static for its token to be remembered.
_KEPT_SHARE = 0.75


def grid_camera(
    camera: camera_lib.Camera, frame_hw: tuple[int, int], grid_hw: tuple[int, int]
) -> camera_lib.Camera:
    """Return the camera with intrinsics in cells of a latent grid instead of pixels of a frame."""
    return camera_lib.Camera(
        cam_to_world=camera.cam_to_world,
        intrinsics=camera_lib.rescale_intrinsics(camera.intrinsics, frame_hw, grid_hw),
    )


def grid_depth(
    depth: Any,
    keep: Any,
    grid_hw: tuple[int, int],
    how: Literal["surface", "bilinear"] = "surface",
) -> tuple[Any, Any]:
    """Bring per-pixel depth and mask to the latent grid.

    "surface": depth is interpolated where the surface is smooth. On a depth edge the cell takes the
    depth of its centre pixel instead: a point on one of the two surfaces, never between them. A
    cell is kept if at least three quarters of its pixels are. "bilinear" is what the release does:
    depth is interpolated everywhere, the mask takes the nearest pixel.

    Args:
        depth: [*t, H, W] z-depth in scene units, 0 = unknown; H and W are multiples of the grid's.
        keep: [*t, H, W] True where the content is static and may be remembered.
        grid_hw: cells of the latent grid.
        how: see `models.config.WriteConfig.depth`.

    Returns:
        depth [*t, h, w], 0 = unknown, and keep [*t, h, w], False also where depth is unknown.
    """
    if how == "bilinear":
        small = depth_lib.resize_depth(depth, grid_hw)
        return small, depth_lib.resize_mask(keep, grid_hw) & (small > 0)
    rows, columns = depth.shape[-2] // grid_hw[0], depth.shape[-1] // grid_hw[1]
    xp = depth.__array_namespace__()
    smooth = depth_lib.resize_validity(depth_lib.edge_validity(depth) & (depth > 0), grid_hw)
    centre = depth[..., rows // 2 :: rows, columns // 2 :: columns]
    small = xp.where(smooth, depth_lib.resize_depth(depth, grid_hw), centre)
    share = keep.reshape(*keep.shape[:-2], grid_hw[0], rows, grid_hw[1], columns).mean((-3, -1))
    return small, (share >= _KEPT_SHARE) & (small > 0)


def empty_memory(config: WorldConfigLike, batch: int) -> state.LatentMemory:
    """Return `batch` empty memories stacked on a leading axis."""
    single = state.empty(config.memory)
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (batch, *leaf.shape)), single)


def sky_cells(config: WorldConfigLike, depth: Float[Any, "*b h w"]) -> Bool[Any, "*b h w"]:
    """Return True where depth says that a cell is sky."""
    beyond = config.chunk.write.sky_beyond
    return depth >= (FAR if beyond is None else beyond)


def _with_sky(config: WorldConfigLike, depth: jax.Array, keep: jax.Array) -> tuple[Any, Any]:
    """Put sky where it is remembered, or leave it out, as the config says."""
    writing = config.chunk.write
    if writing.sky == "unknown":
        return depth, keep & ~sky_cells(config, depth)
    if writing.sky_beyond is None:
        return depth, keep
    return jnp.where(sky_cells(config, depth), jnp.maximum(depth, FAR), depth), keep


def remember(
    config: WorldConfigLike,
    memory: state.LatentMemory,
    latents: Float[Array, "b t h w c"],
    depth: Float[Array, "b t h w"],
    keep: Bool[Array, "b t h w"],
    cameras: camera_lib.Camera,
    time: Any,
) -> tuple[state.LatentMemory, write.WriteReport]:
    """Write latent frames into the memories of a batch.

    Args:
        config: see `WorldConfigLike`.
        memory: stacked memories [b].
        latents: tokens to store.
        depth: z-depth of each cell; cells at 0 are not written.
        keep: False where a cell must not be written (moving things, sky, depth edges).
        cameras: [b, t] with grid intrinsics.
        time: scalar or [b, t] int stamp of the rows.

    Returns:
        The grown memories and what was written, merged and dropped, each [b].
    """
    times = jnp.broadcast_to(jnp.asarray(time, jnp.int32), depth.shape[:2])
    depth, keep = _with_sky(config, jnp.asarray(depth), jnp.asarray(keep))

    def one(access, memory, latents, depth, keep, cameras, times):
        return write.write_frames(
            memory, latents, depth, keep, cameras, config.memory, times, access
        )

    write_all = on_own_share(one, config.memory, gives_memory=True)
    with jax.named_scope(WRITE_SCOPE):
        return write_all(memory, latents, depth, keep, cameras, times)
