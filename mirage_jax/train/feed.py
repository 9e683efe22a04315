"""Makes the next batches while the device works, by grain.

Conventions: a batch is a pure function of (seed, step), and each process makes the rows that its
devices hold and no others; the feed carries no state, so starting it at step N gives what an
uninterrupted run would have seen at step N, whatever the number of processes. Read next:
`mirage_jax/train/loop.py`, `mirage_jax/train/placement.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import grain

Batch = dict[str, np.ndarray]
# Which rows of a batch are wanted; None for all of them.
Rows = Sequence[int] | np.ndarray | None


def feed(
    batch_at: Callable[[int], Any], start: int, stop: int, ahead: int = 3
) -> grain.DatasetIterator[Any]:
    """Return an iterator of `batch_at(start)`, ..., `batch_at(stop - 1)` in order.

    Batches are made up to `ahead` steps early, one after the other, in a thread that ends with
    `close()`. An exception raised by `batch_at` is raised at the step it belongs to.
    """
    import grain

    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=ahead)
    return iter(grain.MapDataset.range(start, stop).map(batch_at).to_iter_dataset(options))
