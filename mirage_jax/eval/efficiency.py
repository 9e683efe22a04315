"""What a chunk costs as a rollout grows longer: seconds by stage, bytes of the cache, by system.

Every system walks the same path with the same weights, noise, depth and decoder, in a process of
its own, so that its peak memory is its own. The first chunks are walked once before anything is
timed: compilation is left out. Seconds are wall clock or, on machines that do other things beside,
seconds of CPU; the results hold both, ratios take the one asked for. Figures of a chunk are medians
over passes; those named chunk 5 and 20 are means with the chunks next to it.

Bytes of a cache: the rows in use as `mirage memory info` counts them for latent memories; xyz in
float32 and rgb in uint8, 15 bytes a point, for the RGB cache.

The walk: the recorded path of a clip there and back until there are enough frames, so that the RGB
cache keeps growing and the latent memory only where something new is seen. Systems named `_append`
and `_unseen` take the other's rule of what is written, so that storage and rule can be told apart.
Read next: `systems.py`, `pixel_caches.py`, `efficiency_report.py`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np

import mirage_jax
from mirage_jax import atomic
from mirage_jax.eval.pixel_caches import PathDepth
from mirage_jax.eval.report import jsonable
from mirage_jax.eval.systems import STAGES, SYSTEMS, run_system
from mirage_jax.eval.views import clip_scene, is_usable, stack_starts
from mirage_jax.geometry.camera import Camera, index_camera, stack_cameras
from mirage_jax.rollout.chunk import Start
from mirage_jax.rollout.plan import plan_chunks
from mirage_jax.rollout.scene import fit_scene
from mirage_jax.rollout.world import World, WorldSpec, load_world

LATENT, RGB, OFF = "latent", "rgb_cache", "no_memory"
QUICK_SYSTEMS = (LATENT, RGB, OFF)
# Chunks whose figures are named in the results, counted from 1.
MARKS = (1, 5, 20)
# After so many chunks every shape has occurred: first and later ones, and the decoder's context.
_WARM_CHUNKS = 4
# What the paper prints: speed and cache memory over an RGB pipeline it does not name.
PAPER = {"speed_ratio": 10.57, "cache_ratio": 55.0}


@dataclasses.dataclass(frozen=True)
class EfficiencyConfig:
    """Size of an efficiency measurement.

    Attributes:
        chunks: of the walk.
        passes: walks of which the median is taken.
        systems: names in `SYSTEMS`.
        clock: "wall", or "cpu" where the machine does other things beside.
        seed: of the noise.
        isolated: each system in a process of its own.
    """

    chunks: int = 20
    passes: int = 3
    systems: tuple[str, ...] = (LATENT, "latent_append", RGB, "rgb_cache_unseen", OFF)
    clock: Literal["wall", "cpu"] = "wall"
    seed: int = 0
    isolated: bool = True

    def __post_init__(self) -> None:
        unknown = [name for name in self.systems if name not in SYSTEMS]
        if unknown or not self.systems:
            raise ValueError(
                f"--systems: got {', '.join(unknown) or 'none'}, expected names of "
                f"{', '.join(SYSTEMS)}"
            )
        for name in ("chunks", "passes"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name}: got {getattr(self, name)}, expected at least 1")


class Walk(NamedTuple):
    """A world and a path through it.

    Attributes:
        world: configs and parameters.
        start: one start picture.
        cameras: [1, f] cameras.
        depth: true depth along the path, or None for the world's depth head.
    """

    world: World
    start: Start
    cameras: Camera
    depth: PathDepth | None


@dataclasses.dataclass(frozen=True)
class RecordedWalk:
    """A world's weights and a recorded split to walk in; says what to load, where it is measured.

    Attributes:
        weights: folder of the world.
        data: folder of the data set.
        split: of it.
    """

    weights: Path
    data: str
    split: str

    def load(self, chunks: int) -> Walk:
        """Return the walk along the first usable clip, there and back."""
        from mirage_jax.data.source import open_clips

        world = load_world(self.weights)
        clips = cast(Sequence[Any], open_clips(self.data, self.split))
        clip = next(clip for clip in clips if is_usable(clip["depth"][0]))
        scene = fit_scene(clip_scene(clip), world.spec.frame_hw)
        path = cast(Camera, scene.path)
        order = there_and_back(len(path.cam_to_world), walk_frames(world, chunks))
        return Walk(world, stack_starts([scene]), stack_cameras([index_camera(path, order)]), None)


@dataclasses.dataclass(frozen=True)
class ProceduralWalk:
    """A world with random weights, in a room of boxes whose depth is given.

    What it makes is noise; what it costs is that of its sizes.

    Attributes:
        spec: configs of the world.
    """

    spec: WorldSpec

    def load(self, chunks: int) -> Walk:
        """Return a walk round the room."""
        from mirage_jax.data.procedural import ProceduralConfig, render_clip
        from mirage_jax.models import functional
        from mirage_jax.rollout.world import WEIGHT_FILES

        spec = self.spec
        models = {name: getattr(spec, name) for name in WEIGHT_FILES}
        params = {n: functional.init(model, 0) for n, model in models.items() if model is not None}
        world = World(spec, params)
        sizes = ProceduralConfig(walk_frames(world, chunks), *spec.frame_hw, moving=False)
        clip = render_clip(0, sizes)
        scene = clip_scene(clip)
        depth = PathDepth(np.asarray(clip["depth"], np.float32)[None], ~clip["moving"][None])
        return Walk(world, stack_starts([scene]), stack_cameras([cast(Camera, scene.path)]), depth)


def walk_frames(world: World, chunks: int) -> int:
    """Return the video frames of a rollout of so many chunks."""
    return world.spec.chunk.video_frames + (chunks - 1) * world.spec.chunk.new_frames


def there_and_back(length: int, count: int) -> np.ndarray:
    """Return `count` places on a path of `length`, walked to its end, back, and again."""
    step = np.arange(count) % max(1, 2 * (length - 1))
    return np.minimum(step, 2 * (length - 1) - step)


def evaluate_efficiency(
    source: Any,
    config: EfficiencyConfig,
    say: Callable[[str], None] = lambda line: None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Measure every system.

    Args:
        source: has `load(chunks)`, which returns the walk; goes to other processes.
        config: sizes.
        say: receives a line for each system.
        folder: where each system's figures are kept as they come; those found there, of the same
            source and sizes, are not measured again.

    Returns:
        System -> metric -> value, the ratios over the RGB cache, and what the paper prints.
    """
    results: dict[str, Any] = {}
    alike = dataclasses.replace(config, systems=(LATENT,))
    asked = f"{source} {alike} {mirage_jax.__version__}"
    for name in config.systems:
        path = folder / "systems" / f"{name}.json" if folder else None
        stored = json.loads(path.read_text()) if path and path.is_file() else {}
        if stored.get("asked") == asked:
            results[name] = stored["metrics"]
            say(f"efficiency: {name}: measured before")
            continue
        say(f"efficiency: {name}")
        results[name] = jsonable(_measured_apart(source, config, name))
        if path:
            atomic.write_text(path, json.dumps({"asked": asked, "metrics": results[name]}) + "\n")
        say(f"efficiency: {name}: {described(results[name])}")
    return results | compare(results, config.chunks)


