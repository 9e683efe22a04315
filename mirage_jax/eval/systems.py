"""Systems that stand beside each other in an evaluation: one backbone, one seed, one path.

A system says what is read and written along a rollout; denoiser, noise, cameras, depth head and
decoder are those of the world for all of them. What is changed reaches the loop in two ways only:
as another `WorldSpec` of the same weights (rules of the memory), or as `Providers.read` (something
else than the memory is shown). Where the weights were not trained with a change, the description
says so.

Conventions: frames are uint8 [b, f, H, W, 3]; chunks in order; seconds are wall clock and hold
compilation the first time a shape occurs, so whoever compares them warms up first.
Read next: `mirage_jax/rollout/chunk.py` (`Providers`), `mirage_jax/eval/efficiency.py`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, UInt8

from mirage_jax.geometry.camera import Camera
from mirage_jax.memory.files import nbytes
from mirage_jax.rollout.chunk import DepthProvider, Providers, Start, chunk_steps
from mirage_jax.rollout.decode import FrameStream
from mirage_jax.rollout.loop import ChunkResult, RolloutConfig, rollout
from mirage_jax.rollout.world import World, WorldSpec

# Stages of a chunk, in the order they run.
STAGES = ("read", "denoise", "depth", "write", "decode")
# What the loop calls them.
_LAPS = {"read": "read", "sample": "denoise", "depth": "depth", "write": "write"}


def _with_memory(spec: WorldSpec, **changes: Any) -> WorldSpec:
    return dataclasses.replace(spec, memory=dataclasses.replace(spec.memory, **changes))


def _same(spec: WorldSpec) -> WorldSpec:
    return spec


@dataclasses.dataclass(frozen=True)
class System:
    """What is read and written along a rollout.

    Attributes:
        name: in tables and JSON.
        description: what it is, and where the weights were not trained for it, that.
        kind: "rollout" generates; "copy" repeats the start picture; "truth" returns the recording.
        memory: whether the latent memory is written.
        later: whether anything but the start picture is written.
        spec: the world's configs for it, with the same weights.
    """

    name: str
    description: str
    kind: str = "rollout"
    memory: bool = True
    later: bool = True
    spec: Callable[[WorldSpec], WorldSpec] = _same


@dataclasses.dataclass(frozen=True)
class SystemRun:
    """What a system made of a batch of start views.

    Attributes:
        frames: the video.
        visibility: [b, l - 1, h, w] where the read showed something, from latent frame 1 on; False
            everywhere for systems that read nothing.
        seconds: for each chunk stage -> seconds; empty for systems that generate nothing.
        bytes: for each chunk, bytes of the rows that one rollout keeps after it, the mean over b.
    """

    frames: UInt8[np.ndarray, "b f H W 3"]
    visibility: Bool[np.ndarray, "b l h w"]
    seconds: tuple[dict[str, float], ...]
    bytes: tuple[int, ...]


SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        System("latent", "the latent memory as the world has it"),
        System(
            "no_memory",
            "a memory that stays empty; the weights saw that in part of their training",
            memory=False,
        ),
        System(
            "single_frame_memory",
            "only the start picture is written; the weights were trained with memories of several "
            "frames",
            later=False,
        ),
        System(
            "latent_unfiltered",
            "the latent memory without the filter of what moved (moved_margin=0)",
            spec=lambda spec: _with_memory(spec, moved_margin=0.0),
        ),
        System("copy", "the start picture, repeated", kind="copy"),
        System("truth", "the recorded frames", kind="truth"),
    )
}


def run_system(
    system: System,
    world: World,
    start: Start,
    cameras: Camera,
    seed: int,
    *,
    recorded: UInt8[np.ndarray, "b f H W 3"] | None = None,
    depth: DepthProvider | None = None,
) -> SystemRun:
    """Run one system on a batch of start views.

    Args:
        system: one of `SYSTEMS`.
        world: configs and parameters.
        start: start pictures [b].
        cameras: [b, f] cameras of the video frames, intrinsics in pixels.
        seed: of the noise; rollout i uses seed + i, the same for every system.
        recorded: true frames of the path, for "truth".
        depth: for worlds without a depth head.

    Returns:
        Frames, visibility, and what they cost.

    Raises:
        ValueError: there is no recording for "truth", or start and cameras do not fit the world.
    """
    frames = cameras.cam_to_world.shape[1]
    if system.kind != "rollout":
        return _given(system, world, start, frames, recorded)
    world = World(system.spec(world.spec), world.params)
    config = RolloutConfig(seed=seed, memory=system.memory)
    providers = Providers(depth=depth if system.later else _nothing_kept(world, depth))
    pieces, visibility, seconds, size = [], [], [], []
    results = rollout(world, start, cameras, config, providers=providers)
    for result, piece, spent in _decoded(world, start, results):
        pieces.append(piece)
        visibility.append(result.visibility)
        seconds.append(spent)
        size.append(nbytes(result.state.memory).used // len(start.image))
    return SystemRun(
        frames=np.concatenate(pieces, axis=1)[:, :frames],
        visibility=np.concatenate(visibility, axis=1),
        seconds=tuple(seconds),
        bytes=tuple(size),
    )


def _decoded(
    world: World, start: Start, results: Iterator[ChunkResult]
) -> Iterator[tuple[ChunkResult, np.ndarray, dict[str, float]]]:
    """Decode each chunk as it comes; yields it with its new frames and seconds by stage."""
    stream, spec = FrameStream(world), world.spec
    for result in results:
        began = time.perf_counter()
        chunk, latents = result.chunk, result.state.latents
        if spec.chunk.decode == "alone":
            part = latents[:, chunk.first_latent : chunk.first_latent + chunk.latent_frames]
            piece = FrameStream(world).frames(part)[:, min(chunk.index, 1) :]
        else:
            piece = stream.frames(latents[:, chunk.first_latent + min(chunk.index, 1) :])
        spent = {_LAPS[name]: value for name, value in result.seconds.items()}
        yield result, piece, spent | {"decode": time.perf_counter() - began}


def _nothing_kept(world: World, depth: DepthProvider | None) -> DepthProvider:
    """Return the depth of chunks of which nothing may be remembered."""

    def provide(chunk: Any, seen: Any, latents: Any) -> tuple[Any, Any]:
        if depth is None:
            values, keep = chunk_steps(world.spec).depth(world.params, latents, seen)
        else:
            values, keep = depth(chunk, seen, latents)
        return values, jnp.zeros_like(keep)

    return provide


def _given(
    system: System, world: World, start: Start, frames: int, recorded: np.ndarray | None
) -> SystemRun:
    """Return the videos that nothing generates."""
    if system.kind == "copy":
        video = np.repeat(np.asarray(start.image)[:, None], frames, axis=1)
    elif recorded is None:
        raise ValueError(
            f"{system.name}: got no recorded frames, expected those of the path; take recorded "
            "paths, or leave this system out"
        )
    else:
        video = np.asarray(recorded)[:, :frames]
    latents = (frames - 1) // world.spec.chunk.temporal_stride
    empty = np.zeros((len(video), latents, *world.spec.grid_hw), bool)
    return SystemRun(frames=video, visibility=empty, seconds=(), bytes=())
