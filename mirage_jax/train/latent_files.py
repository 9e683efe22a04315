"""Latents of a split on disk: encoded once, by all processes together, and read by index.

Files: `<workdir>/latents/<split>/clip_NNNNN.safetensors`, one a clip, written atomically, so that
an interrupted run goes on where it stopped. They carry digests of the codec's weights and of the
frames, and are made again when either changed. Once all of a recorded data set are there,
`complete.json` says of which state of its files they are, and the next start reads no clip.

A split that takes no more than `ram_bytes` is held in memory; of a larger one each window maps the
file of its clip and copies what it takes, in the feed's thread, so that memory does not follow the
number of clips. Batches are the same bits either way. Read next: `windows/draw.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from mirage_jax.atomic import replacing, write_text
from mirage_jax.distributed import processes
from mirage_jax.models.tensor_file import mapped_tensors, stored_metadata, stored_tensors
from mirage_jax.train.config import RAM_BYTES
from mirage_jax.train.latents import (
    CodecWeights,
    GridDepth,
    Latents,
    LatentSource,
    apply_codec,
    encode_clip,
)

_REPORT_EVERY = 25
_COMPLETE = "complete.json"


class StoredLatents:
    """Latents of clips in files, mapped when they are asked for and kept nowhere."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Take one file for each clip; they must have latents of equal sizes."""
        self._paths = tuple(paths)

    @property
    def clips(self) -> int:
        """Number of clips."""
        return len(self._paths)

    @property
    def views(self) -> int:
        """1, or 2 where clips are stored mirrored too."""
        return self._shapes["video"][0]

    @property
    def frames(self) -> int:
        """Latent frames of a clip."""
        return self._shapes["video"][2]

    def clip(self, index: int) -> Latents:
        """Return the latents of one clip, without the leading axis n, as views of its file.

        Raises:
            ValueError: if the file is gone or damaged, or its sizes are not those of the others.
        """
        path = self._paths[index]
        try:
            found = Latents(**mapped_tensors(path))
        except (OSError, TypeError, ValueError) as error:
            raise ValueError(
                f"latents of clip {index} cannot be read ({error}); delete {path} and start again, "
                "and it is encoded anew"
            ) from error
        if (shapes := _shapes_of(found)) != self._shapes:
            raise ValueError(
                f"latents of clip {index} in {path}: got sizes {shapes}, expected those of the "
                f"first clip, {self._shapes}; record or prepare all clips alike"
            )
        return found

    def in_memory(self) -> Latents:
        """Return all of them as arrays."""
        whole = Latents(
            **{
                name: np.empty((self.clips, *tensor.shape), tensor.dtype)
                for name, tensor in stored_tensors(self._paths[0]).items()
            }
        )
        for index in range(self.clips):
            for into, array in zip(whole, self.clip(index), strict=True):
                into[index] = array
        return whole

    @functools.cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return _shapes_of(Latents(**mapped_tensors(self._paths[0])))


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How the clips of a split become latents.

    Attributes:
        codec: frozen codec.
        mirror: also store every clip mirrored left to right.
        depth: of a cell, see `models.config.WriteConfig.depth`.
    """

    codec: CodecWeights
    mirror: bool = False
    depth: GridDepth = "surface"

    def origin(self, frames: str) -> str:
        """Return what latents of frames with a digest depend on."""
        origin = f"{self.codec.digest}-{frames}-{int(self.mirror)}"
        return origin if self.depth == "surface" else f"{origin}-{self.depth}"

    def __call__(self, clip: dict) -> Latents:
        """Return the latents of a clip, without the leading axis n."""
        config, params = self.codec.config, self.codec.params
        encode = functools.partial(apply_codec, config, params, method="encode_streamed")
        return encode_clip(
            clip, encode, config.spatial_stride, mirror=self.mirror, grid_depth=self.depth
        )


def encode_split(
    codec: CodecWeights,
    clips: Sequence[dict],
    directory: Path,
    *,
    mirror: bool = False,
    depth: GridDepth = "surface",
    ram_bytes: int = RAM_BYTES,
    report: Callable[[str], None] = lambda line: None,
) -> LatentSource:
    """Return the latents of all clips, encoding those that are not on disk yet.

    Of several processes each encodes its share; the folder is shared by them.

    Args:
        codec: frozen codec.
        clips: random access source of clips (see `mirage_jax/data/clip.py`).
        directory: folder of the cache files of this split.
        mirror: also store every clip mirrored left to right.
        depth: of a cell, see `models.config.WriteConfig.depth`.
        ram_bytes: latents of more bytes stay on disk and are read window by window.
        report: called now and then with a line about progress.
    """
    directory.mkdir(parents=True, exist_ok=True)
    encoding = Encoding(codec, mirror, depth)
    paths = [directory / f"clip_{index:05d}.safetensors" for index in range(len(clips))]
    state = _state(encoding, clips)
    # The first process decides for all, since it will write the file that it decides by.
    complete = np.array([_is_complete(directory, paths, state)], np.int32)
    if not processes.of_first(complete).all():
        if processes.is_first():
            (directory / _COMPLETE).unlink(missing_ok=True)
        for index in range(processes.index(), len(clips), processes.count()):
            if _encode_one(encoding, clips[index], paths[index]) and not (
                (index + 1) % _REPORT_EVERY
            ):
                report(f"encoded {index + 1} of {len(clips)} clips into {directory}")
        processes.wait_for_all(f"latents in {directory}")
        if state and processes.is_first():
            write_text(directory / _COMPLETE, json.dumps(state))
    stored = StoredLatents(paths)
    size = stored.clips * paths[0].stat().st_size
    if size <= ram_bytes:
        return stored.in_memory()
    report(
        f"latents of {stored.clips} clips in {directory} take {size} bytes, more than "
        f"data.ram_bytes {ram_bytes}: they are read from disk"
    )
    return stored


def _encode_one(encoding: Encoding, clip: dict, path: Path) -> bool:
    """Encode a clip unless its file is of this codec and these frames; return whether it was."""
    origin = encoding.origin(f"{zlib.crc32(np.ascontiguousarray(clip['rgb'])):08x}")
    if _origin_of(path) == origin:
        return False
    arrays = {k: np.ascontiguousarray(v) for k, v in encoding(clip)._asdict().items()}
    with replacing(path) as temporary:
        save_file(arrays, temporary, metadata={"origin": origin})
    return True


def _origin_of(path: Path) -> str | None:
    """Return what stored latents were made of; None without a whole file of all arrays."""
    try:
        # Fewer or other arrays were written by a version that stored something else.
        known = set(stored_tensors(path)) == set(Latents._fields)
        return stored_metadata(path).get("origin") if known else None
    except (FileNotFoundError, ValueError):
        return None


def _state(encoding: Encoding, clips: Sequence[dict]) -> dict[str, Any] | None:
    """Return what complete latents of a source depend on; None if it has no files to tell by."""
    files = getattr(clips, "fingerprint", None)
    if files is None:
        return None
    return {"origin": encoding.origin(files), "clips": len(clips), "arrays": list(Latents._fields)}


def _is_complete(directory: Path, paths: Sequence[Path], state: dict[str, Any] | None) -> bool:
    try:
        said = json.loads((directory / _COMPLETE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return state is not None and said == state and set(_names(directory)) >= {p.name for p in paths}


def _names(directory: Path) -> Iterator[str]:
    with os.scandir(directory) as entries:
        yield from (entry.name for entry in entries)


def _shapes_of(latents: Latents) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in latents._asdict().items()}
