"""Latents of one clip, all zero, for tests that compute nothing."""

import numpy as np

from mirage_jax.train.latents import Latents


def blank_latents(world) -> Latents:
    """Latents of one clip, all zero, just long enough for a window."""
    frames = world.chunk.latent_frames + world.chunk.preceding
    grid = (1, 1, frames, *world.grid_hw)
    video = np.zeros((1, 1, 2, frames, *world.grid_hw, world.codec.latent_channels), np.float16)
    poses = np.tile(np.eye(4, dtype=np.float32), (1, 1, frames, 1, 1))
    intrinsics = np.eye(3, dtype=np.float32)[None, None]
    return Latents(
        video=video,
        single=video[:, :, 0],
        held=video[:, :, 0],
        depth=np.ones(grid, np.float32),
        keep=np.zeros(grid, bool),
        known=np.zeros(grid, bool),
        sky=np.zeros(grid, bool),
        cam_to_world=poses,
        intrinsics=intrinsics,
    )
