"""One walk through one scene, measured: what `mirage generate` does.

Rolls out along a path, repeats it with memory switched off where that is wanted, measures the
return where the path closes, and writes video, contact sheet, cameras, memory, point cloud and
metrics. State is saved after every chunk, so a stopped walk goes on where it was.
Read next: `mirage_jax/rollout/loop.py`, `mirage_jax/eval/scores/comeback.py` (over many scenes).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from mirage_jax import config as config_lib
from mirage_jax.eval import image, report
from mirage_jax.eval.views import stack_starts
from mirage_jax.geometry.camera import Camera
from mirage_jax.rollout import outputs, sheet, state_files
from mirage_jax.rollout.chunk import Prompt, Providers, Start
from mirage_jax.rollout.chunk_pictures import ChunkPictures
from mirage_jax.rollout.decode import decode_latents, reconstruct
from mirage_jax.rollout.depths import EstimatedDepth, PathDepth, path_depth
from mirage_jax.rollout.kept_out import WriteCounts, kept_out_text
from mirage_jax.rollout.loop import ChunkResult, RolloutConfig, RolloutState, rollout, start_rollout
from mirage_jax.rollout.masks import decoded_masks, path_masks
from mirage_jax.rollout.paths import closes
from mirage_jax.rollout.plan import plan_chunks
from mirage_jax.rollout.prompts import PromptPlan
from mirage_jax.rollout.scene import MaskSource, Scene
from mirage_jax.rollout.world import World

Say = Callable[[str], None]
# Latent frames of the still clip that measures the ceiling: its last has one like it before.
_STILL_LATENTS = 3
# How much light is left in the conditioning video where memory showed nothing.
_DARKENED = 0.35


@dataclasses.dataclass(frozen=True)
class WalkConfig:
    """How a walk is run.

    Attributes:
        seed: of the noise.
        memory: False walks with a memory that stays empty.
        compare: repeat the walk with memory off, for the contact sheet and `revisit.psnr_off`.
        resume: go on from the state in the output folder, if there is one.
        fps: of the video.
        save: streams and formats of pictures to write; see `outputs.parse_saved`.
        prompts: in words, for metrics.json; None for a world that reads no text.
    """

    seed: int = 0
    memory: bool = True
    compare: bool = True
    resume: bool = False
    fps: float = 8.0
    save: str = "mp4"
    prompts: PromptPlan | None = None


class Given(NamedTuple):
    """What is known along a path.

    Attributes:
        prompt: embeddings to follow; needed by worlds that read text.
        depth: along the path, or a source that estimates it; needed by worlds without a depth head.
        masks: [f, H, W] or [1, H, W] True where content may be remembered, or a model that sees it;
            None allows all. The scene's own mask is to hold the first of them.
    """

    prompt: Prompt | None = None
    depth: PathDepth | EstimatedDepth | None = None
    masks: Bool[np.ndarray, "f H W"] | MaskSource | None = None


_NOTHING = Given()


@dataclasses.dataclass
class _Walk:
    """What one rollout left behind; `started` counts the write of the start picture."""

    started: WriteCounts | None
    state: RolloutState
    results: list[ChunkResult]
    memories: list[Any]
    frames: np.ndarray


def walk(
    world: World,
    scene: Scene,
    cameras: Camera,
    config: WalkConfig,
    directory: Path,
    say: Say = lambda line: None,
    given: Given = _NOTHING,
) -> dict[str, Any]:
    """Walk along cameras through a scene and write everything into a folder.

    Args:
        world: configs and parameters.
        scene: of the world's frame size.
        cameras: [f] with f as the codec makes, the scene's camera first.
        config: how to run.
        directory: output folder, made if needed.
        say: receives progress lines.
        given: what the world is told along the path.

    Returns:
        What metrics.json holds.
    """
    began = time.perf_counter()
    directory.mkdir(parents=True, exist_ok=True)
    start, stacked = stack_starts([scene]), Camera(*(leaf[None] for leaf in cameras))
    main = _run(world, start, stacked, config, directory / outputs.STATE, say, given)
    other = None
    if config.compare and config.memory:
        say("the same walk with memory off, to compare")
        off = dataclasses.replace(config, memory=False, resume=False)
        other = _run(world, start, stacked, off, None, say, given)
    last_memory = main.memories[-1] if main.memories else outputs.single_memory(main.state.memory)
    saved = outputs.parse_saved(config.save)
    shown = _conditioning(world, main) if len(saved[0]) > 1 else None
    files = outputs.write_streams(directory, main.frames, shown, saved, config.fps)
    say(f"videos: {', '.join(files)}")
    outputs.write_rollout(directory, world, cameras, last_memory)
    metrics = outputs.chunk_metrics(main.results, main.memories)
    if main.started is not None:
        metrics["memory"]["writes"]["start"] = main.started.of(0)
    metrics["revisit"] = _revisit(world, scene, cameras, main, other, config.memory)
    _write_sheet(directory / outputs.SHEET, world, scene, cameras, main, other)
    metrics["seed"] = config.seed
    metrics["frames"] = int(main.frames.shape[0])
    metrics["config"] = {
        "world": config_lib.to_dict(world.spec),
        "walk": dataclasses.asdict(config),
    }
    metrics["seconds"]["total"] = time.perf_counter() - began
    metrics = report.jsonable(metrics)
    outputs.write_metrics(directory, metrics)
    return metrics


def _run(
    world: World,
    start: Start,
    cameras: Camera,
    config: WalkConfig,
    state_path: Path | None,
    say: Say,
    given: Given,
) -> _Walk:
    run = RolloutConfig(seed=config.seed, memory=config.memory)
    prompt = given.prompt
    mark = state_files.fingerprint(
        world, start, cameras, run, prompt, _marked(given.depth), _marked_masks(given.masks)
    )
    state = None
    if state_path is not None and config.resume and state_path.is_file():
        state = state_files.load_state(state_path, mark)
        say(f"going on after chunk {state.next_chunk}")
    if state is None:
        state = start_rollout(world, start, cameras, run)
    started, providers = state.counts, _providers(world, state, config, given)
    if started is not None and (text := kept_out_text(started)):
        say(f"start picture:{text}")
    plan = plan_chunks(cameras.cam_to_world.shape[1], world.spec.chunk)
    results, memories = [], []
    walked = rollout(world, start, cameras, run, providers=providers, prompt=prompt, state=state)
    for result in walked:
        state = result.state
        results.append(result)
        memories.append(outputs.single_memory(state.memory))
        if state_path is not None:
            state_files.save_state(state_path, state, mark)
        say(
            f"chunk {state.next_chunk}/{len(plan)} frames={result.chunk.stop} "
            f"rows={int(result.rows[0])}{_more(result)} "
            f"seconds={sum(result.seconds.values()):.1f}"
        )
    return _Walk(started, state, results, memories, decode_latents(world, state.latents)[0])


def _providers(world: World, state: RolloutState, config: WalkConfig, given: Given) -> Providers:
    """Return what takes the place of the world's models from a state on."""
    _, depth, masks = given
    providers, pictures = Providers(), ChunkPictures(world, state.latents)
    if isinstance(depth, EstimatedDepth):
        # A memory that stays empty fits nothing, which is not worth a line for each frame.
        asked = depth if config.memory else depth.silenced()
        providers = providers._replace(depth=asked.provider(pictures))
    elif depth is not None:
        keep = None if depth.keep is None else depth.keep[None]
        providers = providers._replace(depth=path_depth(world.spec, depth.depth[None], keep))
    if isinstance(masks, np.ndarray):
        providers = providers._replace(keep=path_masks(world.spec, masks[None]))
    elif masks is not None and config.memory:
        providers = providers._replace(keep=decoded_masks(pictures, masks))
    return providers


