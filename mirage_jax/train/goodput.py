"""What the wall time of a stage went into, over all of its runs.

Goodput is the share of time in updates that were needed: not in starting, compiling, waiting for
input, saving, validating, or repeating updates that a killed run had not saved.

Conventions: seconds on the host's clock. Time always belongs to exactly one kind. The totals lie in
`goodput.json` in the stage's folder, with the furthest update that any run has reached; up to it,
updates are repeated ones. Between a run's last note, at most `_NOTE_SECONDS` old, and the next run
the machine's time is unknown and not counted. Read next: `mirage_jax/train/watch.py`.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mirage_jax.atomic import write_text

KINDS = ("start", "compile", "update", "repeated", "input", "checkpoint", "validation", "export")
_NOTE_SECONDS = 10.0


class Goodput:
    """The clock of one run, on top of what earlier runs of the stage noted."""

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the clock, with time to start in.

        Args:
            path: of the JSON file; None keeps the totals of this run alone, in memory.
            clock: gives seconds.
        """
        self._path, self._clock = path, clock
        noted = _read(path)
        self.seconds = {kind: float(noted.get("seconds", {}).get(kind, 0.0)) for kind in KINDS}
        self.furthest, self.runs = int(noted.get("furthest", 0)), int(noted.get("runs", 0)) + 1
        self._kind, self._since = "start", clock()
        self._noted, self._taken = self._since, dict(self.seconds)

    def now(self, kind: str) -> str:
        """Give the time from here on to a kind; return the one that had it before."""
        before, now = self._kind, self._clock()
        self.seconds[before] += now - self._since
        self._kind, self._since = kind, now
        return before

    @contextlib.contextmanager
    def during(self, kind: str) -> Iterator[None]:
        """Give the time within to a kind, and then to the one that had it before."""
        before = self.now(kind)
        try:
            yield
        finally:
            self.now(before)

    def updating(self, step: int) -> None:
        """Give the time from here on to update `step`, needed or repeated."""
        self.now("repeated" if step <= self.furthest else "update")

    def reached(self, step: int) -> None:
        """Note that update `step` was made."""
        self.furthest = max(self.furthest, step)
        if self._clock() - self._noted > _NOTE_SECONDS:
            self.note()

    @property
    def share(self) -> float:
        """Seconds in needed updates over all seconds so far."""
        self.now(self._kind)
        return self.seconds["update"] / max(sum(self.seconds.values()), 1e-9)

    def take(self) -> dict[str, float]:
        """Return the seconds of each kind since this was last asked."""
        self.now(self._kind)
        passed = {kind: total - self._taken[kind] for kind, total in self.seconds.items()}
        self._taken = dict(self.seconds)
        return passed

    def note(self) -> None:
        """Write the totals."""
        share, self._noted = self.share, self._clock()
        if self._path is None:
            return
        content = {"goodput": share, "seconds": self.seconds, "furthest": self.furthest}
        write_text(self._path, json.dumps(content | {"runs": self.runs}, indent=1) + "\n")


def _read(path: Path | None) -> dict:
    try:
        return json.loads(path.read_text()) if path is not None else {}
    except FileNotFoundError:
        return {}
