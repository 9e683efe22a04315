"""A thread that makes the next batches while the device works.

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

Batch = dict[str, np.ndarray]


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