def _marked_masks(masks: Any) -> list[Any] | None:
    """Return what of given masks decides the result."""
    if masks is None or isinstance(masks, np.ndarray):
        return None if masks is None else [masks]
    return [np.frombuffer(masks.name.encode(), np.uint8)]


def _marked(depth: PathDepth | EstimatedDepth | None) -> Iterable[Any] | None:
    """Return what of a given depth decides the result."""
    if not isinstance(depth, EstimatedDepth):
        return depth
    how = "none" if depth.align is None else depth.align.model
    return [np.frombuffer(f"{depth.name} {how}".encode(), np.uint8)]


def _more(result: ChunkResult) -> str:
    """Say what was kept out, which past frames were shown again, and what had no room."""
    shown, dropped = result.references[0], int(result.dropped[0])
    text = kept_out_text(result.state.counts)
    text += f" references={','.join(map(str, shown))}" if shown else ""
    return f"{text} dropped={dropped}" if dropped else text


def _revisit(
    world: World, scene: Scene, cameras: Camera, main: _Walk, other: _Walk | None, memory: bool
) -> dict[str, Any]:
    """Score the last frame against the input; every value is None where the path does not close."""
    keys = (
        "psnr_on",
        "psnr_off",
        "psnr_ceiling",
        "ssim_on",
        "displacement_px",
        "displacement_median_px",
    )
    scores: dict[str, Any] = dict.fromkeys(keys)
    if not closes(cameras):
        return scores
    still = 1 + (_STILL_LATENTS - 1) * world.spec.chunk.temporal_stride
    ceiling = reconstruct(world, np.repeat(scene.image[None, None], still, axis=1))[0]
    scores["psnr_ceiling"] = float(image.psnr(scene.image, ceiling[-1]))
    scores["psnr_ceiling_first"] = float(image.psnr(scene.image, ceiling[0]))
    moved = image.displacement(scene.image, main.frames[-1])
    scores["displacement_px"], scores["displacement_median_px"] = moved.mean, moved.median
    scores["psnr_on" if memory else "psnr_off"] = float(image.psnr(scene.image, main.frames[-1]))
    if memory:
        scores["ssim_on"] = float(image.ssim(scene.image, main.frames[-1]))
    if other is not None:
        scores["psnr_off"] = float(image.psnr(scene.image, other.frames[-1]))
    return scores