def _measured_apart(source: Any, config: EfficiencyConfig, name: str) -> dict[str, Any]:
    if not config.isolated:
        return measure_system(source, config, name)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure_system, source, config, name).result()


def measure_system(source: Any, config: EfficiencyConfig, name: str) -> dict[str, Any]:
    """Walk with one system and return its metrics; see `evaluate_efficiency`."""
    import jax

    walk = source.load(config.chunks)

    def run(chunks: int | None, **more: Any) -> Any:
        return run_system(
            SYSTEMS[name],
            walk.world,
            walk.start,
            walk.cameras,
            config.seed,
            path_depth=walk.depth,
            chunks=chunks,
            **more,
        )

    run(min(_WARM_CHUNKS, config.chunks))
    runs = [run(None) for _ in range(config.passes)]
    frames = [
        chunk.stop - chunk.start
        for chunk in plan_chunks(walk.cameras.cam_to_world.shape[1], walk.world.spec.chunk)
    ]
    clocks = {
        "wall": _by_stage([one.seconds for one in runs]),
        "cpu": _by_stage([one.cpu_seconds for one in runs]),
    }
    metrics: dict[str, Any] = {
        "new_frames": frames,
        "clock": config.clock,
        "cache_bytes": list(runs[0].bytes),
        "peak_cache_bytes": max(runs[0].bytes),
        "peak_process_bytes": peak_process_bytes(),
        "device": str(jax.devices()[0].device_kind),
    }
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    if peak:
        metrics["peak_device_bytes"] = peak
    for clock, stages in clocks.items():
        metrics[f"{clock}_seconds"] = {stage: values.tolist() for stage, values in stages.items()}
    chosen = clocks[config.clock]
    total = np.sum(list(chosen.values()), axis=0) / np.asarray(frames)
    metrics["seconds_per_frame"] = total.tolist()
    for mark in marks(config.chunks):
        window = slice(max(mark - 2, 0), mark + 1) if mark > 1 else slice(0, 1)
        metrics[f"seconds_per_frame_chunk{mark}"] = float(total[window].mean())
        metrics[f"cache_bytes_chunk{mark}"] = runs[0].bytes[mark - 1]
        for stage, values in chosen.items():
            metrics[f"{stage}_seconds_chunk{mark}"] = float(values[window].mean())
    return metrics


