"""The loop of a rollout: chunk after chunk along a camera path.

Memory is carried from one chunk to the next.

Several rollouts (start views) of equal length run side by side on a leading axis b; each has its
own seed and comes out as it would alone. State between chunks is explicit (`RolloutState`): memory,
latents and the next chunk's number. A rollout continued from a saved state equals an uninterrupted
one bit for bit, because noise is a function of (seed, chunk) and nothing else is carried. Order:
look, choose references, generate, take depth, write, yield.
Read next: `mirage_jax/rollout/chunk.py` (the steps), `mirage_jax/rollout/state_files.py` (saving),
`plan.py`, `references.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from mirage_jax import prng, world_model
from mirage_jax.geometry.camera import Camera
from mirage_jax.memory.read import MemoryRead
from mirage_jax.memory.state import LatentMemory
from mirage_jax.models.config import ChunkConfig
from mirage_jax.rollout.balance import make_room
from mirage_jax.rollout.checks import check_given, check_start
from mirage_jax.rollout.chunk import Prompt, Providers, References, Shown, Start, chunk_steps
from mirage_jax.rollout.kept_out import WriteCounts, count_write
from mirage_jax.rollout.plan import PlannedChunk, made_frames, plan_chunks
from mirage_jax.rollout.references import choose_references, sample_with_references
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
        kept: what memory showed to the last frames when they were made, [b, preceding + 1] or
            fewer, the very last one included; None where they are read again.
        counts: what became of the cells of the last write; None without one, and in states that
            were loaded.
    """

    memory: LatentMemory
    latents: Float[np.ndarray, "b l h w c"]
    next_chunk: int
    kept: MemoryRead | None = None
    counts: WriteCounts | None = None


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
        keep: [b, new, h, w] True where they may be remembered.
        references: for each rollout the past latent frames that the denoiser was shown.
        seconds: step -> wall-clock seconds, compilation included.
        cpu_seconds: step -> seconds of CPU that this process spent, all its threads together.
        rows: [b] rows in memory after the chunk.
        dropped: [b] rows dropped so far because memory was full.
    """

    chunk: PlannedChunk
    state: RolloutState
    base: Float[np.ndarray, "b n h w c"]
    filled: Float[np.ndarray, "b n h w c"]
    visibility: np.ndarray
    depth: np.ndarray
    keep: np.ndarray
    references: References
    seconds: dict[str, float]
    cpu_seconds: dict[str, float]
    rows: Int[np.ndarray, " b"]
    dropped: Int[np.ndarray, " b"]


class _Clock:
    """Times named sections; waits for the arrays, else the time would be that of dispatch."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self._last = time.perf_counter(), time.process_time()

    def lap(self, name: str, arrays) -> None:
        jax.block_until_ready(arrays)
        now = time.perf_counter(), time.process_time()
        self.seconds[name], self.cpu_seconds[name] = (
            end - begin for begin, end in zip(self._last, now, strict=True)
        )
        self._last = now


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
    check_start(world.spec, start, cameras)
    camera = world_model.grid_camera(
        Camera(*(leaf[:, 0] for leaf in cameras)), world.spec.frame_hw, world.spec.grid_hw
    )
    begin = chunk_steps(world.spec).begin
    first, memory, counts = begin(world.params, start, camera, jnp.asarray(config.memory))
    latents = np.asarray(first)[:, None]
    return RolloutState(memory, latents, 0, counts=counts if config.memory else None)


