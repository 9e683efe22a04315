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
import functools
import itertools
import time
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, UInt8

from mirage_jax.eval.pixel_caches import Cache, FeatureCache, NothingShown, PathDepth, RgbCache
from mirage_jax.geometry.camera import Camera
from mirage_jax.memory.files import nbytes
from mirage_jax.memory.state import release_config
from mirage_jax.rollout.chunk import DepthProvider, Providers, Start, chunk_steps
from mirage_jax.rollout.decode import FrameStream
from mirage_jax.rollout.depths import path_depth as depth_along_path
from mirage_jax.rollout.loop import ChunkResult, RolloutConfig, rollout
from mirage_jax.rollout.world import World, WorldSpec

# Stages of a chunk, in the order they run.
STAGES = ("read", "denoise", "depth", "write", "decode")
CacheMaker = Callable[[World, Start, Camera, PathDepth | None], Cache]
# What the loop calls them.
_LAPS = {"read": "read", "sample": "denoise", "depth": "depth", "write": "write"}


def _with_memory(spec: WorldSpec, **changes: Any) -> WorldSpec:
    return dataclasses.replace(spec, memory=dataclasses.replace(spec.memory, **changes))


def _released(spec: WorldSpec) -> WorldSpec:
    memory = release_config(spec.memory.capacity, spec.memory.channels)
    memory = dataclasses.replace(memory, token_dtype=spec.memory.token_dtype)
    write = dataclasses.replace(spec.chunk.write, start="single", start_twice=True)
    write = dataclasses.replace(write, depth="bilinear", masks="start")
    return dataclasses.replace(
        spec, memory=memory, chunk=dataclasses.replace(spec.chunk, write=write)
    )