def _by_stage(passes: Sequence[Sequence[Mapping[str, float]]]) -> dict[str, np.ndarray]:
    """Return stage -> seconds of each chunk, the median over passes."""
    return {
        stage: np.median([[chunk[stage] for chunk in one] for one in passes], axis=0)
        for stage in STAGES
    }


def compare(results: Mapping[str, Mapping[str, Any]], chunks: int) -> dict[str, Any]:
    """Return how the latent memory stands to the RGB cache at the marks, and how that grows.

    Keys are `<what>_ratio_vs_rgb_chunk<n>`: `speed` of whole chunks for each frame, `read` of the
    stage that reads, `cache` of bytes; more than 1 is in the latent memory's favour.
    """
    if not {LATENT, RGB} <= results.keys():
        return {}
    ours, rgb = results[LATENT], results[RGB]
    metrics = {
        "speed": "seconds_per_frame",
        "read": "read_seconds",
        "cache": "cache_bytes",
    }
    found: dict[str, Any] = {}
    for what, key in metrics.items():
        for mark in marks(chunks):
            name = f"{key}_chunk{mark}"
            found[f"{what}_ratio_vs_rgb_chunk{mark}"] = rgb[name] / max(ours[name], 1e-12)
        last = found[f"{what}_ratio_vs_rgb_chunk{marks(chunks)[-1]}"]
        found[f"{what}_ratio_growth"] = last / found[f"{what}_ratio_vs_rgb_chunk1"]
    return found | {"paper": PAPER}


def marks(chunks: int) -> tuple[int, ...]:
    """Return the chunks that are named; the last of a shorter walk stands for those past it."""
    return tuple(sorted({min(mark, chunks) for mark in MARKS}))


def described(metrics: Mapping[str, Any]) -> str:
    """Return a line for one system."""
    last = max(int(key.removeprefix("cache_bytes_chunk")) for key in metrics if _is_mark(key))
    return (
        f"{metrics['seconds_per_frame_chunk1']:.4f} s a frame in chunk 1, "
        f"{metrics[f'seconds_per_frame_chunk{last}']:.4f} in chunk {last}, "
        f"{metrics['peak_cache_bytes'] / 2**20:.2f} MiB of cache"
    )


def _is_mark(key: str) -> bool:
    return key.startswith("cache_bytes_chunk")


def peak_process_bytes() -> int:
    """Return the most memory that this process has had resident, or 0 where it cannot be told."""
    try:
        import resource
    except ImportError:  # not a Unix
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
