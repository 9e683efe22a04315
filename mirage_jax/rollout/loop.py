"""The loop of a rollout: chunk after chunk along a camera path.

Memory is carried from one chunk to the next.

Several rollouts (start views) of equal length run side by side on a leading axis b; each has its
own seed and comes out as it would alone. State between chunks is explicit (`RolloutState`): memory,
latents and the next chunk's number. A rollout continued from a saved state equals an uninterrupted
one bit for bit, because noise is a function of (seed, chunk) and nothing else is carried. Order:
look, generate, take depth, write, yield.
Read next: `mirage_jax/rollout/chunk.py` (the steps), `mirage_jax/rollout/state_files.py` (saving),
`plan.py`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from mirage_jax import prng, world_model
from mirage_jax.geometry.camera import Camera, validate_camera
from mirage_jax.memory.state import LatentMemory
from mirage_jax.rollout.chunk import Providers, Start, chunk_steps
from mirage_jax.rollout.plan import PlannedChunk, plan_chunks
from mirage_jax.rollout.world import World


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
    """How a rollout is run.

    Attributes:
        seed: of the noise; rollout i of a batch uses seed + i.
        memory: False runs the same weights with a memory that stays empty.
    """

    seed: int = 0
    memory: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed: got {self.seed}, expected an integer from 0 to 2**31 - 1")


class RolloutState(NamedTuple):
    """What is carried from chunk to chunk.

    Attributes:
        memory: stacked memories [b].
        latents: [b, l, h, w, c] every latent frame so far, the start picture's first.
        next_chunk: number of the next chunk.
    """

    memory: LatentMemory
    latents: Float[np.ndarray, "b l h w c"]
    next_chunk: int


class ChunkResult(NamedTuple):
    """What one chunk brought.

    Attributes:
        chunk: its place in the plan.
        state: after the chunk.
        base: [b, new, h, w, c] what memory alone would show at the new latent frames (hole-filled,
            learned read).
        filled: the same without the learned read: the stored tokens as they are.
        visibility: [b, new, h, w] True where memory showed something.
        depth: [b, new, h, w] z-depth the new frames were written with.
        seconds: step -> wall-clock seconds, compilation included.
        rows: [b] rows in memory after the chunk.
        dropped: [b] rows dropped so far because memory was full.
    """

    chunk: PlannedChunk
    state: RolloutState
    base: Float[np.ndarray, "b n h w c"]
    filled: Float[np.ndarray, "b n h w c"]
    visibility: np.ndarray
    depth: np.ndarray
    seconds: dict[str, float]
    rows: Int[np.ndarray, " b"]
    dropped: Int[np.ndarray, " b"]


class _Clock:
    """Names wall-clock sections; waits for the arrays, else the time would be that of dispatch."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str, arrays) -> None:
        jax.block_until_ready(arrays)
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now


def start_rollout(
    world: World, start: Start, cameras: Camera, config: RolloutConfig
) -> RolloutState:
    """Encode the start pictures and write them to fresh memories.

    Args:
        world: configs and parameters.
        start: start pictures [b].
        cameras: [b, f] cameras of the video frames, intrinsics in pixels.
        config: how to run.

    Returns:
        The state before chunk 0, with one latent frame.
    """
    _check_start(world, start, cameras)
    camera = world_model.grid_camera(
        Camera(*(leaf[:, 0] for leaf in cameras)), world.spec.frame_hw, world.spec.grid_hw
    )
    begin = chunk_steps(world.spec).begin
    first, memory, _ = begin(world.params, start, camera, jnp.asarray(config.memory))
    return RolloutState(memory=memory, latents=np.asarray(first)[:, None], next_chunk=0)


def rollout(
    world: World,
    start: Start,
    cameras: Camera,
    config: RolloutConfig,
    *,
    providers: Providers | None = None,
    state: RolloutState | None = None,
) -> Iterator[ChunkResult]:
    """Run a rollout and yield after every chunk.

    Args:
        world: configs and parameters.
        start: start pictures [b] of the world's frame size.
        cameras: [b, f] cameras of the video frames, intrinsics in pixels; f fits the codec.
        config: seed, memory and write policy.
        providers: replacements of the models, for oracles and outside depth or masks.
        state: continue after its last chunk instead of starting.

    Yields:
        One `ChunkResult` for each chunk not yet done.

    Raises:
        ValueError: shapes, cameras or frame count do not fit; raised before anything is computed.
    """
    _check_start(world, start, cameras)
    if state is None:
        state = start_rollout(world, start, cameras, config)
    spec = world.spec
    for chunk in plan_chunks(cameras.cam_to_world.shape[1], spec.chunk)[state.next_chunk :]:
        result = _run_chunk(world, providers or Providers(), config, chunk, cameras, state)
        state = result.state
        yield result


