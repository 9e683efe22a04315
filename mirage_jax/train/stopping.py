"""Requests to stop a run before its last step: a signal, a notice, or the end of its time.

SIGTERM is how schedulers and cloud machines say that they will take a machine back; some machines
are asked for notices of it besides (`notices.py`). Ctrl-C is asked once: the second one ends the
program at once. In a run of several processes whichever is asked tells the others through JAX's
preemption service, and all stop after the same step.
`StopRequests.reason` is to be asked by every process after every step.

Read next: `mirage_jax/train/loop.py`, `mirage_jax/distributed/exit_codes.py`.
"""

from __future__ import annotations

import contextlib
import enum
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

from jax.experimental import multihost_utils

from mirage_jax.distributed import processes
from mirage_jax.train import notices


class Reason(enum.IntEnum):
    """Why a run stopped; of several reasons the largest counts."""

    DONE = 0
    PREEMPTED = 1
    TIME = 2
    INTERRUPTED = 3


class StopRequests:
    """The requests made to this process and, where there are several, to the others."""

    def __init__(self, minutes: float = 0.0) -> None:
        self._deadline = time.monotonic() + 60.0 * minutes if minutes else float("inf")
        self._own = Reason.DONE
        self._several = processes.count() > 1

    def reason(self, step: int) -> Reason | None:
        """Return why the run is to stop after `step`, or None; the same in every process."""
        if time.monotonic() > self._deadline:
            self._deadline = float("inf")
            self.ask(Reason.TIME)
        if not self._several:
            return self._own or None
        if not multihost_utils.reached_preemption_sync_point(step):
            return None
        return Reason(processes.largest(max(self._own, Reason.PREEMPTED)))

    def ask(self, reason: Reason) -> None:
        """Ask the run to stop."""
        self._own = max(self._own, reason)
        if self._several:
            # JAX's own handler tells the other processes and finds the step to stop after.
            os.kill(os.getpid(), signal.SIGTERM)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take Ctrl-C, SIGTERM and a cloud's notices as requests.

        Outside the main thread signals are not caught.
        """

        def interrupted(number: int, frame: Any) -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self.ask(Reason.INTERRUPTED)

        def preempted(number: int, frame: Any) -> None:
            self.ask(Reason.PREEMPTED)

        handlers = {signal.SIGINT: interrupted}
        if not self._several:
            handlers[signal.SIGTERM] = preempted
        try:
            old = {number: signal.signal(number, one) for number, one in handlers.items()}
        except ValueError:
            old = {}
        try:
            with notices.watching(lambda: self.ask(Reason.PREEMPTED)):
                yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
