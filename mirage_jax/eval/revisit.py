"""Closed-loop revisits: leave a view completely, come back, compare the last frame with the first.

Protocol: a start picture, an out-and-back path whose farthest view shares nothing with the first
and whose last latent frame stands at the start camera; PSNR, SSIM and displacement of the last
frame against the input picture. Rows:

* `memory on`, `memory off`: the same weights, noise and path; off means a memory that stays empty.
* `read`: what memory alone shows on the return (hole-filled, corrected by the learned read),
  decoded; `raw read` without the learned read. Both read the memory of the `memory on` rollout.
* `copy`: the input picture itself; perfect at the return by definition, which is why `farthest` is
  printed: PSNR of the farthest frame against the input, high only for something that never left.
* `ceiling`: the codec's reconstruction of the input held still, its last frame, coded like the
  rollout's last frame; `ceiling first`: the input coded alone, as the rollout's first frame is.

Read next: `mirage_jax/eval/follow.py`, `mirage_jax/eval/report.py`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from mirage_jax.eval import image, report
from mirage_jax.eval.views import overlap, pick_views, stack_starts
from mirage_jax.geometry.camera import Camera, index_camera, stack_cameras
from mirage_jax.geometry.trajectories import TrajectoryOptions, trajectory
from mirage_jax.rollout import sheet
from mirage_jax.rollout.chunk import Providers
from mirage_jax.rollout.decode import decode_latents, reconstruct
from mirage_jax.rollout.loop import RolloutConfig, rollout
from mirage_jax.rollout.paths import typical_depth
from mirage_jax.rollout.scene import Scene, fit_scene
from mirage_jax.rollout.world import World

ON, OFF, READ, RAW, COPY, CEILING, CEILING_FIRST = (
    "memory on",
    "memory off",
    "read",
    "raw read",
    "copy",
    "ceiling",
    "ceiling first",
)
_COLUMNS = (
    ("psnr", "PSNR dB", 2),
    ("median:psnr", "median PSNR", 2),
    ("ssim", "SSIM", 3),
    ("displacement", "displacement px", 2),
    ("median:displacement", "median displacement", 2),
    ("farthest", "farthest vs input dB", 1),
)
# Frames of the still clip that measures the ceiling: its last latent frame has one like it before.
_STILL_LATENTS = 3


@dataclasses.dataclass(frozen=True)
class RevisitConfig:
    """Size of a revisit evaluation.

    Attributes:
        views: start views.
        chunks: chunks of each path.
        batch: rollouts run side by side.
        seed: of the noise.
        path: preset that closes.
    """

    views: int = 64
    chunks: int = 4
    batch: int = 8
    seed: int = 0
    path: str = "out-and-back"


def evaluate_revisit(
    world: World,
    clips: Sequence[Any],
    config: RevisitConfig,
    directory: Path,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Run the evaluation and write revisit.json, revisit.md and revisit.png.

    Args:
        world: what is measured.
        clips: random access to the clips of a split.
        config: sizes.
        directory: where reports go.
        say: receives progress lines.

    Returns:
        What revisit.json holds.
    """
    began = time.perf_counter()
    frames = 1 + config.chunks * world.spec.chunk.new_frames
    scenes = [fit_scene(scene, world.spec.frame_hw) for scene in pick_views(clips, config.views)]
    panels: list[list[np.ndarray]] = []
    overlaps: list[float] = []
    table: dict[str, dict[str, list[float]]] = {}
    for first in range(0, len(scenes), config.batch):
        part = scenes[first : first + config.batch]
        cameras = closed_paths(part, frames, config.path, first)
        overlaps += [
            overlap(scene, index_camera(c, frames // 2))
            for scene, c in zip(part, cameras, strict=True)
        ]
        videos = revisit_videos(world, part, stack_cameras(cameras), config.seed + first)
        _extend(table, score_returns(np.stack([scene.image for scene in part]), videos))
        panels += _panels(part, videos)
        say(
            f"revisit views={min(first + config.batch, len(scenes))}/{len(scenes)} "
            f"seconds={time.perf_counter() - began:.0f}"
        )
    results = {
        "protocol": dataclasses.asdict(config)
        | {"frames": frames, "farthest_overlap_max": max(overlaps)},
        "rows": report.summarize_table(table),
        "gain_on_over_off": report.paired_gain(table, ON, OFF),
        "gain_on_over_read": report.paired_gain(table, ON, READ),
        "below_ceiling": report.paired_gain(table, CEILING, ON),
        "views": {row: dict(metrics) for row, metrics in table.items()},
        "names": [scene.name for scene in scenes],
        "seconds": time.perf_counter() - began,
    }
    report.write_report(directory, "revisit", results, _markdown(world, results, table))
    titles = (
        "input",
        "farthest view",
        "return, memory on",
        "return, memory off",
        "memory read, decoded",
    )
    sheet.write_sheet(directory / "revisit.png", panels[:8], titles)
    return results


def closed_paths(scenes: Sequence[Scene], frames: int, path: str, first: int = 0) -> list[Camera]:
    """Return one closed path for each scene, to the right and to the left in turns."""
    return [
        trajectory(
            path,
            scene.camera,
            frames,
            typical_depth(scene),
            TrajectoryOptions(mirror=bool((first + i) % 2), hw=scene.depth.shape),
        )
        for i, scene in enumerate(scenes)
    ]


def revisit_videos(
    world: World,
    scenes: Sequence[Scene],
    cameras: Camera,
    seed: int,
    providers: Providers | None = None,
) -> dict[str, UInt8[np.ndarray, "b f H W 3"]]:
    """Generate every row's video for a batch of scenes.

    Args:
        world: what is measured.
        scenes: of the world's frame size.
        cameras: [b, f] closed paths.
        seed: of the noise of the first scene.
        providers: replacements of the models.

    Returns:
        Row name -> frames.
    """
    start = stack_starts(scenes)
    latents, reads = {}, {}
    for row, memory in ((ON, True), (OFF, False)):
        config = RolloutConfig(seed=seed, memory=memory)
        results = list(rollout(world, start, cameras, config, providers=providers))
        latents[row] = results[-1].state.latents
        if memory:
            first = latents[row][:, :1]
            reads[READ] = np.concatenate([first] + [result.base for result in results], axis=1)
            reads[RAW] = np.concatenate([first] + [result.filled for result in results], axis=1)
    videos = {row: decode_latents(world, value) for row, value in (latents | reads).items()}
    still = 1 + (_STILL_LATENTS - 1) * world.spec.chunk.temporal_stride
    held = np.repeat(start.image[:, None], still, axis=1)
    ceiling = reconstruct(world, held)
    videos[COPY] = held
    videos[CEILING] = ceiling
    videos[CEILING_FIRST] = ceiling[:, :1]
    return videos


def score_returns(
    first: UInt8[np.ndarray, "b H W 3"], videos: dict[str, UInt8[np.ndarray, "b f H W 3"]]
) -> dict[str, dict[str, list[float]]]:
    """Score the last frame of every video against the input picture.

    Returns:
        Row -> metric -> one value for each view: psnr, ssim, displacement (mean flow, px),
        displacement_median, and for rollouts farthest (PSNR of the middle frame).
    """
    scores: dict[str, dict[str, list[float]]] = {}
    for row, video in videos.items():
        last = video[:, -1]
        moved = [image.displacement(a, b) for a, b in zip(first, last, strict=True)]
        scores[row] = {
            "psnr": image.psnr(first, last).tolist(),
            "ssim": image.ssim(first, last).tolist(),
            "displacement": [value.mean for value in moved],
            "displacement_median": [value.median for value in moved],
        }
        if row not in (CEILING, CEILING_FIRST):
            scores[row]["farthest"] = image.psnr(first, video[:, video.shape[1] // 2]).tolist()
    return scores


def _extend(
    table: dict[str, dict[str, list[float]]], scores: dict[str, dict[str, list[float]]]
) -> None:
    for row, metrics in scores.items():
        for name, values in metrics.items():
            table.setdefault(row, {}).setdefault(name, []).extend(values)


def _panels(scenes: Sequence[Scene], videos: dict[str, np.ndarray]) -> list[list[np.ndarray]]:
    middle = videos[ON].shape[1] // 2
    return [
        [
            scene.image,
            videos[ON][i, middle],
            videos[ON][i, -1],
            videos[OFF][i, -1],
            videos[READ][i, -1],
        ]
        for i, scene in enumerate(scenes)
    ]


def _markdown(world: World, results: dict[str, Any], table: report.Table) -> str:
    gains = "\n".join(
        f"- {text}: {report.interval(results[key])}, paired over views"
        for key, text in (
            ("gain_on_over_off", "memory on over memory off"),
            ("gain_on_over_read", "memory on over the decoded read"),
            ("below_ceiling", "memory on below the ceiling"),
        )
    )
    return f"""# Revisit, world {world.spec.name}

{_protocol_text(results["protocol"])}

{report.markdown_table(table, _COLUMNS)}

{gains}
"""


def _protocol_text(protocol: dict[str, Any]) -> str:
    overlap_percent = 100 * protocol["farthest_overlap_max"]
    return (
        f"{protocol['views']} start views, {protocol['path']} of {protocol['frames']} frames in "
        f"{protocol['chunks']} chunks; of the first view at most {overlap_percent:.1f} % lies in "
        "the picture at the farthest point. Last frame against the input picture; mean ± half of "
        "the 95 % bootstrap interval. A copy of the input is perfect at the return by definition."
    )
