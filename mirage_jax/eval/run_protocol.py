"""Runs a protocol: systems and anchors on its scenes, with its seeds; goes on where it stopped.

Scenes are run in batches of fixed membership (the last one is filled up with its last scene), and a
batch of which any result is missing is run whole: what comes out does not depend on where a run was
stopped. Rollout i of a batch draws its noise from (seed, place in the list), the same for every
system. Anchors have no chance and are run once, as seed 0.
Read next: `mirage_jax/eval/summary.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mirage_jax.eval import anchors
from mirage_jax.eval.cases import Case, read_clip, recorded_case
from mirage_jax.eval.metrics import flow
from mirage_jax.eval.metrics.lpips import Lpips
from mirage_jax.eval.protocols import Item, Protocol
from mirage_jax.eval.results import Record, ResultFile, fingerprint
from mirage_jax.eval.scores import Ruler, Score
from mirage_jax.eval.scores.camera import score_camera, telling_looks
from mirage_jax.eval.scores.comeback import score_return
from mirage_jax.eval.scores.follow import score_following
from mirage_jax.eval.scores.motion import score_motion
from mirage_jax.eval.systems import SYSTEMS, run_system
from mirage_jax.eval.views import clip_scene, stack_starts
from mirage_jax.geometry.camera import Camera, stack_cameras
from mirage_jax.geometry.trajectories import TrajectoryOptions, trajectory
from mirage_jax.rollout import video as video_files
from mirage_jax.rollout.paths import typical_depth
from mirage_jax.rollout.plan import plan_chunks
from mirage_jax.rollout.world import World, WorldSpec

# Noise of different seeds never meets: rollout i of a run draws from seed * this + i.
_SEED_STEP = 100_000
# Quantiser of the videos that the report shows.
_CRF = 20
_FPS = 8.0

Judge = Callable[[np.ndarray, np.ndarray | None], Score]


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What a run has beside its protocol.

    Attributes:
        folder: where the protocol's results go.
        lpips: with its true weights, or None.
        say: receives progress lines.
    """

    folder: Path
    lpips: Lpips | None = None
    say: Callable[[str], None] = lambda line: None


def system_names(protocol: Protocol, spec: WorldSpec) -> tuple[str, ...]:
    """Return the systems of a protocol that generate, or all that the world can run.

    Raises:
        ValueError: there is none of a name.
    """
    known = [
        name
        for name, system in SYSTEMS.items()
        if system.kind == "rollout" and not system.absent(spec)
    ]
    names = protocol.setting.systems or tuple(known)
    for name in names:
        if name not in known:
            raise ValueError(f"--systems: got {name!r}, expected some of {', '.join(known)}")
    return names


def run_protocol(
    world: World, clips: Sequence[Mapping[str, Any]], protocol: Protocol, options: RunOptions
) -> ResultFile:
    """Measure what is not measured yet.

    Args:
        world: what is measured.
        clips: random access to the clips of the data set.
        protocol: items and setting.
        options: where to, and what else.

    Returns:
        All results of this world and protocol.

    Raises:
        ValueError: the data set or the world does not fit the protocol.
    """
    setting = protocol.setting
    names = system_names(protocol, world.spec)
    if setting.items > len(protocol.items):
        raise ValueError(
            f"--scenes: got {setting.items}, expected at most the {len(protocol.items)} of the list"
        )
    facts = {
        "lpips": options.lpips.checksum if options.lpips else "",
        "clips": [i.picture for i in protocol.items],
    }
    results = ResultFile(options.folder / "items.jsonl", fingerprint(world, protocol, facts))
    began = time.perf_counter()
    rows = [(name, 0) for name in anchors.DESCRIPTIONS]
    rows += [(name, seed) for name in names for seed in setting.seeds]
    for first in range(0, setting.items, setting.batch):
        # A batch has its members of the whole list: fewer scenes give the same numbers.
        items = protocol.items[first : min(first + setting.batch, len(protocol.items))]
        wanted = items[: setting.items - first]
        missing = [
            row for row in rows if any((item.name, *row) not in results.records for item in wanted)
        ]
        if not missing:
            continue
        batch = _Batch(world, clips, protocol, items, first, options.lpips)
        for name, seed in missing:
            made = batch.run(name, seed)
            results.add(batch.records(name, seed, made, len(wanted)))
            if seed == (setting.seeds[0] if name in SYSTEMS else 0) or name == anchors.COPY:
                _keep_videos(options.folder, wanted, name, made.frames)
        done = min(first + setting.batch, setting.items)
        options.say(
            f"{protocol.name} scenes={done}/{setting.items} "
            f"seconds={time.perf_counter() - began:.0f}"
        )
    return results


