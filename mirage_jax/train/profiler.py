"""A profile of a few updates, on demand.

Asked for before the run (`--profile 10:13`), or while it runs: by SIGUSR1, or by making a file
named `profile` in the stage's folder (`touch runs/doom/denoiser/profile`). The trace lies beside
the TensorBoard files and is read with `xprof` or TensorBoard's profile plugin.

Conventions: windows count updates from 1, both ends included. Each process traces its own devices:
all of them the window asked for before the run, the first one what the file asks for, and the one
that gets the signal what that asks for. Read next:
`mirage_jax/train/watch.py`.
"""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

# Updates of a window that is asked for while a run goes on.
_ASKED_UPDATES = 3


def parse_window(text: str) -> tuple[int, int]:
    """Read a window such as "10:13".

    Raises:
        ValueError: if it is none.
    """
    match = re.fullmatch(r"(\d+):(\d+)", text)
    first, last = map(int, match.groups()) if match else (0, 0)
    if not 1 <= first <= last:
        raise ValueError(
            f"--profile: got {text!r}, expected first:last update, counted from 1, as in 10:13"
        )
    return first, last


class Profiler:
    """Traces the updates of one window at a time."""

    def __init__(
        self,
        directory: Path,
        window: tuple[int, int] | None,
        report: Callable[[str], None],
        *,
        looks: bool = True,
    ) -> None:
        """Look out for requests.

        Args:
            directory: of the stage.
            window: first and last update to trace, or None.
            report: called with where the trace lies.
            looks: whether to look for the file.
        """
        self._request = directory / "profile"
        self._traces = directory / "tensorboard"
        self._window, self._report = window, report
        self._looks, self._asked, self._tracing = looks, False, False

    def before(self, step: int) -> None:
        """Start tracing if update `step` is the first of a window."""
        if self._tracing:
            return
        if self._asked or (self._looks and self._request.exists()):
            self._asked = False
            if self._looks:
                self._request.unlink(missing_ok=True)
            self._window = (step, step + _ASKED_UPDATES - 1)
        # A run that goes on from within a window traces what is left of it.
        if self._window and self._window[0] <= step <= self._window[1]:
            jax.profiler.start_trace(str(self._traces))
            self._tracing = True

    def after(self, step: int, metrics: Any) -> None:
        """Stop tracing if update `step` is the last of a window; waits for its `metrics`."""
        if self._tracing and self._window and step >= self._window[1]:
            jax.block_until_ready(metrics)
            self.close()

    def close(self) -> None:
        """Write the trace of a window that the run ended in."""
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing, self._window = False, None
            self._report(f"profile: trace written below {self._traces / 'plugins' / 'profile'}")

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGUSR1 as a request; outside the main thread nothing is caught."""

        def asked(number: int, frame: Any) -> None:
            self._asked = True

        try:
            old = signal.signal(signal.SIGUSR1, asked)
        except ValueError:
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGUSR1, old)
