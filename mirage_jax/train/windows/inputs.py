"""Turns the arrays of a batch of windows into what the models see, inside the compiled step.

Memory is written here, from the frames of the batch, under the same functions and the same config
as in a rollout, after noise has been added to tokens and depth: a rollout remembers what it made
itself. Read next: `mirage_jax/train/denoiser_stage.py`, `mirage_jax/world_model`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mirage_jax import world_model
from mirage_jax.geometry.camera import Camera
from mirage_jax.train.config import WorldConfig
from mirage_jax.train.windows.config import NoiseConfig


class Seen(NamedTuple):
    """A batch as the models see it.

    Attributes:
        target: [b, T, h, w, c] clean latents to predict, frame 0 exact.
        first: [b, h, w, c] frame 0 as the denoiser gets it.
        preceding: [b, P, h, w, c] frames before it as the denoiser gets them.
        observation: of the T target, then the P preceding frames.
        text: [b, n, dt] embeddings of prompts, or None.
        references: [b, R, h, w, c] past frames that see the same place, or None.
    """

    target: Float[Array, "b t h w c"]
    first: Float[Array, "b h w c"]
    preceding: Float[Array, "b p h w c"]
    observation: world_model.Observation
    text: Float[Array, "b n dt"] | None = None
    references: Float[Array, "b r h w c"] | None = None


def with_memory_for(world: WorldConfig, memory_frames: int) -> WorldConfig:
    """Return the config with a memory just large enough for the frames of a training window."""
    height, width = world.grid_hw
    capacity = memory_frames * height * width
    return dataclasses.replace(world, memory=dataclasses.replace(world.memory, capacity=capacity))


def look(
    world: WorldConfig, params: Any, batch: Any, keys: jax.Array, noise: NoiseConfig | None
) -> Seen:
    """Write the memories of a batch of windows and read them at its cameras.

    Args:
        world: config whose memory holds the window's frames, see `with_memory_for`.
        params: "learned_read" is used where the world has one.
        batch: from `windows.gather`; with `score` [T + P, h, w, s] and `text` [b, n, dt] where the
            world has them.
        keys: [b] of each row's noise.
        noise: how much; None for none (validation).

    Returns:
        The batch as the models see it.
    """
    arrays = {k: jnp.asarray(v) for k, v in batch.items()}
    target = arrays["target"].astype(jnp.float32)
    preceding = arrays["preceding"].astype(jnp.float32)
    tokens = arrays["memory_latents"].astype(jnp.float32)
    depth, first = arrays["memory_depth"], target[:, 0]
    references = arrays.get("references")
    if references is not None:
        references = references.astype(jnp.float32)
    if noise is not None:
        add = jax.vmap(functools.partial(_noised, noise=noise))
        given = (tokens, depth, first, preceding, references)
        tokens, depth, first, preceding, references = add(keys, given)
    slots = depth.shape[1]
    memory, _ = world_model.remember(
        world,
        world_model.empty_memory(world, depth.shape[0]),
        tokens,
        depth,
        arrays["memory_keep"],
        Camera(arrays["memory_cam_to_world"], arrays["memory_intrinsics"]),
        jnp.arange(slots)[None],
    )
    cameras = Camera(arrays["cam_to_world"], arrays["intrinsics"])
    reference = jax.tree.map(lambda leaf: leaf[:, 0], cameras)
    observation = world_model.observe(
        world, params, memory, cameras, world.grid_hw, reference, score=arrays.get("score")
    )
    return Seen(target, first, preceding, observation, arrays.get("text"), references)


def chunk_rows(seen: Seen, rows: slice, preceding: int) -> world_model.ChunkInputs:
    """Return the denoiser's inputs for some rows of a batch, with that many preceding frames.

    Rows without preceding frames are first chunks, which have no references either.
    """
    frames = seen.target.shape[1] + preceding
    observation = jax.tree.map(lambda leaf: leaf[rows, :frames], seen.observation)
    text = None if seen.text is None else seen.text[rows]
    before = seen.preceding[rows, :preceding]
    shown = seen.references if preceding else None
    references = None if shown is None else shown[rows]
    return world_model.chunk_inputs(
        seen.first[rows], before, observation, text, references=references
    )


def _noised(key: jax.Array, given: tuple[Any, ...], noise: NoiseConfig) -> tuple[Any, ...]:
    """Add noise to what one row is given: tokens, depth, first, preceding and reference frames."""
    tokens, depth, first, preceding, references = given
    keys = jax.random.split(key, 4)
    tokens = _with_noise(tokens, keys[0], noise.token)
    depth = _with_depth_noise(depth, keys[1], noise)
    first = _with_noise(first[None], keys[2], noise.context)[0]
    preceding = _with_noise(preceding, keys[3], noise.context)
    if references is not None:
        references = _with_noise(references, jax.random.fold_in(keys[3], 1), noise.context)
    return tokens, depth, first, preceding, references


def _with_noise(latents: jax.Array, key: jax.Array, most: float) -> jax.Array:
    """Add noise of a level drawn for each frame [t]."""
    level_key, noise_key = jax.random.split(key)
    level = most * jax.random.uniform(level_key, latents.shape[:1])
    return latents + level[..., None, None, None] * jax.random.normal(noise_key, latents.shape)


def _with_depth_noise(depth: jax.Array, key: jax.Array, noise: NoiseConfig) -> jax.Array:
    frame_key, cell_key = jax.random.split(key)
    frame = noise.frame_depth * jax.random.normal(frame_key, depth.shape[:1])[:, None, None]
    return depth * jnp.exp(frame + noise.cell_depth * jax.random.normal(cell_key, depth.shape))
