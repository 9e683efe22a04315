"""Runs protocols: systems and anchors on their scenes, with their seeds; goes on where it stopped.

Scenes are run in batches of fixed membership (the last one is filled up with its last scene), and a
batch of which any result is missing is run whole: what comes out does not depend on where a run was
stopped. Rollout i of a batch draws its noise from (seed, place in the list), the same for every
system. Anchors have no chance and are run once, as seed 0.

Protocols that follow the same paths share their videos: a shorter one takes the first frames of the
longest where it ends with a whole chunk, since these are the frames it would have made. Scoring
goes on in other processes meanwhile (`judges.py`).
Read next: `progress.py`, `mirage_jax/eval/summary.py`.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mirage_jax.eval import anchors
from mirage_jax.eval.cases import Case, case_of, read_clip
from mirage_jax.eval.judges import Judges, Nets, Task, answer
from mirage_jax.eval.pixel_caches import PathDepth
from mirage_jax.eval.progress import Progress, Work
from mirage_jax.eval.protocols import Item, Protocol
from mirage_jax.eval.results import Record, ResultFile, fingerprint
from mirage_jax.eval.scores import Score
from mirage_jax.eval.systems import SYSTEMS, run_system
from mirage_jax.eval.views import stack_starts
from mirage_jax.geometry.camera import stack_cameras
from mirage_jax.rollout.plan import plan_chunks
from mirage_jax.rollout.world import World, WorldSpec

# Noise of different seeds never meets: rollout i of a run draws from seed * this + i.
_SEED_STEP = 100_000
# Rows of a protocol that wait for their scores, so that generating never runs far ahead.
_MOST_WAITING = 6


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What a run has beside its protocol.

    Attributes:
        folder: where the folders of protocols go.
        nets: networks that measure, such as LPIPS with its true weights.
        say: receives progress lines.
        workers: processes that score beside the one that generates; 0 scores in that one.
    """

    folder: Path
    nets: Nets = Nets()
    say: Callable[[str], None] = lambda line: None
    workers: int = 0


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
    """Measure what is not measured yet of one protocol; see `run_protocols`."""
    return run_protocols(world, clips, [protocol], options)[0]


def run_protocols(
    world: World,
    clips: Sequence[Mapping[str, Any]],
    protocols: Sequence[Protocol],
    options: RunOptions,
) -> list[ResultFile]:
    """Measure what is not measured yet.

    Args:
        world: what is measured.
        clips: random access to the clips of the data set.
        protocols: items and settings.
        options: where to, and what else.

    Returns:
        The results of each protocol that were asked for: files may hold those of more scenes,
        seeds and systems, which would not be of the same scenes.

    Raises:
        ValueError: the data set or the world does not fit a protocol.
    """
    targets = [_target(world, protocol, options) for protocol in protocols]
    jobs = list(_jobs(world, targets))
    if not jobs:
        return [_asked(world, target) for target in targets]
    progress = Progress([work for job in jobs for work in job.work()], options.say)
    judges = Judges(options.workers, options.nets)
    try:
        waiting: collections.deque[_Scored] = collections.deque()
        for job in jobs:
            batch = _Batch(world, clips, job, judges)
            for row in job.rows:
                with progress.doing(job.work_of(row)):
                    waiting.extend(batch.run(row))
                    while len(waiting) > _MOST_WAITING:
                        _add(waiting.popleft())
            judges.forget()
        while waiting:
            _add(waiting.popleft())
        judges.check(wait=True)
    finally:
        judges.close()
    progress.end()
    return [_asked(world, target) for target in targets]


class _Target(NamedTuple):
    """A protocol that is run, and where its results go."""

    protocol: Protocol
    folder: Path
    results: ResultFile

    @property
    def paths(self) -> tuple:
        """What its videos depend on, but their length: equal for protocols that share them."""
        protocol, setting = self.protocol, self.protocol.setting
        closed = (setting.path, setting.laps, setting.frames)
        kind = closed if protocol.name == "revisit" else ()
        return kind, protocol.items, setting.batch, setting.depth

    def wanted(self, first: int) -> tuple[Item, ...]:
        """Return the scenes of a batch that count."""
        setting = self.protocol.setting
        return self.protocol.items[first : min(first + setting.batch, setting.items)]

    def lacks(self, row: _Row, first: int) -> bool:
        """Whether a result of a row is missing in a batch."""
        name, seed = row
        return any((i.name, name, seed) not in self.results.records for i in self.wanted(first))


