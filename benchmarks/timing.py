"""Times of functions that take turns, and how fast this machine copies memory.

Calls that are to be compared are interleaved, so that a machine that slows down or speeds up does
so for all of them; the median of the rounds is reported. Times are milliseconds.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

_COPY_BYTES = 1 << 28


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
            start = time.perf_counter()
            jax.block_until_ready(call())
            if number >= warmups:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: float(np.median(values)) for name, values in times.items()}


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
