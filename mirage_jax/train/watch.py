"""Watches a run: what its metrics are, where its time goes, and whether it still makes sense.

One `Watch` is used by the loop in each process; the first process writes, the others keep count.
It joins the parts: `metrics.py` (where numbers go), `goodput.py` (what time went into),
`throughput.py` (speed and utilisation), `profiler.py` (traces on demand), `non_finite.py` (stops
what is lost).

Conventions: updates are counted from 1. Everything about update n is looked at while update n + 1
runs, so that the host never waits for the newest one; only log lines and traces do. Read next:
`mirage_jax/train/loop.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from mirage_jax.train.goodput import Goodput
from mirage_jax.train.metrics import Means, MetricWriter
from mirage_jax.train.non_finite import NonFinite
from mirage_jax.train.objective import Objective
from mirage_jax.train.profiler import Profiler
from mirage_jax.train.throughput import Work, memory_in_use, throughput


@dataclasses.dataclass(frozen=True)
class WatchOptions:
    """What to watch beside what is always watched.

    Attributes:
        profile: first and last update to trace, or None.
        wandb: project of Weights & Biases, or "".
        work: what an update takes, for tokens a second and utilisation; None where not counted.
    """

    profile: tuple[int, int] | None = None
    wandb: str = ""
    work: Work | None = None


class Watch:
    """Watches one run of a stage, from before anything is made until everything is written."""

    def __init__(
        self,
        objective: Objective,
        directory: Path,
        options: WatchOptions,
        report: Callable[[str], None],
        *,
        writes: bool = True,
    ) -> None:
        """Start the clock.

        Args:
            objective: the stage.
            directory: of the stage.
            options: see there.
            report: called with each line for the user.
            writes: whether this process writes files.
        """
        self._objective, self._directory, self._options = objective, directory, options
        self._report, self._writes = report, writes
        self._clock = Goodput(directory / "goodput.json" if writes else None)
        self._profiler = Profiler(directory, options.profile, report, looks=writes)
        path = directory / "non_finite.json" if writes else None
        self._non_finite = NonFinite(objective.stage.max_skipped, objective.clips, path)
        self._means = Means()
        self._writer: MetricWriter | None = None
        self._started = self._logged = 0
        self._newest: tuple[int, dict[str, jax.Array]] | None = None

    @contextlib.contextmanager
    def running(self, start: int) -> Iterator[None]:
        """Watch the updates after number `start`.

        Raises:
            NonFiniteError: see `updated`.
        """
        self._started = self._logged = start
        with contextlib.ExitStack() as stack:
            stack.callback(self._clock.note)
            if self._writes:
                project = self._options.wandb
                writer = MetricWriter(self._directory, start, self._report, project)
                stack.callback(writer.close)
                self._writer = writer
            stack.enter_context(self._profiler.listening())
            stack.callback(self._profiler.close)
            yield
            self._settle()
        self._clock.now("export")

    def close(self) -> None:
        """Note where the time went."""
        self._clock.note()

    def feeding(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Pass batches through, and count the time that is waited for them."""
        while True:
            with self._clock.during("input"):
                try:
                    batch = next(batches)
                except StopIteration:
                    return
            yield batch

    @contextlib.contextmanager
    def updating(self, step: int) -> Iterator[None]:
        """Watch update `step` being started; the first one is compiled here."""
        self._profiler.before(step)
        if step == self._started + 1:
            self._clock.now("compile")
        with jax.profiler.StepTraceAnnotation("update", step_num=step):
            yield
        self._clock.updating(step)

    def updated(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Take the metrics of update `step`, once the one before is done.

        Raises:
            NonFiniteError: if that was the last of too many updates that were not finite.
        """
        self._settle()
        self._newest = step, metrics
        self._means.add(metrics)
        self._profiler.after(step, metrics)

    def _settle(self) -> None:
        """Wait for the newest update and look at it."""
        if self._newest is not None:
            step, metrics = self._newest
            self._newest = None
            jax.block_until_ready(metrics)
            self._clock.reached(step)
            self._non_finite.follow(step, metrics)

    def during(self, kind: str) -> contextlib.AbstractContextManager[None]:
        """Give the time within to another kind: "checkpoint", "validation" or "export"."""
        return self._clock.during(kind)

    def log(self, step: int) -> None:
        """Write the means since the last log, and how the time since then was spent.

        Raises:
            NonFiniteError: see `updated`.
        """
        self._settle()
        values = self._means.take()
        if self._non_finite.count:
            values["skipped_updates"] = self._non_finite.count
        passed, updates = self._clock.take(), step - self._logged
        self._logged = step
        busy = passed["update"] + passed["repeated"] + passed["input"]
        values |= throughput(self._options.work, busy / updates)
        values["input_wait"] = passed["input"] / busy if busy else 0.0
        values["goodput"] = self._clock.share
        values |= memory_in_use()
        self.write(step, values, "train")
        self._clock.note()

    def write(self, step: int, values: dict[str, float], prefix: str) -> None:
        """Write one record; see `MetricWriter.write`."""
        if self._writer is not None:
            self._writer.write(step, values, prefix)
