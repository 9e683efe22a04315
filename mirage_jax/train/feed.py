"""Which clips a step sees, and a thread that makes the next batches while the device works.

Conventions: a batch is a pure function of (seed, step); the feed carries no state, so starting it
at step N gives what an uninterrupted run would have seen at step N. Read next:
`mirage_jax/train/loop.py`.
"""

from __future__ import annotations

import collections
import concurrent.futures
from collections.abc import Callable, Generator
from typing import Any

import numpy as np

from mirage_jax.prng import Purpose, generator_for

Batch = dict[str, np.ndarray]


def clip_indices(num_clips: int, *, seed: int, step: int, batch: int) -> np.ndarray:
    """Return the clip indices [batch] int64 of `step`.

    Every epoch is a fresh permutation, so each clip comes once in it.
    """
    if num_clips < 1:
        raise ValueError(
            f"clips: got {num_clips}, expected at least 1; record more with `mirage record`"
        )
    positions = np.arange(step * batch, (step + 1) * batch)
    epochs = {
        e: generator_for(seed, e, Purpose.CLIP_ORDER).permutation(num_clips)
        for e in set((positions // num_clips).tolist())
    }
    return np.array([epochs[int(p) // num_clips][int(p) % num_clips] for p in positions])


def prefetch(
    batch_at: Callable[[int], Any], start: int, stop: int, ahead: int = 3
) -> Generator[Any]:
    """Yield `batch_at(start)`, ..., `batch_at(stop - 1)` in order.

    They are made up to `ahead` steps early in one thread.

    An exception raised by `batch_at` is raised here, at the step it belongs to.
    """
    pool = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="feed")
    waiting: collections.deque[concurrent.futures.Future[Any]] = collections.deque()
    try:
        for step in range(start, stop + ahead):
            if step < stop:
                waiting.append(pool.submit(batch_at, step))
            if step >= start + ahead and waiting:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
