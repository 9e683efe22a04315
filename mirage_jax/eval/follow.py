"""Camera following: rollouts along recorded paths against the frames that the engine really showed.

The rollout gets the first frame, its depth and the recorded cameras, nothing else. Rows, on whole
frames 1..f-1:

* `sample`: the generated frames, memory on; `memory off`: the same with a memory that stays empty.
* `read`: what memory showed at each chunk, hole-filled and corrected by the learned read, decoded;
  `nearest read`: the hole-filled read alone. Both read the memory of the `sample` rollout.
* `copy`: the first frame, repeated. `ceiling`: the true frames through the codec.

Every row has PSNR over whole frames, and at the frames that have a camera in the latents (the
last of each group) over the cells that memory showed (`visible`) and the others (`hidden`).
By-distance tables group those frames by how far their camera is from the nearest view written
before their chunk: travel over the scene's typical depth plus angle in radians.
Read next: `mirage_jax/eval/scores/follow.py`, the protocol with fixed scenes.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mirage_jax.eval import image, report
from mirage_jax.eval.views import clip_scene, is_usable, stack_starts
from mirage_jax.geometry.camera import Camera, index_camera, stack_cameras
from mirage_jax.rollout import sheet
from mirage_jax.rollout.decode import decode_latents, reconstruct
from mirage_jax.rollout.loop import RolloutConfig, rollout
from mirage_jax.rollout.paths import typical_depth
from mirage_jax.rollout.plan import plan_chunks
from mirage_jax.rollout.scene import Scene, fit_scene
from mirage_jax.rollout.world import World

SAMPLE, OFF, READ, NEAREST, COPY, CEILING = (
    "sample",
    "memory off",
    "read",
    "nearest read",
    "copy",
    "ceiling",
)
DISTANCE_EDGES = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)
_COLUMNS = (
    ("psnr", "PSNR dB", 2),
    ("visible", "visible dB", 2),
    ("hidden", "hidden dB", 2),
    ("ssim", "SSIM", 3),
)


@dataclasses.dataclass(frozen=True)
class FollowConfig:
    """Size of a following evaluation.

    Attributes:
        clips: recorded clips.
        frames: video frames of each, as the codec makes them.
        batch: rollouts run side by side.
        seed: of the noise.
    """

    clips: int = 32
    frames: int = 65
    batch: int = 8
    seed: int = 0


def evaluate_following(
    world: World,
    clips: Sequence[Any],
    config: FollowConfig,
    directory: Path,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Run the evaluation and write rollout.json, rollout.md and rollout.png.

    Args:
        world: what is measured.
        clips: random access to the clips of a split, each of at least `config.frames` frames.
        config: sizes.
        directory: where reports go.
        say: receives progress lines.

    Returns:
        What rollout.json holds.
    """
    began = time.perf_counter()
    scenes = [fit_scene(scene, world.spec.frame_hw) for scene in _pick_clips(clips, config)]
    panels: list[list[np.ndarray]] = []
    table: dict[str, dict[str, list[float]]] = {}
    by_distance: dict[str, dict[str, list[float]]] = {}
    for first in range(0, len(scenes), config.batch):
        part = scenes[first : first + config.batch]
        videos, seen = follow_videos(world, part, config.frames, config.seed + first)
        _score(world, part, videos, seen, table, by_distance)
        panels += [
            [
                _recording(part[0], config.frames)[1][config.frames // 2],
                *(videos[row][0, config.frames // 2] for row in videos),
            ]
        ]
        done = min(first + config.batch, len(scenes))
        say(f"rollout clips={done}/{len(scenes)} seconds={time.perf_counter() - began:.0f}")
    results = {
        "protocol": dataclasses.asdict(config) | {"distance_edges": DISTANCE_EDGES},
        "rows": report.summarize_table(table),
        "gain_over_read": report.paired_gain(table, SAMPLE, READ),
        "gain_over_nearest_read": report.paired_gain(table, SAMPLE, NEAREST),
        "gain_over_copy": report.paired_gain(table, SAMPLE, COPY),
        "gain_over_memory_off": report.paired_gain(table, SAMPLE, OFF),
        "by_distance": report.summarize_table(by_distance),
        "clips": {row: dict(metrics) for row, metrics in table.items()},
        "names": [scene.name for scene in scenes],
        "seconds": time.perf_counter() - began,
    }
    report.write_report(
        directory, "rollout", results, _markdown(world, results, table, by_distance)
    )
    sheet.write_sheet(
        directory / "rollout.png", panels[:8], ("truth", SAMPLE, OFF, READ, NEAREST, COPY, CEILING)
    )
    return results


def follow_videos(
    world: World, scenes: Sequence[Scene], frames: int, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Generate every row's video along recorded paths.

    Args:
        world: what is measured.
        scenes: with `path` and `frames` of at least `frames` entries.
        frames: video frames.
        seed: of the noise of the first scene.

    Returns:
        Row -> uint8 [b, frames, H, W, 3], and visibility bool [b, l - 1, h, w] from latent
        frame 1 on.
    """
    start = stack_starts(scenes)
    cameras = stack_cameras([_recording(scene, frames)[0] for scene in scenes])
    latents, visibility = {}, np.zeros(())
    for row, memory in ((SAMPLE, True), (OFF, False)):
        results = list(rollout(world, start, cameras, RolloutConfig(seed=seed, memory=memory)))
        latents[row] = results[-1].state.latents
        if memory:
            first = latents[row][:, :1]
            reads = {
                READ: np.concatenate([first] + [result.base for result in results], axis=1),
                NEAREST: np.concatenate([first] + [result.filled for result in results], axis=1),
            }
            visibility = np.concatenate([result.visibility for result in results], axis=1)
    videos = {row: decode_latents(world, value) for row, value in (latents | reads).items()}
    truth = np.stack([_recording(scene, frames)[1] for scene in scenes])
    videos[COPY] = np.repeat(start.image[:, None], frames, axis=1)
    videos[CEILING] = reconstruct(world, truth)
    return videos, visibility


def written_view_distance(world: World, cameras: Camera, scale: float) -> Float[np.ndarray, " l"]:
    """Return how far each latent frame's camera is from the nearest one written before its chunk.

    Args:
        world: its chunk shape says what was written when.
        cameras: [f] recorded cameras.
        scale: typical depth of the scene; travel is divided by it.

    Returns:
        Travel / scale + angle in radians for latent frames 1... (l - 1 values).
    """
    pose = np.asarray(cameras.cam_to_world, np.float64)[:: world.spec.chunk.temporal_stride]
    cosine = (np.einsum("aij,bij->ab", pose[:, :3, :3], pose[:, :3, :3]) - 1.0) / 2.0
    travel = np.linalg.norm(pose[:, None, :3, 3] - pose[None, :, :3, 3], axis=-1)
    distance = travel / scale + np.arccos(np.clip(cosine, -1.0, 1.0))
    nearest = []
    for chunk in plan_chunks(len(cameras.cam_to_world), world.spec.chunk):
        new = slice(chunk.first_latent + 1, chunk.first_latent + chunk.latent_frames)
        nearest.append(distance[new, : chunk.first_latent + 1].min(axis=1))
    return np.concatenate(nearest)


def _score(world: World, scenes, videos, seen, table, by_distance) -> None:
    """Append the scores of a batch of clips to the tables."""
    frames, stride = videos[SAMPLE].shape[1], world.spec.chunk.temporal_stride
    cell = world.spec.frame_hw[0] // seen.shape[2]
    for i, scene in enumerate(scenes):
        cameras, truth = _recording(scene, frames)
        keyframes = slice(stride, frames, stride)
        mask = seen[i].repeat(cell, axis=1).repeat(cell, axis=2)
        bins = np.digitize(
            written_view_distance(world, cameras, typical_depth(scene)), DISTANCE_EDGES
        )
        for row, video in videos.items():
            key_video, key_truth = video[i][keyframes], truth[keyframes]
            parts = [
                [
                    image.masked_psnr(a, b, m)
                    for a, b, m in zip(key_video, key_truth, where, strict=True)
                ]
                for where in (mask, ~mask)
            ]
            scores = {
                "psnr": float(image.psnr(video[i][1:], truth[1:]).mean()),
                "ssim": float(image.ssim(key_video, key_truth).mean()),
                "visible": _mean(parts[0]),
                "hidden": _mean(parts[1]),
            }
            for name, value in scores.items():
                table.setdefault(row, {}).setdefault(name, []).append(value)
            for value, group in zip(image.psnr(key_video, key_truth), bins, strict=True):
                by_distance.setdefault(_group_name(int(group)), {}).setdefault(row, []).append(
                    float(value)
                )


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def _group_name(group: int) -> str:
    low = DISTANCE_EDGES[group - 1]
    return (
        f"{low:g} and more"
        if group == len(DISTANCE_EDGES)
        else f"{low:g} to {DISTANCE_EDGES[group]:g}"
    )


def _recording(scene: Scene, frames: int) -> tuple[Camera, np.ndarray]:
    """Return the first recorded cameras [frames] and pictures [frames, H, W, 3]."""
    if scene.path is None or scene.frames is None:
        raise ValueError(
            f"scene {scene.name}: got no recorded path or pictures, expected both to follow it; "
            "take scenes from a recorded split"
        )
    return index_camera(scene.path, slice(0, frames)), scene.frames[:frames]


def _pick_clips(clips: Sequence[Any], config: FollowConfig) -> list[Scene]:
    scenes = []
    for index in range(len(clips)):
        clip = clips[index]
        if len(clip["rgb"]) >= config.frames and is_usable(clip["depth"][0]):
            scenes.append(clip_scene(clip, 0, f"{index:04d}"))
        if len(scenes) == config.clips:
            return scenes
    if not scenes:
        raise ValueError(
            f"--frames: got {config.frames}, expected at most the frames of a clip with a usable "
            f"start; none of {len(clips)} clips has that; ask for fewer frames"
        )
    return scenes


def _markdown(
    world: World, results: dict[str, Any], table: report.Table, by_distance: report.Table
) -> str:
    gains = "\n".join(
        f"- sample over {text}: {report.interval(results[key])}, paired over clips"
        for key, text in (
            ("gain_over_read", "the learned, hole-filled read"),
            ("gain_over_nearest_read", "the hole-filled read"),
            ("gain_over_copy", "a copy"),
            ("gain_over_memory_off", "memory off"),
        )
    )
    ordered = {
        name: by_distance[name]
        for name in map(_group_name, range(1, len(DISTANCE_EDGES) + 1))
        if name in by_distance
    }
    columns = [(row, f"{row} dB", 2) for row in table]
    return f"""# Rollouts along recorded paths, world {world.spec.name}

{len(results["names"])} clips of {results["protocol"]["frames"]} frames; PSNR of whole
frames against the true ones, the first frame left out; mean ± half of the 95 % bootstrap interval
over clips.

{report.markdown_table(table, _COLUMNS)}

{gains}

By distance of the camera from the nearest view written before its chunk (travel / typical depth +
radians):

{report.markdown_table(ordered, columns)}
"""
