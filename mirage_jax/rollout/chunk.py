"""One chunk of a rollout: look into memory, generate latents, read off their depth, write them.

The compiled steps are pure functions of arrays, batched over rollouts that run side by side;
`chunk_steps` keeps those of a spec, so that each is compiled once for first chunks and once for
later ones. Between them stand the `Providers`: who generates the latents and who knows their depth
and mask. The defaults are the world's own models; tests put an oracle there, users a depth
estimator or a segmentation.
Read next: `mirage_jax/world_model.py` (the arithmetic), `mirage_jax/rollout/loop.py` (the loop over
chunks).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8

from mirage_jax import world_model
from mirage_jax.geometry.camera import Camera
from mirage_jax.memory.state import LatentMemory
from mirage_jax.memory.write import WriteReport
from mirage_jax.rollout.plan import PlannedChunk
from mirage_jax.rollout.world import WorldSpec

LatentProvider = Callable[
    [PlannedChunk, world_model.Observation, world_model.ChunkInputs, jax.Array], Any
]
DepthProvider = Callable[[PlannedChunk, world_model.Observation, jax.Array], tuple[Any, Any]]


class Providers(NamedTuple):
    """Replacements of the world's own models; None keeps the model.

    Attributes:
        latents: gets what memory shows to the target frames, the denoiser's inputs and the noise;
            returns the target latents [b, T, h, w, c], frame 0 the clean one.
        depth: gets the target latents and what memory shows to them; returns z-depth and keep,
            each [b, T, h, w].
    """

    latents: LatentProvider | None = None
    depth: DepthProvider | None = None


class Start(NamedTuple):
    """The start pictures of rollouts that run side by side.

    Attributes:
        image: [b, H, W, 3] pictures.
        depth: [b, H, W] their z-depth, 0 = unknown.
        keep: [b, H, W] True where they may be remembered.
    """

    image: UInt8[Any, "b H W 3"]
    depth: Float[Any, "b H W"]
    keep: Bool[Any, "b H W"]


class ChunkSteps:
    """The compiled steps of worlds with one spec; parameters are passed in, never closed over."""

    def __init__(self, spec: WorldSpec) -> None:
        """Prepare the steps; nothing is compiled before the first call."""
        self.begin = jax.jit(functools.partial(_begin, spec))
        self.look = jax.jit(functools.partial(_look, spec))
        self.generate = jax.jit(functools.partial(_generate, spec))
        self.depth = jax.jit(functools.partial(world_model.latent_depth, spec))
        self.remember = jax.jit(functools.partial(_remember, spec))


@functools.lru_cache(maxsize=4)
def chunk_steps(spec: WorldSpec) -> ChunkSteps:
    """Return the steps of a spec, the same object every time."""
    return ChunkSteps(spec)


def _begin(spec, params, start: Start, camera: Camera, memory_on: Bool[Array, ""]):
    """Encode the start pictures and write them: returns latents [b, h, w, c] and memories [b]."""
    picture = jnp.asarray(start.image, jnp.float32) / 127.5 - 1.0
    latents = world_model.encode(spec, params, picture[:, None])
    depth, keep = world_model.grid_depth(start.depth, start.keep, spec.grid_hw)
    memory = world_model.empty_memory(spec, picture.shape[0])
    cameras = jax.tree.map(lambda leaf: leaf[:, None], camera)
    keep = keep[:, None] & memory_on
    held = world_model.encode_held(spec, params, picture)[:, None]
    memory, report = world_model.remember(spec, memory, held, depth[:, None], keep, cameras, 0)
    return latents[:, 0], memory, report


def _look(spec, params, memory: LatentMemory, cameras: Camera, first, preceding):
    """Read the memory at target and preceding cameras.

    Returns:
        The observation of the target frames, and the denoiser's inputs.
    """
    reference = jax.tree.map(lambda leaf: leaf[:, 0], cameras)
    observation = world_model.observe(spec, params, memory, cameras, spec.grid_hw, reference)
    inputs = world_model.chunk_inputs(first, preceding, observation)
    targets = spec.chunk.latent_frames
    return jax.tree.map(lambda leaf: leaf[:, :targets], observation), inputs


def _generate(spec, params, inputs: world_model.ChunkInputs, noise: Float[Array, "b t h w c"]):
    """Sample the chunk's latents."""
    return world_model.sample_chunk(spec, params, inputs, noise, spec.sampling)


def _remember(
    spec, memory: LatentMemory, latents, depth, keep, cameras: Camera, time
) -> tuple[LatentMemory, WriteReport]:
    """Write target frames but the first, which the chunk before (or the start) has written."""
    keep = keep.at[:, 0].set(False)
    return world_model.remember(spec, memory, latents, depth, keep, cameras, time)