class _Row(NamedTuple):
    """A system or an anchor with a seed."""

    name: str
    seed: int


class _Job(NamedTuple):
    """A batch of scenes: which rows are to be run, and for which protocols each."""

    first: int
    rows: dict[_Row, list[_Target]]

    @property
    def targets(self) -> list[_Target]:
        """All protocols of the batch, those of the longest videos first."""
        found = {t.protocol.name: t for targets in self.rows.values() for t in targets}
        return sorted(found.values(), key=lambda t: -t.protocol.setting.frames)

    def work_of(self, row: _Row) -> Work:
        """Return what a row is to people who wait."""
        names = "+".join(target.protocol.name for target in self.rows[row])
        return Work(names, row.name, row.seed, self.first, row.name in SYSTEMS)

    def work(self) -> list[Work]:
        """Return all of it."""
        return [self.work_of(row) for row in self.rows]


class _Scored(NamedTuple):
    """Scores of a row's videos that are on their way."""

    target: _Target
    row: _Row
    scores: list[tuple[Item, Future[Score]]]


def _add(scored: _Scored) -> None:
    """Wait for the scores of a row and write them down."""
    records = []
    for item, future in scored.scores:
        score = answer(future)
        records.append(Record(item.name, *scored.row, score.metrics, score.curves, score.sums))
    scored.target.results.add(records)


def _target(world: World, protocol: Protocol, options: RunOptions) -> _Target:
    setting = protocol.setting
    if setting.items > len(protocol.items):
        raise ValueError(
            f"--scenes: got {setting.items}, expected at most the {len(protocol.items)} of the list"
        )
    if setting.depth == "true" and protocol.name == "revisit":
        raise ValueError(
            "revisit: got depth='true', expected 'head': its paths were not recorded, so that "
            "their depth is not known; take nvs, camera or motion"
        )
    system_names(protocol, world.spec)
    nets = options.nets
    facts = {
        "lpips": nets.lpips.checksum if nets.lpips else "",
        "raft": nets.raft.checksum if nets.raft else "",
        "clips": [i.picture for i in protocol.items],
    }
    folder = options.folder / protocol.folder
    results = ResultFile(folder / "items.jsonl", fingerprint(world, protocol, facts))
    return _Target(protocol, folder, results)


