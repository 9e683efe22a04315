"""Write clips as a TensorFlow Datasets folder of ArrayRecord files, without TensorFlow.

A split is written shard by shard; a shard appears under its final name only when complete, so an
interrupted recording goes on with the shards that are missing.  ``finish`` writes the metadata
(``dataset_info.json``, ``features.json``) with which ``tfds.builder_from_directory(...)
.as_data_source()`` opens the folder.

Read next: ``source.py``, which reads it.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mirage_jax.data.clip import CAPTION, TEXTS, ClipShape, clip_spec, validate_clip

# One record a group gives random access; level 1 costs 10 ms a clip to read and halves its size.
_WRITER_OPTIONS = "group_size:1,zstd:1"
_FORMAT = "array_record"


def clip_features(shape: ClipShape, captions: bool = False) -> Any:
    """Return the ``tfds.features.FeaturesDict`` of a clip; arrays are stored as raw bytes."""
    import tensorflow_datasets as tfds

    features: dict[str, Any] = {}
    for name, (dims, dtype) in clip_spec(shape).items():
        encoding = "bytes" if dims else "none"
        features[name] = tfds.features.Tensor(shape=dims, dtype=dtype, encoding=encoding)
    for name in (*TEXTS, CAPTION) if captions else TEXTS:
        features[name] = tfds.features.Text()
    return tfds.features.FeaturesDict(features)


class SplitWriter:
    """Writes one split of a data set, one shard at a time.

    With ``captions``, each clip may carry its prompt as ``clip["caption"]``; those without one get
    the empty prompt. All splits of a folder are written alike.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        name: str,
        split: str,
        shards: int,
        *,
        captions: bool = False,
    ):
        self._directory = Path(directory)
        self._name, self._split, self._shards = name, split, shards
        self._captions = captions
        self._directory.mkdir(parents=True, exist_ok=True)

    def shard_path(self, shard: int) -> Path:
        """Return the final path of a shard."""
        return self._directory / (
            f"{self._name}-{self._split}.{_FORMAT}-{shard:05d}-of-{self._shards:05d}"
        )

    def has_shard(self, shard: int) -> bool:
        """Tell whether a shard is complete."""
        return self.shard_path(shard).exists()

    def write_shard(self, shard: int, clips: Iterable[dict[str, Any]]) -> int:
        """Write all clips of a shard and put it in place; return how many there were.

        Raises:
            ValueError: a clip does not follow ``clip.py``; nothing is put in place then.
        """
        from array_record.python.array_record_module import ArrayRecordWriter

        final = self.shard_path(shard)
        partial = final.with_name(f".partial-{final.name}")
        writer = ArrayRecordWriter(str(partial), _WRITER_OPTIONS)
        count = 0
        try:
            for clip in clips:
                shape = validate_clip(clip)
                stored = self._with_caption(clip)
                writer.write(clip_features(shape, self._captions).serialize_example(stored))
                count += 1
        finally:
            writer.close()
        os.replace(partial, final)
        return count

    def finish(self, shape: ClipShape, description: str) -> None:
        """Write the folder's metadata for every split whose shards are all there."""
        write_metadata(self._directory, self._name, shape, description, self._captions)

    def _with_caption(self, clip: dict[str, Any]) -> dict[str, Any]:
        if self._captions:
            return {CAPTION: ""} | clip
        if CAPTION in clip:
            raise ValueError(
                f"clip[{CAPTION!r}]: got {clip[CAPTION]!r}, but this data set is written without "
                "captions; make the SplitWriter with captions=True"
            )
        return clip


def write_metadata(
    directory: Path, name: str, shape: ClipShape, description: str, captions: bool = False
) -> None:
    """Describe the complete splits of a folder for TensorFlow Datasets.

    Raises:
        ValueError: the folder holds no complete split, or one written with captions where others
            are without.
    """
    _check_alike(directory, captions)
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        data_dir=directory, dataset_name=name, filetype_suffix=_FORMAT
    )
    splits = []
    for split, paths in sorted(_complete_splits(directory, name).items()):
        splits.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[_count_records(path) for path in paths],
                num_bytes=sum(path.stat().st_size for path in paths),
                filename_template=template.replace(split=split),
            )
        )
    if not splits:
        raise ValueError(f"directory: {directory} holds no complete split of {name!r}")
    tfds.folder_dataset.write_metadata(
        data_dir=directory,
        features=clip_features(shape, captions),
        split_infos=splits,
        filename_template=template,
        check_data=False,
        description=description,
    )


def _check_alike(directory: Path, captions: bool) -> None:
    known = directory / "features.json"
    if known.exists() and (f'"{CAPTION}"' in known.read_text()) != captions:
        raise ValueError(
            f"directory: {directory} already holds splits {'without' if captions else 'with'} "
            f"captions, expected all alike; write this split {'without' if captions else 'with'} "
            "captions, or into another folder"
        )


def _complete_splits(directory: Path, name: str) -> dict[str, list[Path]]:
    splits: dict[str, list[Path]] = {}
    for path in sorted(directory.glob(f"{name}-*.{_FORMAT}-*-of-*")):
        split = path.name[len(name) + 1 :].split(".")[0]
        splits.setdefault(split, []).append(path)
    return {
        split: paths
        for split, paths in splits.items()
        if len(paths) == int(paths[0].name.rsplit("-", 1)[1])
    }


def _count_records(path: Path) -> int:
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(str(path))
    try:
        return reader.num_records()
    finally:
        reader.close()
