"""How far a run is, and how long it will still take.

The time left is that of the rows left, each as long as the rows of the same system took, or the
mean of all where there is none yet. The first row of a system compiles it and does not count once
there is another.
Read next: `run_protocol.py`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

# At least so many seconds lie between two lines.
_PAUSE = 15.0


class Work(NamedTuple):
    """A row of a batch: protocols, system or anchor, seed, first scene, whether it generates."""

    protocols: str
    name: str
    seed: int
    first: int
    generates: bool


class Progress:
    """Tells how far a run is."""

    def __init__(
        self,
        work: Sequence[Work],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Take all that is to be done."""
        self._left, self._total, self._say, self._clock = list(work), len(work), say, clock
        self._began = self._said = clock()
        self._spent: dict[tuple[str, str], list[float]] = {}

    @contextlib.contextmanager
    def doing(self, work: Work) -> Iterator[None]:
        """Count the time of a row."""
        began = self._clock()
        yield
        now = self._clock()
        self._spent.setdefault((work.protocols, work.name), []).append(now - began)
        self._left.remove(work)
        if now - self._said >= _PAUSE or not self._left:
            self._said = now
            self._say(
                f"{work.protocols} scenes from {work.first + 1}: {work.name} seed {work.seed} "
                f"done, {self._total - len(self._left)}/{self._total} rows, "
                f"{(now - self._began) / 60:.1f} min, {self.seconds_left() / 60:.0f} min left"
            )

    def seconds_left(self) -> float:
        """Return how long what is left will take, from what was done."""
        steady = {key: _mean(times[1:] or times) for key, times in self._spent.items()}
        if not steady:
            return float("nan")
        settled = [t for times in self._spent.values() for t in times[1:]]
        other = _mean(settled or list(steady.values()))
        return sum(steady.get((w.protocols, w.name), other) for w in self._left)

    def end(self) -> None:
        """Say how long it took."""
        took = self._clock() - self._began
        self._say(f"{self._total} rows in {took / 60:.1f} min")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