def _write_sheet(
    path: Path, world: World, scene: Scene, cameras: Camera, main: _Walk, other: _Walk | None
) -> None:
    """Write input, farthest view, return, return without memory and what the read looked like."""
    farthest = farthest_frame(cameras)
    ends = "return" if closes(cameras) else "last frame"
    titles = ["input", f"farthest view (frame {farthest})", ends]
    pictures = [scene.image, main.frames[farthest], main.frames[-1]]
    if other is not None:
        titles.append(f"{ends}, memory off")
        pictures.append(other.frames[-1])
    if main.results:
        titles.append("what the memory read looked like")
        pictures.append(_decoded_read(world, main)[-1])
    sheet.write_sheet(
        path,
        [pictures],
        titles,
        f"{scene.name}, {len(main.frames)} frames, world {world.spec.name}",
    )


def _decoded_read(world: World, main: _Walk) -> np.ndarray:
    """Decode what memory alone showed, holes filled; frames before a resume are the video's."""
    base = np.concatenate([result.base for result in main.results], axis=1)
    latents = np.concatenate([main.state.latents[:, : -base.shape[1]], base], axis=1)
    return decode_latents(world, latents)[0]


def _conditioning(world: World, main: _Walk) -> np.ndarray | None:
    """Return what memory showed as a video, dark where it showed nothing."""
    if not main.results:
        return None
    frames = _decoded_read(world, main)
    seen = np.concatenate([result.visibility for result in main.results], axis=1)[0]
    # One latent frame stands for the frames since the one before, one cell for its pixels.
    rows, columns = (frames.shape[axis] // seen.shape[axis] for axis in (1, 2))
    seen = seen.repeat(world.spec.chunk.temporal_stride, 0).repeat(rows, 1).repeat(columns, 2)
    dark = np.where(seen, 1.0, _DARKENED)[..., None]
    start = len(frames) - len(seen)
    shaded = np.round(frames[start:] * dark).astype(np.uint8)
    return np.concatenate([frames[:start], shaded])


def farthest_frame(cameras: Camera) -> int:
    """Return the frame whose camera differs most from the first: radians plus relative travel."""
    first, pose = cameras.cam_to_world[0], cameras.cam_to_world
    cosine = (np.einsum("ij,fij->f", first[:3, :3], pose[:, :3, :3]) - 1.0) / 2.0
    travel = np.linalg.norm(pose[:, :3, 3] - first[:3, 3], axis=-1)
    return int(
        np.argmax(np.arccos(np.clip(cosine, -1.0, 1.0)) + travel / max(float(travel.max()), 1e-9))
    )
