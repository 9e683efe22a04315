"""Which clips and frames a training step sees, as a pure function of (seed, step).

Nothing is stored between steps: resuming at a step, or asking from another process, gives the
same batch.  Each clip comes once per epoch, in an order drawn anew for every epoch.  The
generator is NumPy's Philox, keyed by the seed and a counter, so steps are independent.

Read next: ``source.py`` for the clips themselves.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_EPOCH_STREAM, _WINDOW_STREAM = 1, 2


@dataclasses.dataclass(frozen=True)
class BatchSpec:
    """What a batch holds.

    Attributes:
        batch: clips a batch, over all hosts.
        frames: length of the window cut from each clip; 0 for the whole clip.
        fields: names of the arrays to take; empty for rgb, depth, sprite, moving, cam_to_world
            and intrinsics.
        host: index of this host.
        hosts: number of hosts; each takes an equal, contiguous part of the batch.
    """

    batch: int
    frames: int = 0
    fields: tuple[str, ...] = ()
    host: int = 0
    hosts: int = 1

    def __post_init__(self) -> None:
        if self.batch < 1 or self.hosts < 1 or self.batch % self.hosts:
            raise ValueError(
                f"batch: got {self.batch} clips over {self.hosts} hosts, expected a positive "
                f"multiple of the hosts"
            )
        if not 0 <= self.host < self.hosts:
            raise ValueError(f"host: got {self.host}, expected 0..{self.hosts - 1}")
        if self.frames < 0:
            raise ValueError(f"frames: got {self.frames}, expected 0 (whole clip) or more")


_DEFAULT_FIELDS = ("rgb", "depth", "sprite", "moving", "cam_to_world", "intrinsics")
_STATIC_FIELDS = frozenset({"intrinsics", "object_count", "object_id", "object_moving", "seed"})


def epoch_order(seed: int, epoch: int, clips: int) -> np.ndarray:
    """Return the order of the clips in an epoch: a permutation [clips] int64."""
    return _generator(seed, _EPOCH_STREAM, epoch).permutation(clips)


def clip_indices(seed: int, step: int, batch: int, clips: int) -> np.ndarray:
    """Return the clips of a step [batch] int64.

    Steps walk through the epochs without a gap, so a batch may straddle two epochs.

    Raises:
        ValueError: negative step, or no clips.
    """
    if step < 0 or batch < 1 or clips < 1:
        raise ValueError(
            f"clip_indices: got step={step}, batch={batch}, clips={clips}, expected step >= 0 and "
            f"at least one clip; is the data set empty?"
        )
    positions = step * batch + np.arange(batch)
    epochs, places = np.divmod(positions, clips)
    indices = np.empty(batch, np.int64)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        indices[chosen] = epoch_order(seed, int(epoch), clips)[places[chosen]]
    return indices


def window_starts(seed: int, step: int, batch: int, room: int) -> np.ndarray:
    """Return where each clip's window begins: [batch] int64 in 0..room (inclusive)."""
    return _generator(seed, _WINDOW_STREAM, step).integers(0, room + 1, size=batch)


def batch_at(
    source: Sequence[Mapping[str, Any]], seed: int, step: int, spec: BatchSpec
) -> dict[str, np.ndarray]:
    """Return the batch of a training step.

    Args:
        source: clips by index, for example from ``open_clips``.
        seed: seed of the order.
        step: training step.
        spec: size and content of the batch.

    Returns:
        Stacked arrays [batch / hosts, frames, ...] by name, with ``clip`` [b] (index in the
        source) and ``start`` [b] (first frame of the window).

    Raises:
        ValueError: the clips are shorter than the window.
    """
    indices = clip_indices(seed, step, spec.batch, len(source))
    share = spec.batch // spec.hosts
    mine = slice(spec.host * share, (spec.host + 1) * share)
    clips = [source[int(index)] for index in indices[mine]]
    length = clips[0]["cam_to_world"].shape[0]
    frames = spec.frames or length
    if frames > length:
        raise ValueError(
            f"frames: got a window of {frames}, but the clips have {length}; use fewer frames or "
            f"record longer clips"
        )
    starts = window_starts(seed, step, spec.batch, length - frames)[mine]
    pairs = list(zip(clips, starts.tolist(), strict=True))
    batch = {
        name: np.stack([_cut(name, clip[name], start, frames) for clip, start in pairs])
        for name in spec.fields or _DEFAULT_FIELDS
    }
    return batch | {"clip": indices[mine], "start": starts}


def _cut(name: str, array: np.ndarray, start: int, frames: int) -> np.ndarray:
    return array if name in _STATIC_FIELDS else array[start : start + frames]


def _generator(seed: int, stream: int, counter: int) -> np.random.Generator:
    sequence = np.random.SeedSequence((seed, stream, counter))
    return np.random.Generator(np.random.Philox(sequence))