def _jobs(world: World, targets: Sequence[_Target]) -> Iterator[_Job]:
    """Yield batches of which something is missing; those of different paths take turns."""
    groups = _groups(world, targets)
    most = max((t.protocol.setting.items for t in targets), default=0)
    least = min((t.protocol.setting.batch for t in targets), default=1)
    for number in range(-(-most // least)):
        for group in groups:
            first = number * group[0].protocol.setting.batch
            rows: dict[_Row, list[_Target]] = {}
            for target in group:
                for row in _rows(world, target):
                    if target.lacks(row, first):
                        rows.setdefault(row, []).append(target)
            if rows:
                yield _Job(first, rows)


def _groups(world: World, targets: Sequence[_Target]) -> list[list[_Target]]:
    """Return protocols that share their videos, those of the longest first."""
    groups: list[list[_Target]] = []
    for target in sorted(targets, key=lambda t: -t.protocol.setting.frames):
        for group in groups:
            frames = group[0].protocol.setting.frames
            ends = (chunk.stop for chunk in plan_chunks(frames, world.spec.chunk))
            # What fills up a short last chunk stands still, which the frames before it see.
            if group[0].paths == target.paths and target.protocol.setting.frames in ends:
                group.append(target)
                break
        else:
            groups.append([target])
    return groups


def _rows(world: World, target: _Target) -> list[_Row]:
    names = system_names(target.protocol, world.spec)
    rows = [_Row(name, 0) for name in anchors.DESCRIPTIONS]
    return rows + [_Row(name, seed) for name in names for seed in target.protocol.setting.seeds]


def _asked(world: World, target: _Target) -> ResultFile:
    """Return the results of the scenes, systems and seeds of a protocol's setting."""
    items = target.protocol.items[: target.protocol.setting.items]
    return target.results.only((item.name, *row) for row in _rows(world, target) for item in items)


class _Batch:
    """The scenes of one batch, and what makes their videos."""

    def __init__(
        self, world: World, clips: Sequence[Mapping[str, Any]], job: _Job, judges: Judges
    ) -> None:
        """Read the scenes."""
        self._world, self._job, self._judges = world, job, judges
        longest = job.targets[0].protocol
        batch = longest.setting.batch
        # A batch has its members of the whole list: fewer scenes give the same numbers.
        items = longest.items[job.first : job.first + batch]
        read = [read_clip(clips, item, world.spec.frame_hw) for item in items]
        self._tasks: dict[str, list[Task]] = {}
        for target in job.targets:
            cases = [
                case_of(clip, target.protocol, item, job.first + i)
                for i, (clip, item) in enumerate(zip(read, items, strict=True))
            ]
            chunks = plan_chunks(len(cases[0].truth), world.spec.chunk)
            ends = tuple(chunk.stop for chunk in chunks)
            tasks = [Task(target.protocol, case, ends) for case in cases]
            self._tasks[target.protocol.name] = tasks
        for i in range(len(items)):
            judges.open(i, [tasks[i] for tasks in self._tasks.values()])
        cases = [task.case for task in self._tasks[longest.name]]
        filled = cases + cases[-1:] * (batch - len(cases))
        self._start = stack_starts([case.scene for case in filled])
        self._cameras = stack_cameras([case.cameras for case in filled])
        self._truth = np.stack([case.truth for case in filled])
        self._depth = _path_depth(filled) if longest.setting.depth == "true" else None

    def run(self, row: _Row) -> list[_Scored]:
        """Make the videos of a row and have them scored, for each protocol that lacks it."""
        made = self._made(row)
        self._judges.check()
        scored, kept = [], None
        for target in sorted(self._job.rows[row], key=lambda t: -t.protocol.setting.frames):
            scored.append(self._scored(target, row, made))
            if row.seed == (target.protocol.setting.seeds[0] if row.name in SYSTEMS else 0):
                kept = self._keep(target, row, made, kept)
        return scored

    def _made(self, row: _Row) -> _Made:
        """Return the videos of a system or an anchor."""
        name, seed = row
        if name in anchors.DESCRIPTIONS:
            return _Made(anchors.anchor_videos(name, self._world, self._truth), None)
        run = run_system(
            SYSTEMS[name],
            self._world,
            self._start,
            self._cameras,
            seed * _SEED_STEP + self._job.first,
            path_depth=self._depth,
        )
        return _Made(run.frames, run.visibility)

    def _scored(self, target: _Target, row: _Row, made: _Made) -> _Scored:
        tasks = self._tasks[target.protocol.name]
        frames = len(tasks[0].case.truth)
        seen = made.seen
        if seen is not None:
            seen = seen[:, : (frames - 1) // self._world.spec.chunk.temporal_stride]
            # A system that never reads has no holes.
            seen = seen if seen.any() else None
        scores = []
        for i, item in enumerate(target.wanted(self._job.first)):
            shown = None if seen is None else seen[i]
            video = made.frames[i, :frames]
            scores.append((item, self._judges.score(i, tasks[i], video, shown)))
        return _Scored(target, row, scores)

    def _keep(
        self, target: _Target, row: _Row, made: _Made, kept: tuple[int, Path] | None
    ) -> tuple[int, Path]:
        """Write the videos of a protocol; equal ones of the protocol before are copied."""
        frames = len(self._tasks[target.protocol.name][0].case.truth)
        for i, item in enumerate(target.wanted(self._job.first)):
            same = None
            if kept is not None and kept[0] == frames:
                same = video_path(kept[1], item.name, row.name)
            path = video_path(target.folder, item.name, row.name)
            self._judges.keep(i, path, made.frames[i, :frames], same)
        return frames, target.folder


class _Made(NamedTuple):
    """Videos [b, f, H, W, 3], and where a memory showed something [b, l, h, w]."""

    frames: np.ndarray
    seen: np.ndarray | None


def _path_depth(cases: Sequence[Case]) -> PathDepth:
    """Return the recorded depth of the paths, and what stands still there."""
    depths, moving = zip(*((case.depths, case.moving) for case in cases), strict=True)
    return PathDepth(np.stack(depths), ~np.stack(moving))


def video_path(folder: Path, item: str, system: str) -> Path:
    """Return where the report's video of a scene and system lies."""
    return folder / "videos" / f"{item}_{system}.mp4"