def rollout(
    world: World,
    start: Start,
    cameras: Camera,
    config: RolloutConfig,
    *,
    providers: Providers | None = None,
    prompt: Prompt | None = None,
    state: RolloutState | None = None,
) -> Iterator[ChunkResult]:
    """Run a rollout and yield after every chunk.

    Args:
        world: configs and parameters.
        start: start pictures [b] of the world's frame size.
        cameras: [b, f] cameras of the video frames, intrinsics in pixels; f fits the codec.
        config: seed, memory and write policy.
        providers: replacements of the models, for oracles and outside depth or masks.
        prompt: text embeddings; needed by worlds that read text.
        state: continue after its last chunk instead of starting.

    Yields:
        One `ChunkResult` for each chunk not yet done.

    Raises:
        ValueError: shapes, cameras or frame count do not fit, or depth or text that the world needs
            is missing; raised before anything is computed.
    """
    providers = providers or Providers()
    check_start(world.spec, start, cameras)
    check_given(world.spec, providers, prompt)
    if state is None:
        state = start_rollout(world, start, cameras, config)
    spec = world.spec
    score = chunk_steps(spec).score(world.params) if spec.condition.score else None
    walk = _Walk(world, cameras, config, providers, prompt, score)
    for chunk in plan_chunks(cameras.cam_to_world.shape[1], spec.chunk)[state.next_chunk :]:
        result = _run_chunk(walk, chunk, state)
        state = result.state
        yield result


@dataclasses.dataclass(frozen=True)
class _Walk:
    """What stays the same from chunk to chunk."""

    world: World
    cameras: Camera
    config: RolloutConfig
    providers: Providers
    prompt: Prompt | None
    score: Any

    def cameras_at(self, latent_frames: Any) -> Camera:
        """Cameras of latent frames, intrinsics in cells; those past the end repeat the last."""
        spec, (_, frames) = self.world.spec, np.shape(self.cameras.cam_to_world)[:2]
        order = np.minimum(np.asarray(latent_frames) * spec.chunk.temporal_stride, frames - 1)
        picked = Camera(*(np.asarray(leaf, np.float32)[:, order] for leaf in self.cameras))
        return world_model.grid_camera(picked, spec.frame_hw, spec.grid_hw)


def _run_chunk(walk: _Walk, chunk: PlannedChunk, state: RolloutState) -> ChunkResult:
    spec, params, clock = walk.world.spec, walk.world.params, _Clock()
    steps, providers = chunk_steps(spec), walk.providers
    targets, new = made_frames(chunk, spec.chunk), slice(1, chunk.latent_frames)
    preceding = min(spec.chunk.preceding, chunk.first_latent)
    target = chunk.first_latent + np.arange(targets)
    past = np.arange(chunk.first_latent - preceding, chunk.first_latent)
    shown = _shown(walk, chunk, state, past, targets)
    cameras = walk.cameras_at(np.concatenate([target, past]))
    target_cameras = Camera(*(leaf[:, :targets] for leaf in cameras))

    seen, inputs = steps.look(params, state.memory, cameras, shown)
    clock.lap("read", inputs.condition)
    shape = (shown.first.shape[0], targets, *shown.first.shape[1:])
    noise = (providers.noise or functools.partial(_noise, walk.config.seed))(chunk, shape)
    references = _references(walk, chunk, state, target_cameras)
    if providers.latents is None:
        sample = functools.partial(steps.generate, params)
        latents = sample_with_references(
            sample, inputs, jnp.asarray(noise), state.latents, references
        )
    else:
        latents = jnp.asarray(providers.latents(chunk, seen, inputs, noise))
    clock.lap("sample", latents)

    if providers.depth is None:
        depth, keep = steps.depth(params, latents, seen)
    else:
        depth, keep = (jnp.asarray(x) for x in providers.depth(chunk, seen, latents))
    clock.lap("depth", depth)
    memory, counts = state.memory, None
    if providers.keep is not None:
        keep = keep & jnp.asarray(providers.keep(chunk, latents))
    if walk.config.memory:
        # Frame 0 is in memory already. Frames that only fill up a short last chunk are made and
        # then forgotten.
        begin = 0 if chunk.index == 0 and spec.chunk.write.start_twice else 1
        order = np.arange(targets)
        wanted = (order >= begin) & (order < chunk.latent_frames)
        allowed, keep = keep, keep & wanted[None, :, None, None]
        rows = int(wanted.sum()) * math.prod(spec.grid_hw)
        memory = make_room(memory, spec.memory, rows)
        memory, report = steps.remember(memory, latents, depth, keep, target_cameras, target[None])
        counts = count_write(spec, depth, allowed, jnp.asarray(wanted), report)
    clock.lap("write", memory)
    return ChunkResult(
        chunk=chunk,
        state=RolloutState(
            memory=memory,
            latents=np.concatenate([state.latents, np.asarray(latents[:, new])], axis=1),
            next_chunk=chunk.index + 1,
            kept=_keep_reads(spec.chunk, chunk, state.kept, seen.read),
            counts=counts,
        ),
        base=np.asarray(seen.base[:, new]),
        filled=np.asarray(seen.filled[:, new]),
        visibility=np.asarray(seen.read.visibility[:, new]),
        depth=np.asarray(depth[:, new]),
        keep=np.asarray(keep[:, new]),
        references=references,
        seconds=clock.seconds,
        cpu_seconds=clock.cpu_seconds,
        rows=np.asarray(memory.count),
        dropped=np.asarray(memory.dropped),
    )


