"""Record a whole split of the Doom data set: one shard a level, resumable, on several processes.

Read next: ``record.py`` for one clip, ``../builder.py`` for the files.
"""

import collections
import concurrent.futures
import dataclasses
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from mirage_jax.data.builder import SplitWriter
from mirage_jax.data.clip import ClipShape
from mirage_jax.data.doom.engine import Engine, EngineSettings
from mirage_jax.data.doom.levels import Level, levels_of, require_recordable
from mirage_jax.data.doom.record import RecordConfig, record_level
from mirage_jax.data.source import open_clips

NAME = "doom"
_DESCRIPTION = (
    "Clips of Freedoom levels (BSD licence, see https://freedoom.github.io) rendered by ViZDoom, "
    "with exact depth, cameras, sprite and moving masks."
)


@dataclasses.dataclass(frozen=True)
class SplitRequest:
    """What to record: ``levels`` empty means every level of the split."""

    directory: str
    split: str
    clips_per_level: int
    seed: int = 0
    levels: tuple[Level, ...] = ()
    record: RecordConfig = RecordConfig()
    engine: EngineSettings = EngineSettings()

    def __post_init__(self) -> None:
        if self.clips_per_level < 1:
            raise ValueError(f"clips_per_level: got {self.clips_per_level}, expected at least 1")
        for level in self.chosen_levels:
            require_recordable(level, self.split)

    @property
    def chosen_levels(self) -> tuple[Level, ...]:
        """The levels to record, in shard order."""
        return self.levels or levels_of(self.split)


class LevelReport(NamedTuple):
    """How the recording of one level went; ``seconds`` 0 when it was already there."""

    level: Level
    clips: int
    seconds: float
    rejected: collections.Counter[str]


def record_split(
    request: SplitRequest, *, workers: int = 1, report: Callable[[LevelReport], None] | None = None
) -> None:
    """Record the missing shards of a split and write the folder's metadata.

    Args:
        request: what to record and where.
        workers: processes; the result does not depend on it.
        report: called after each level.

    Raises:
        ValueError: a level is reserved, or the folder holds other clips under the same names.
    """
    shards = range(len(request.chosen_levels))
    if workers <= 1:
        with Engine(request.engine) as engine:
            for shard in shards:
                _tell(report, _record_shard(request, shard, engine))
    else:
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
            for result in pool.map(_record_shard, [request] * len(shards), shards):
                _tell(report, result)
    writer = _writer(request)
    height, width = request.engine.picture_hw
    writer.finish(ClipShape(request.record.frames, height, width), _DESCRIPTION)
    _require_same_recording(request)


def _tell(report: Callable[[LevelReport], None] | None, result: LevelReport) -> None:
    if report is not None:
        report(result)


def _writer(request: SplitRequest) -> SplitWriter:
    return SplitWriter(request.directory, NAME, request.split, len(request.chosen_levels))


def _record_shard(request: SplitRequest, shard: int, engine: Engine | None = None) -> LevelReport:
    writer = _writer(request)
    level = request.chosen_levels[shard]
    rejected: collections.Counter[str] = collections.Counter()
    if writer.has_shard(shard):
        return LevelReport(level, request.clips_per_level, 0.0, rejected)
    start = time.perf_counter()
    if engine is None:
        with Engine(request.engine) as own:
            writer.write_shard(shard, _clips(own, request, level, rejected))
    else:
        writer.write_shard(shard, _clips(engine, request, level, rejected))
    return LevelReport(level, request.clips_per_level, time.perf_counter() - start, rejected)


def _clips(
    engine: Engine, request: SplitRequest, level: Level, rejected: collections.Counter[str]
) -> Iterator[dict[str, Any]]:
    clips = record_level(
        engine, level, request.split, request.clips_per_level, request.seed, request.record
    )
    for clip, reasons in clips:
        rejected.update(reasons)
        yield clip


def _require_same_recording(request: SplitRequest) -> None:
    source = open_clips(request.directory, request.split)
    expected = len(request.chosen_levels) * request.clips_per_level
    first = source[0]
    if len(source) != expected or int(first["seed"]) != request.seed:
        raise ValueError(
            f"directory: {os.fspath(request.directory)} already held {len(source)} clips of seed "
            f"{int(first['seed'])}, expected {expected} of seed {request.seed}; record into an "
            f"empty folder"
        )