def _run_chunk(world, providers, config, chunk, cameras, state) -> ChunkResult:
    spec, params, clock = world.spec, world.params, _Clock()
    steps = chunk_steps(spec)
    targets, new = spec.chunk.latent_frames, slice(1, chunk.latent_frames)
    preceding = min(spec.chunk.preceding, chunk.first_latent)
    grid_cameras = _chunk_cameras(world, chunk, cameras, preceding)
    target_cameras = Camera(*(leaf[:, :targets] for leaf in grid_cameras))
    first = state.latents[:, chunk.first_latent]
    past = state.latents[:, chunk.first_latent - preceding : chunk.first_latent]

    seen, inputs = steps.look(params, state.memory, grid_cameras, first, past)
    clock.lap("read", inputs.condition)
    noise = _noise(config.seed, chunk.index, (first.shape[0], targets, *first.shape[1:]))
    if providers.latents is None:
        latents = steps.generate(params, inputs, noise)
    else:
        latents = jnp.asarray(providers.latents(chunk, seen, inputs, noise))
    clock.lap("sample", latents)

    if providers.depth is None:
        depth, keep = steps.depth(params, latents, seen)
    else:
        depth, keep = (jnp.asarray(x) for x in providers.depth(chunk, seen, latents))
    clock.lap("depth", depth)
    memory = state.memory
    if config.memory:
        stamps = chunk.first_latent + jnp.arange(targets)[None]
        # Frames that only fill up a short last chunk are made and then forgotten.
        keep = keep & (jnp.arange(targets) < chunk.latent_frames)[None, :, None, None]
        memory, _ = steps.remember(memory, latents, depth, keep, target_cameras, stamps)
    clock.lap("write", memory)
    return ChunkResult(
        chunk=chunk,
        state=RolloutState(
            memory=memory,
            latents=np.concatenate([state.latents, np.asarray(latents[:, new])], axis=1),
            next_chunk=chunk.index + 1,
        ),
        base=np.asarray(seen.base[:, new]),
        filled=np.asarray(seen.filled[:, new]),
        visibility=np.asarray(seen.read.visibility[:, new]),
        depth=np.asarray(depth[:, new]),
        seconds=clock.seconds,
        rows=np.asarray(memory.count),
        dropped=np.asarray(memory.dropped),
    )


def latent_camera_indices(
    chunk: PlannedChunk, targets: int, stride: int, frames: int
) -> np.ndarray:
    """Return the video frames whose cameras a chunk's latent frames have.

    A short last chunk repeats its last one.
    """
    return np.minimum((chunk.first_latent + np.arange(targets)) * stride, frames - 1)


def _chunk_cameras(world: World, chunk: PlannedChunk, cameras: Camera, preceding: int) -> Camera:
    """Cameras of the target frames, then of the preceding ones, with intrinsics in cells."""
    spec = world.spec
    stride, frames = spec.chunk.temporal_stride, cameras.cam_to_world.shape[1]
    target = latent_camera_indices(chunk, spec.chunk.latent_frames, stride, frames)
    past = (chunk.first_latent - preceding + np.arange(preceding)) * stride
    order = np.concatenate([target, past]).astype(int)
    picked = Camera(*(np.asarray(leaf, np.float32)[:, order] for leaf in cameras))
    return world_model.grid_camera(picked, spec.frame_hw, spec.grid_hw)


def _noise(seed: int, chunk: int, shape: tuple[int, ...]) -> jax.Array:
    """Return the noise of a chunk.

    That of rollout i depends on seed + i alone, not on the batch it runs in.
    """
    keys = [prng.key_for(seed + i, chunk, prng.Purpose.SAMPLE) for i in range(shape[0])]
    return jnp.stack([jax.random.normal(key, shape[1:]) for key in keys])


def _check_start(world: World, start: Start, cameras: Camera) -> None:
    """Raise unless pictures, cameras and frame count fit the world and each other."""
    spec = world.spec
    expected = (len(start.image), *spec.frame_hw)
    for name, array, shape in (
        ("image", start.image, (*expected, 3)),
        ("depth", start.depth, expected),
        ("mask", start.keep, expected),
    ):
        if np.shape(array) != shape:
            raise ValueError(
                f"{name}: got shape {np.shape(array)}, expected {shape} for the world "
                f"{spec.name!r}; fit the "
                "scene with rollout.scene.fit_scene"
            )
    validate_camera(cameras, "cameras")
    batch, frames = np.shape(cameras.cam_to_world)[:2]
    stride = spec.chunk.temporal_stride
    if batch != expected[0]:
        raise ValueError(
            f"cameras: got {batch} paths, expected {expected[0]}, one for each start picture"
        )
    if frames < 1 + stride or (frames - 1) % stride:
        raise ValueError(
            f"cameras: got {frames} frames, expected 1 + {stride}n with n >= 1; round up with "
            "rollout.plan.round_up_frames and repeat the last camera"
        )