def _without_references(spec: WorldSpec) -> str:
    if spec.chunk.references.most:
        return ""
    return f"the world {spec.name!r} was trained without reference frames (references.most=0)"


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
        cache: makes what is read and written in place of the latent memory.
        absent: says why the system does not exist for a world, or "".
    """

    name: str
    description: str
    kind: str = "rollout"
    memory: bool = True
    later: bool = True
    spec: Callable[[WorldSpec], WorldSpec] = _same
    cache: CacheMaker | None = None
    absent: Callable[[WorldSpec], str] = lambda spec: ""


@dataclasses.dataclass(frozen=True)
class SystemRun:
    """What a system made of a batch of start views.

    Attributes:
        frames: the video.
        visibility: [b, l - 1, h, w] where the read showed something, from latent frame 1 on; False
            everywhere for systems that read nothing.
        seconds: for each chunk stage -> seconds; empty for systems that generate nothing.
        cpu_seconds: the same in seconds of CPU, all threads of the process together.
        bytes: for each chunk, bytes of the rows that one rollout keeps after it, the mean over b.
    """

    frames: UInt8[np.ndarray, "b f H W 3"]
    visibility: Bool[np.ndarray, "b l h w"]
    seconds: tuple[dict[str, float], ...]
    cpu_seconds: tuple[dict[str, float], ...]
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
        System(
            "rgb_cache",
            "points of every pixel, xyz and rgb, of every latent frame; drawn for the cameras of "
            "all video frames of a chunk, holes marked, and encoded by the codec; no learned read. "
            "The weights were not trained with it",
            memory=False,
            spec=lambda spec: dataclasses.replace(spec, learned_read=None),
            cache=RgbCache,
        ),
        System(
            "rgb_cache_unseen",
            "the same, but only pixels are kept that its points do not show already; the weights "
            "were not trained with it",
            memory=False,
            spec=lambda spec: dataclasses.replace(spec, learned_read=None),
            cache=functools.partial(RgbCache, write_where="unseen"),
        ),
        System(
            "latent_append",
            "the latent memory with every cell of every latent frame kept, as the RGB cache does",
            spec=lambda spec: _with_memory(spec, write_where="all"),
        ),
        System(
            "pixel_latent",
            "latent tokens enlarged to pixel resolution, one for every pixel of every latent "
            "frame; the weights were not trained with it",
            memory=False,
            cache=FeatureCache,
        ),
        System(
            "reference_only",
            "past latent frames that see the same place are shown as references; the memory "
            "chooses them and shows nothing else",
            cache=NothingShown,
            absent=_without_references,
        ),
        System(
            "release",
            "conventions of the public release: cells at their corners, rounding to the nearest, "
            "the nearest row, every cell appended, no filter of what moved, depth blended over "
            "edges, and the white score channels where the world's condition has them. Shipped "
            "worlds were trained with the paper's conventions instead",
            spec=_released,
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
    path_depth: PathDepth | None = None,
    chunks: int | None = None,
) -> SystemRun:
    """Run one system on a batch of start views.

    Args:
        system: one of `SYSTEMS`.
        world: configs and parameters.
        start: start pictures [b].
        cameras: [b, f] cameras of the video frames, intrinsics in pixels.
        seed: of the noise; rollout i uses seed + i, the same for every system.
        recorded: true frames of the path, for "truth".
        path_depth: true depth of the path's frames, for all systems in place of the depth head's;
            point caches then have it at pixel resolution. Worlds without a depth head need it.
        chunks: stop after so many.

    Returns:
        Frames, visibility, and what they cost.

    Raises:
        ValueError: there is no recording for "truth", the world cannot run the system, or start and
            cameras do not fit the world.
    """
    frames = cameras.cam_to_world.shape[1]
    if system.kind != "rollout":
        return _given(system, world, start, frames, recorded)
    if why := system.absent(world.spec):
        raise ValueError(f"{system.name}: got a world that cannot run it: {why}; leave it out")
    world = World(system.spec(world.spec), world.params)
    config = RolloutConfig(seed=seed, memory=system.memory)
    depth: DepthProvider | None = None
    if path_depth is not None:
        depth = depth_along_path(world.spec, path_depth.depth, path_depth.keep)
    cache = system.cache and system.cache(world, start, cameras, path_depth)
    providers = Providers(
        depth=depth if system.later else _nothing_kept(world, depth),
        read=cache.read if cache else None,
    )
    pieces, visibility, spent, size = [], [], [], []
    stream = _Stream(world)
    for result in itertools.islice(
        rollout(world, start, cameras, config, providers=providers), chunks
    ):
        timed = _Timed(result)
        piece = timed.run("decode", stream.frames, result)
        if cache:
            timed.run("write", cache.write, result, piece)
        pieces.append(piece)
        visibility.append(result.visibility)
        spent.append(timed)
        latent = nbytes(result.state.memory).used // len(start.image)
        size.append(cache.bytes if cache else latent)
    return SystemRun(
        frames=np.concatenate(pieces, axis=1)[:, :frames],
        visibility=np.concatenate(visibility, axis=1),
        seconds=tuple(timed.seconds for timed in spent),
        cpu_seconds=tuple(timed.cpu_seconds for timed in spent),
        bytes=tuple(size),
    )


class _Stream:
    """Decodes each chunk as it comes, as the whole rollout would be."""

    def __init__(self, world: World) -> None:
        self._world, self._stream = world, FrameStream(world)

    def frames(self, result: ChunkResult) -> np.ndarray:
        """Return the new frames of the next chunk."""
        chunk, latents = result.chunk, result.state.latents
        if self._world.spec.chunk.decode == "alone":
            part = latents[:, chunk.first_latent : chunk.first_latent + chunk.latent_frames]
            return FrameStream(self._world).frames(part)[:, min(chunk.index, 1) :]
        return self._stream.frames(latents[:, chunk.first_latent + min(chunk.index, 1) :])


class _Timed:
    """Seconds of a chunk by stage, those of the loop and what is done after it."""

    def __init__(self, result: ChunkResult) -> None:
        self.seconds = {_LAPS[name]: value for name, value in result.seconds.items()}
        self.cpu_seconds = {_LAPS[name]: value for name, value in result.cpu_seconds.items()}

    def run(self, stage: str, work: Callable[..., Any], *arguments: Any) -> Any:
        """Do something and count its time to a stage."""
        began = time.perf_counter(), time.process_time()
        made = work(*arguments)
        for table, now, then in (
            (self.seconds, time.perf_counter(), began[0]),
            (self.cpu_seconds, time.process_time(), began[1]),
        ):
            table[stage] = table.get(stage, 0.0) + now - then
        return made


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
    return SystemRun(frames=video, visibility=empty, seconds=(), cpu_seconds=(), bytes=())