class _Made(NamedTuple):
    """Videos [b, f, H, W, 3], and where a memory showed something [b, l, h, w] if one was read."""

    frames: np.ndarray
    seen: np.ndarray | None


class _Batch:
    """The scenes of one batch, and what judges them."""

    def __init__(
        self,
        world: World,
        clips: Sequence[Mapping[str, Any]],
        protocol: Protocol,
        items: Sequence[Item],
        first: int,
        lpips: Lpips | None,
    ) -> None:
        self._world, self._protocol, self._first = world, protocol, first
        setting = protocol.setting
        make = functools.partial(_case, world, clips, protocol)
        self._cases = [make(item, first + i) for i, item in enumerate(items)]
        self._judges: dict[int, Judge] = {}
        filled = self._cases + self._cases[-1:] * (setting.batch - len(items))
        self._start = stack_starts([case.scene for case in filled])
        self._cameras = stack_cameras([case.cameras for case in filled])
        self._truth = np.stack([case.truth for case in filled])
        frames = self._truth.shape[1]
        ends = tuple(chunk.stop for chunk in plan_chunks(frames, world.spec.chunk))
        self._ruler = Ruler(chunk_ends=ends, lpips=lpips)

    def run(self, name: str, seed: int) -> _Made:
        """Return the videos of a system or an anchor."""
        if name in anchors.DESCRIPTIONS:
            made = anchors.anchor_videos(name, self._world, self._truth)
            return _Made(made, None)
        noise = seed * _SEED_STEP + self._first
        run = run_system(SYSTEMS[name], self._world, self._start, self._cameras, noise)
        return _Made(run.frames, run.visibility if run.visibility.any() else None)

    def records(self, name: str, seed: int, made: _Made, count: int) -> list[Record]:
        """Judge the first `count` videos."""
        records = []
        for i, case in enumerate(self._cases[:count]):
            if i not in self._judges:
                self._judges[i] = judge_of(self._protocol, case, self._ruler)
            seen = None if made.seen is None else made.seen[i]
            score = self._judges[i](made.frames[i], seen)
            records.append(
                Record(case.item.name, name, seed, score.metrics, score.curves, score.sums)
            )
        return records


def judge_of(protocol: Protocol, case: Case, ruler: Ruler) -> Judge:
    """Return what scores a video of a case under a protocol."""
    if protocol.name == "nvs":
        return lambda video, seen: score_following(case, video, seen, ruler)
    if protocol.name == "revisit":
        return lambda video, seen: score_return(case, video, seen, ruler, protocol.setting.laps)
    if protocol.name == "camera":
        looks = telling_looks(case, protocol.setting.looks)
        return lambda video, seen: score_camera(case, video, looks)
    fields = flow.flows(case.truth)
    return lambda video, seen: score_motion(case, video, fields)


def _case(
    world: World,
    clips: Sequence[Mapping[str, Any]],
    protocol: Protocol,
    item: Item,
    place: int,
) -> Case:
    clip = read_clip(clips, item, world.spec.frame_hw)
    if protocol.name != "revisit":
        return recorded_case(clip, item, protocol.setting.frames)
    scene = clip_scene(clip, item.frame, item.name)
    cameras = closed_laps(scene, protocol, mirror=bool(place % 2))
    # What stands still looks the same at every return; the recording does not go there.
    held = np.broadcast_to(scene.image, (len(cameras.cam_to_world), *scene.image.shape))
    return Case(item=item, scene=scene, cameras=cameras, truth=held)


def closed_laps(scene: Any, protocol: Protocol, mirror: bool) -> Camera:
    """Return the closed path of a scene, walked as often as the setting says."""
    setting = protocol.setting
    lap = trajectory(
        setting.path,
        scene.camera,
        setting.frames,
        typical_depth(scene),
        TrajectoryOptions(mirror=mirror, hw=scene.depth.shape),
    )
    order = np.concatenate(
        [np.arange(setting.frames), *[np.arange(1, setting.frames)] * (setting.laps - 1)]
    )
    return Camera(*(np.asarray(leaf)[order] for leaf in lap))


def video_path(folder: Path, item: str, system: str) -> Path:
    """Return where the report's video of a scene and system lies."""
    return folder / "videos" / f"{item}_{system}.mp4"


def _keep_videos(folder: Path, items: Sequence[Item], name: str, videos: np.ndarray) -> None:
    for item, frames in zip(items, videos, strict=False):
        video_files.write_video(video_path(folder, item.name, name), frames, _FPS, crf=_CRF)
