"""Several data sets as one, each with a share of the draws, by index and without any state.

The clips of a mixture are those of its sources one after another; which of them a step sees is a
pure function of (seed, step), as in ``sampling.py``. Each block of ``BLOCK`` draws holds every
source exactly as often as its share says, in an order drawn for the block; within a source clips
come once per epoch of its own, so a small source with a large share is repeated and none is
favoured. Nothing is held in memory but the order of one epoch of one source.

Read next: ``sampling.py`` (one source), ``source.py`` (the clips).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mirage_jax.data.sampling import clip_indices, epoch_order
from mirage_jax.prng import Purpose, generator_for

BLOCK = 1000


@dataclasses.dataclass(frozen=True)
class ClipOrder:
    """Which clips a step sees.

    Attributes:
        lengths: clips of each source.
        weights: of the draws that go to each source, relative to each other.
    """

    lengths: tuple[int, ...]
    weights: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        right = len(self.lengths) == len(self.weights) > 0 and min(self.lengths) > 0
        if not (right and min(self.weights) > 0 and np.isfinite(self.weights).all()):
            raise ValueError(
                f"mixture: got {self.lengths} clips with weights {self.weights}, expected a "
                "positive weight and at least one clip for each source"
            )
        if len(self.lengths) > BLOCK // 10:
            raise ValueError(
                f"mixture: got {len(self.lengths)} sources, expected at most {BLOCK // 10}"
            )

    @property
    def quotas(self) -> np.ndarray:
        """How often each source comes in a block of `BLOCK` draws; at least once."""
        shares = np.array(self.weights) / sum(self.weights) * BLOCK
        counts = np.maximum(np.floor(shares), 1).astype(np.int64)
        # What rounding leaves goes to (or comes from) where it is missed (or spared) most.
        while (missing := BLOCK - int(counts.sum())) != 0:
            gain = np.where((counts > 1) | (missing > 0), shares - counts, np.inf)
            counts[int(np.argmax(gain) if missing > 0 else np.argmin(gain))] += np.sign(missing)
        return counts

    def indices(self, seed: int, step: int, batch: int) -> np.ndarray:
        """Return the clips of a step [batch] int64, counted over all sources in order."""
        if len(self.lengths) == 1:
            return clip_indices(seed, step, batch, self.lengths[0])
        if step < 0 or batch < 1:
            raise ValueError(f"mixture: got step={step}, batch={batch}, expected step >= 0")
        sources, draws = self._draws(seed, step * batch + np.arange(batch))
        starts = np.concatenate([[0], np.cumsum(self.lengths)])
        found = np.empty(batch, np.int64)
        for source in np.unique(sources):
            own = np.flatnonzero(sources == source)
            epochs, places = np.divmod(draws[own], self.lengths[source])
            for epoch in np.unique(epochs):
                now = epochs == epoch
                order = epoch_order(_own_seed(seed, int(source)), int(epoch), self.lengths[source])
                found[own[now]] = starts[source] + order[places[now]]
        return found

    def _draws(self, seed: int, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the source of every draw, and the how many-th draw from that source it is."""
        quotas = self.quotas
        pattern = np.repeat(np.arange(len(quotas)), quotas)
        blocks, places = np.divmod(positions, BLOCK)
        sources, draws = np.empty_like(positions), np.empty_like(positions)
        for block in np.unique(blocks):
            order = generator_for(seed, int(block), Purpose.CLIP_ORDER).permutation(pattern)
            before = np.empty(BLOCK, np.int64)
            for source, quota in enumerate(quotas):
                before[order == source] = np.arange(quota)
            now = blocks == block
            sources[now] = order[places[now]]
            draws[now] = block * quotas[sources[now]] + before[places[now]]
        return sources, draws


class MixedClips(Sequence[dict[str, Any]]):
    """The clips of several sources, one after another, with the order they are drawn in."""

    def __init__(
        self, sources: Sequence[Sequence[dict[str, Any]]], weights: Sequence[float]
    ) -> None:
        self.sources = tuple(sources)
        lengths = tuple(len(source) for source in sources)
        self.order = ClipOrder(lengths, tuple(float(weight) for weight in weights))
        self._ends = np.cumsum(lengths)
        shapes = {tuple(source.shape) for source in sources if hasattr(source, "shape")}
        if len(shapes) > 1:
            raise ValueError(
                f"mixture: sources have clips of different sizes: got {sorted(shapes)} (frames, "
                "height, width), expected one; prepare them alike"
            )
        if shapes:
            self.shape = shapes.pop()

    @property
    def fingerprint(self) -> str:
        """What the sources hold, one after another.

        Raises:
            AttributeError: if they are not all of files.
        """
        return "+".join(source.fingerprint for source in self.sources)  # type: ignore[attr-defined]

    @property
    def file_sizes(self) -> str:
        """Names and sizes of what the sources hold, as `fingerprint`."""
        return "+".join(source.file_sizes for source in self.sources)  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: Any) -> Any:
        """Return one clip.

        Raises:
            IndexError: no such clip.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip index: got {index}, expected below {len(self)}")
        index = int(index) % len(self)
        source = int(np.searchsorted(self._ends, index, side="right"))
        return self.sources[source][index - (int(self._ends[source - 1]) if source else 0)]


def order_of(clips: Sequence[Mapping[str, Any]]) -> ClipOrder:
    """Return the order in which a training draws the clips of a source."""
    return clips.order if isinstance(clips, MixedClips) else ClipOrder((len(clips),))


def parse_mixture(parts: Sequence[str]) -> list[tuple[str, float]]:
    """Return (folder, weight) of parts such as "data/doom=3"; a weight left out is 1.

    Raises:
        ValueError: no folder, or a weight that is no positive number.
    """
    found = []
    for part in parts:
        folder, sign, weight = part.rpartition("=")
        try:
            value = float(weight) if sign else 1.0
        except ValueError:
            value = 0.0
        folder = folder if sign else part
        if not folder or not 0 < value < float("inf"):
            raise ValueError(
                f"data.mixture: got {part!r}, expected FOLDER or FOLDER=WEIGHT with a positive "
                "weight, as in ('data/doom=3', 'data/mine')"
            )
        found.append((folder, value))
    return found


def _own_seed(seed: int, source: int) -> int:
    """Return a seed for the epochs of one source of a mixture."""
    return int(
        np.random.SeedSequence((seed, source)).generate_state(1, np.uint64)[0] >> np.uint64(1)
    )
