"""Times of functions that take turns, and how fast this machine copies memory.

Calls that are to be compared take turns, so that a machine that slows down or speeds up does so for
all of them. In its turn a short call is repeated, and before each turn there is a pause, in which
the threads of another library stop spinning. The median of all is reported, in milliseconds.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

_COPY_BYTES = 1 << 28
_PAUSE_SECONDS = 0.03
# A turn ends after so many calls, or when they took so long together.
_TURN_CALLS, _TURN_MS = 5, 50.0


def interleave(
    calls: Mapping[str, Callable[[], Any]], rounds: int, warmups: int = 1
) -> dict[str, float]:
    """Return the median milliseconds of each call, all taking turns.

    Args:
        calls: name -> function; what it returns is waited for.
        rounds: timed rounds.
        warmups: rounds before that, which also compile.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(warmups + rounds):
        for name, call in calls.items():
            time.sleep(_PAUSE_SECONDS)
            turn = _take_turn(call)
            if number >= warmups:
                times[name] += turn
    return {name: float(np.median(values)) for name, values in times.items()}


def _take_turn(call: Callable[[], Any]) -> list[float]:
    turn: list[float] = []
    while len(turn) < _TURN_CALLS and sum(turn) < _TURN_MS:
        start = time.perf_counter()
        jax.block_until_ready(call())
        turn.append(1e3 * (time.perf_counter() - start))
    return turn


def copy_bandwidth() -> float:
    """Return bytes a second that one thread reads plus writes in a large copy, best of five."""
    source = np.ones(_COPY_BYTES, np.uint8)
    target = np.zeros_like(source)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        np.copyto(target, source)
        seconds.append(time.perf_counter() - start)
    return 2 * _COPY_BYTES / min(seconds)
