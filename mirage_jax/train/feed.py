"""A thread that makes the next batches while the device works.

Conventions: a batch is a pure function of (seed, step), and each process makes the rows that its
devices hold and no others; the feed carries no state, so starting it at step N gives what an
uninterrupted run would have seen at step N, whatever the number of processes. Read next:
`mirage_jax/train/loop.py`, `mirage_jax/train/placement.py`.
"""

from __future__ import annotations

import collections
import concurrent.futures
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Batch = dict[str, np.ndarray]
# Which rows of a batch are wanted; None for all of them.
Rows = Sequence[int] | np.ndarray | None


class Feed:
    """Yields `batch_at(start)`, ..., `batch_at(stop - 1)` in order.

    They are made up to `ahead` steps early in one thread. An exception raised by `batch_at` is
    raised here, at the step it belongs to.
    """

    def __init__(
        self, batch_at: Callable[[int], Any], start: int, stop: int, ahead: int = 3
    ) -> None:
        self._batch_at, self._steps = batch_at, iter(range(start, stop))
        self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._waiting: collections.deque[concurrent.futures.Future[Any]] = collections.deque()
        for _ in range(ahead):
            self._begin_next()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self._waiting:
            self.close()
            raise StopIteration
        batch = self._waiting.popleft().result()
        self._begin_next()
        return batch

    def close(self) -> None:
        """End the thread; batches that are not begun are not made."""
        self._waiting.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _begin_next(self) -> None:
        for step in self._steps:
            self._waiting.append(self._pool.submit(self._batch_at, step))
            return