def _shown(
    walk: _Walk, chunk: PlannedChunk, state: RolloutState, past: np.ndarray, targets: int
) -> Shown:
    """Gather what a chunk is shown besides memory and reference frames."""
    first = state.latents[:, chunk.first_latent]
    kept = jax.tree.map(lambda leaf: leaf[:, :-1], state.kept) if len(past) else None
    if walk.providers.read is not None:
        target = chunk.first_latent + np.arange(targets)
        found = walk.providers.read(np.concatenate([target, past]) if kept is None else target)
        both = (found,) if kept is None else (found, kept)
        kept = jax.tree.map(lambda *pair: jnp.concatenate(pair, axis=1), *both)
    text = negative = None
    if walk.prompt is not None:
        text = _for_all(walk.prompt.text[min(chunk.index, len(walk.prompt.text) - 1)], len(first))
        if walk.world.spec.sampling.guidance != 1.0:
            negative = _for_all(walk.prompt.negative, len(first))
    return Shown(
        first=first,
        preceding=state.latents[:, past],
        kept=kept,
        score=None if walk.score is None else walk.score[: targets + len(past)],
        text=text,
        negative=negative,
    )


def _for_all(embeddings: Any, batch: int) -> jax.Array:
    return jnp.broadcast_to(jnp.asarray(embeddings), (batch, *embeddings.shape))


def _references(
    walk: _Walk, chunk: PlannedChunk, state: RolloutState, target_cameras: Camera
) -> References:
    """Choose reference frames; first chunks have no past to choose from."""
    references: References = ((),) * len(state.latents)
    if chunk.index and walk.world.spec.chunk.references.most:
        history = walk.cameras_at(np.arange(state.latents.shape[1]))
        references = choose_references(walk.world.spec, state.memory, history, target_cameras)
        if walk.providers.references is not None:
            references = walk.providers.references(chunk, references)
    return references


def _keep_reads(
    config: ChunkConfig, chunk: PlannedChunk, kept: MemoryRead | None, seen: MemoryRead
) -> MemoryRead | None:
    """Return the reads of the frames that the next chunk has before its first one."""
    if config.preceding_reads != "kept" or not config.preceding:
        return None
    # The clean first frame of a later chunk keeps what it was shown when it was made.
    added = slice(0 if kept is None else 1, chunk.latent_frames)
    seen = jax.tree.map(lambda leaf: leaf[:, added], seen)
    if kept is not None:
        seen = jax.tree.map(lambda *pair: jnp.concatenate(pair, axis=1), kept, seen)
    return jax.tree.map(lambda leaf: leaf[:, -1 - config.preceding :], seen)


def _noise(seed: int, chunk: PlannedChunk, shape: tuple[int, ...]) -> jax.Array:
    """Return the noise of a chunk.

    That of rollout i depends on seed + i alone, not on the batch it runs in.
    """
    keys = [prng.key_for(seed + i, chunk.index, prng.Purpose.SAMPLE) for i in range(shape[0])]
    return jnp.stack([jax.random.normal(key, shape[1:]) for key in keys])
