"""Open recorded clips for random access, without TensorFlow or JAX.

``open_clips`` returns a source with ``len`` and ``[index]``, which is all that grain's
``MapDataset.source`` asks for.  A clip is decoded in a few milliseconds; its arrays are read-only
views of the record.  Read next: ``sampling.py`` for which clips a training step sees.
"""

import hashlib
import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mirage_jax.data.clip import CAPTION, TEXTS, ClipShape, clip_spec

_SCALARS = {name: dtype for name, (dims, dtype) in clip_spec(ClipShape()).items() if not dims}

# Open shard files of a source; each holds buffers and a file handle.
_MOST_READERS = 64


class ClipSource:
    """Random access to the clips of one split.  Safe to pickle and to share between threads."""

    def __init__(self, directory: str, split: str, paths: Sequence[str], lengths: Sequence[int]):
        self.directory, self.split = directory, split
        self._paths, self._lengths = tuple(paths), tuple(lengths)
        self._ends = np.cumsum(lengths)
        self._features: Any = None
        self._readers: dict[tuple[int, int], Any] = {}

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __repr__(self) -> str:
        return f"ClipSource({self.directory!r}, split={self.split!r}, clips={len(self)})"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_features": None, "_readers": {}}

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one clip as in ``clip.py``.

        Raises:
            IndexError: no such clip.
            ValueError: the record is damaged; names the file and the record in it.
        """
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip index: got {index}, expected below {len(self)} ({self})")
        index %= len(self)
        shard = int(np.searchsorted(self._ends, index, side="right"))
        record = index - (int(self._ends[shard - 1]) if shard else 0)
        try:
            data = self._reader(shard).read([record])[0]
            clip = self._decoder().deserialize_example_np(data)
        except Exception as error:  # The reader raises RuntimeError, ValueError or DecodeError.
            raise ValueError(
                f"record {record} of {self._paths[shard]} (clip {index} of {self.split}) cannot be "
                f"read: {error}; delete this file and record it again"
            ) from error
        for name in (*TEXTS, CAPTION) if CAPTION in clip else TEXTS:
            clip[name] = bytes(clip[name]).decode()
        for name, dtype in _SCALARS.items():
            clip[name] = dtype.type(clip[name])
        return clip

    @property
    def fingerprint(self) -> str:
        """Digest of the names, sizes and times of the split's files: of what it holds, unread."""
        known = [(Path(path).name, os.stat(path)) for path in self._paths]
        text = repr([(name, found.st_size, found.st_mtime_ns) for name, found in known])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def file_sizes(self) -> str:
        """Digest of the names and sizes of the split's files, which a copy of them has too."""
        known = [(Path(path).name, os.stat(path).st_size) for path in self._paths]
        return hashlib.sha256(repr(known).encode()).hexdigest()[:16]

    @property
    def shape(self) -> ClipShape:
        """Frames, height and width of the clips."""
        return ClipShape(*self._decoder()["rgb"].shape[:3])

    def _reader(self, shard: int) -> Any:
        from array_record.python.array_record_module import ArrayRecordReader

        # A reader belongs to the process that opened it.
        key = (os.getpid(), shard)
        reader = self._readers.get(key)
        if reader is None:
            # A reader that another thread is using is closed when that thread lets go of it.
            for old in list(self._readers)[: max(0, len(self._readers) - _MOST_READERS + 1)]:
                self._readers.pop(old, None)
            reader = self._readers[key] = ArrayRecordReader(self._paths[shard])
        return reader

    def _decoder(self) -> Any:
        if self._features is None:
            import tensorflow_datasets as tfds

            self._features = tfds.features.FeaturesDict.from_config(self.directory)
        return self._features


def split_names(directory: str | os.PathLike[str]) -> list[str]:
    """Return the splits of a recorded data set.

    Raises:
        FileNotFoundError: the folder holds no finished recording.
    """
    return sorted(_recorded_splits(Path(directory)))


def open_clips(directory: str | os.PathLike[str], split: str) -> ClipSource:
    """Open one split of a recorded data set.

    Args:
        directory: the folder given to ``mirage record ... --out``.
        split: ``train`` or ``val``.

    Raises:
        FileNotFoundError: the folder holds no finished recording.
        ValueError: it has no such split, or files of the split are missing.
    """
    folder = Path(directory)
    splits = _recorded_splits(folder)
    if split not in splits:
        raise ValueError(f"split: got {split!r}, but {folder} holds {sorted(splits)}")
    paths = [os.fspath(path) for path in splits[split].filepaths]
    missing = [path for path in paths if not os.path.exists(path)]
    if missing:
        raise ValueError(f"directory: {missing[0]} is missing ({len(missing)} files); record again")
    if not sum(splits[split].shard_lengths):
        raise ValueError(
            f"split: {split!r} of {folder} holds no clips; were all of them quarantined? Record or "
            "prepare some"
        )
    return ClipSource(os.fspath(folder), split, paths, splits[split].shard_lengths)


def _recorded_splits(folder: Path) -> Any:
    """Return the splits of a folder by name, as TensorFlow Datasets describes them."""
    if not (folder / "dataset_info.json").exists():
        raise FileNotFoundError(
            f"directory: {folder} has no dataset_info.json; record one with "
            f"'mirage record doom --out {folder} --split train'"
        )
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(os.fspath(folder)).info.splits


def load_fields(source: ClipSource, fields: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """Read chosen arrays of every clip into memory.

    A training that draws many short windows decodes each clip once this way; rgb alone takes
    3 MB a clip of 81 frames at 96x128.

    Raises:
        KeyError: a field that clips do not have.
    """
    # Copies free the rest of the record, of which decoded arrays are views.
    clips = (source[index] for index in range(len(source)))
    return [{name: np.array(clip[name]) for name in fields} for clip in clips]
