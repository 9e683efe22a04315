"""One chunk of a rollout: look into memory, generate latents, read off their depth, write them.

The compiled steps are pure functions of arrays, batched over rollouts that run side by side;
`chunk_steps` keeps those of a spec, so that each is compiled once for first chunks and once for
later ones, and `generate` once more for each number of reference frames that occurs (masking them
instead would cost the attention of all of them and change the time index of those left). Between
the steps stand the `Providers`: who generates the latents and who knows their depth and mask. The
defaults are the world's own models; tests put an oracle there, users a depth estimator or a
segmentation.
Read next: `mirage_jax/world_model` (the arithmetic), `mirage_jax/rollout/loop.py` (the loop over
chunks).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from mirage_jax import world_model
from mirage_jax.geometry.camera import Camera
from mirage_jax.memory.read import MemoryRead
from mirage_jax.memory.state import LatentMemory
from mirage_jax.rollout.kept_out import count_write
from mirage_jax.rollout.plan import PlannedChunk
from mirage_jax.rollout.world import WorldSpec

LatentProvider = Callable[
    [PlannedChunk, world_model.Observation, world_model.ChunkInputs, jax.Array], Any
]
DepthProvider = Callable[[PlannedChunk, world_model.Observation, jax.Array], tuple[Any, Any]]
# Which cells of a chunk's target frames may be remembered [b, T, h, w]: gets it and its latents.
KeepProvider = Callable[[PlannedChunk, jax.Array], Any]
# What latent frames, given by their numbers, are shown; fields are [b, n, h, w, ...].
ReadProvider = Callable[[np.ndarray], MemoryRead]
# Latent frames shown as references, best first, for each rollout of a batch.
References = tuple[tuple[int, ...], ...]


class Providers(NamedTuple):
    """Replacements of the world's own models; None keeps the model.

    Attributes:
        latents: gets what memory shows to the target frames, the denoiser's inputs (without
            reference frames) and the noise; returns the target latents [b, T, h, w, c], frame 0
            the clean one.
        depth: gets the chunk, what memory shows to the target frames, and the target latents;
            returns z-depth and keep, each [b, T, h, w]. Needed by worlds without a depth head; see
            `mirage_jax/rollout/depths.py`.
        keep: masks of what moves, beside the mask that comes with depth; see
            `mirage_jax/rollout/masks.py`.
        noise: gets the chunk and a shape [b, T, h, w, c]; returns the noise to start from.
        references: gets the chunk and, for each rollout, the latent frames chosen as references,
            best first; returns those to show instead.
        read: what is shown instead of the memory: gets the numbers of latent frames in the rollout,
            whose cameras it knows; returns what stands there in place of a read. The memory is
            written all the same, unless `RolloutConfig.memory` is off.
    """

    latents: LatentProvider | None = None
    depth: DepthProvider | None = None
    noise: Callable[[PlannedChunk, tuple[int, ...]], Any] | None = None
    references: Callable[[PlannedChunk, References], References] | None = None
    read: ReadProvider | None = None
    keep: KeepProvider | None = None


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


class Prompt(NamedTuple):
    """Text embeddings that a rollout follows.

    Attributes:
        text: [k, n, dt] one for each chunk; the last goes on for those after it.
        negative: [n, dt] what guidance leads away from: the empty prompt, or None without guidance.
    """

    text: Float[np.ndarray, "k n dt"]
    negative: Float[np.ndarray, "n dt"] | None = None


class ChunkSteps:
    """The compiled steps of worlds with one spec; parameters are passed in, never closed over."""

    def __init__(self, spec: WorldSpec) -> None:
        """Prepare the steps; nothing is compiled before the first call."""
        self.begin = jax.jit(functools.partial(_begin, spec))
        self.look = jax.jit(functools.partial(_look, spec))
        self.generate = jax.jit(functools.partial(_generate, spec))
        self.depth = jax.jit(functools.partial(world_model.latent_depth, spec))
        self.remember = jax.jit(functools.partial(world_model.remember, spec))
        self.score = jax.jit(functools.partial(_score, spec))


@functools.lru_cache(maxsize=8)
def chunk_steps(spec: WorldSpec) -> ChunkSteps:
    """Return the steps of a spec, the same object every time."""
    return ChunkSteps(spec)


def _begin(spec, params, start: Start, camera: Camera, memory_on: Bool[Array, ""]):
    """Encode the start pictures and write them.

    Returns:
        Latents [b, h, w, c], memories [b], and what became of the cells.
    """
    picture = jnp.asarray(start.image, jnp.float32) / 127.5 - 1.0
    latents = world_model.encode(spec, params, picture[:, None])
    writing = spec.chunk.write
    depth, keep = world_model.grid_depth(start.depth, start.keep, spec.grid_hw, writing.depth)
    memory = world_model.empty_memory(spec, picture.shape[0])
    cameras = jax.tree.map(lambda leaf: leaf[:, None], camera)
    keep = keep[:, None] & memory_on
    stored = latents
    if writing.start == "held":
        stored = world_model.encode_held(spec, params, picture)[:, None]
    memory, report = world_model.remember(spec, memory, stored, depth[:, None], keep, cameras, 0)
    counts = count_write(spec, depth[:, None], keep, jnp.ones(1, bool), report)
    return latents[:, 0], memory, counts


class Shown(NamedTuple):
    """What a chunk is shown besides memory.

    Attributes:
        first: [b, h, w, c] clean latent of target frame 0.
        preceding: [b, p, h, w, c] clean latents before it.
        kept: what the last of target and preceding frames are shown without reading the memory:
            what it showed when they were made, or what a `ReadProvider` shows; None reads all.
        score: [T + p, h, w, s] constant channels of the condition, or None.
        text: [b, n, dt] text embeddings, or None.
        negative: [b, n, dt] what guidance leads away from, or None.
    """

    first: Float[Any, "b h w c"]
    preceding: Float[Any, "b p h w c"]
    kept: MemoryRead | None = None
    score: Any = None
    text: Any = None
    negative: Any = None


def _look(spec, params, memory: LatentMemory, cameras: Camera, shown: Shown):
    """Read the memory at target and preceding cameras.

    Returns:
        The observation of the target frames, and the denoiser's inputs.
    """
    reference = jax.tree.map(lambda leaf: leaf[:, 0], cameras)
    observation = world_model.observe(
        spec, params, memory, cameras, spec.grid_hw, reference, shown.score, shown.kept
    )
    inputs = world_model.chunk_inputs(
        shown.first, shown.preceding, observation, shown.text, shown.negative
    )
    targets = cameras.cam_to_world.shape[1] - shown.preceding.shape[1]
    return jax.tree.map(lambda leaf: leaf[:, :targets], observation), inputs


def _generate(spec, params, inputs: world_model.ChunkInputs, noise: Float[Array, "b t h w c"]):
    """Sample the chunk's latents."""
    return world_model.sample_chunk(spec, params, inputs, noise, spec.sampling)


def _score(spec, params):
    """Encode the white clip of the longest chunk."""
    frames = spec.chunk.latent_frames + spec.chunk.preceding
    return world_model.white_score(spec, params, frames, spec.grid_hw)
