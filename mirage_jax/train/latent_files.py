"""Latents of a split on disk: encoded once, by all processes together, and read by index.

Files: `clip_NNNNN.safetensors`, one a clip, in `<workdir>/latents/<split>/` or in a folder of
`mirage encode latents`; written atomically, so that an interrupted run goes on where it stopped.
They carry digests of the codec's weights and of the frames, and are made again when either changed.
Once all are there, `captions.json` has what the clips say in words, and `complete.json` of which
state of a data set's files they are, so that the next start reads no clip.

A split that takes no more than `ram_bytes` is held in memory; of a larger one each window maps the
file of its clip and copies what it takes, in the feed's thread, so that memory does not follow the
number of clips. Batches are the same bits either way. Read next:
`mirage_jax/train/given_latents.py`, `mirage_jax/train/windows/draw.py`.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import json
import os
import queue
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from mirage_jax.atomic import replacing, write_text
from mirage_jax.data.captions import NO_PROMPT
from mirage_jax.data.clip import CAPTION
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

_REPORT_SECONDS = 30.0
COMPLETE, _CAPTIONS = "complete.json", "captions.json"
# Fewer are encoded sooner than another device has compiled what encodes them.
_CLIPS_OF_A_DEVICE = 16
# Seconds that the first process to be done waits for the last: shares may be of any size.
_LONGEST_SHARE = 30 * 86400.0


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

    def on(self, device: jax.Device) -> Encoding:
        """Return the same with the codec's parameters on a device, which then encodes."""
        params = jax.device_put(self.codec.params, device)
        return dataclasses.replace(self, codec=dataclasses.replace(self.codec, params=params))

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
    encode_missing(Encoding(codec, mirror, depth), clips, directory, report)
    return open_latents(directory, len(clips), ram_bytes, report)


def encode_missing(
    encoding: Encoding,
    clips: Sequence[dict],
    directory: Path,
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Write the latents of all clips that are not in `directory` yet; see `encode_split`."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = clip_paths(directory, len(clips))
    state = state_of(encoding, clips)
    # The first process decides for all, since it will write the file that it decides by.
    complete = np.array([_is_complete(directory, paths, state)], np.int32)
    if processes.of_first(complete).all():
        return
    if processes.is_first():
        (directory / COMPLETE).unlink(missing_ok=True)
    processes.wait_for_all(f"latents begun in {directory}")
    _encode_share(encoding, clips, paths, report)
    processes.wait_for_all(f"latents in {directory}", _LONGEST_SHARE)
    if processes.is_first():
        for left in directory.glob(".clip_*"):  # by a process that was killed
            left.unlink(missing_ok=True)
        captions = [stored_metadata(path)["origin"].partition(" ")[2] for path in paths]
        write_text(directory / _CAPTIONS, json.dumps(captions))
        write_text(directory / COMPLETE, json.dumps(state))
    processes.wait_for_all(f"captions in {directory}")


def _encode_share(
    encoding: Encoding, clips: Sequence[dict], paths: Sequence[Path], report: Callable[[str], None]
) -> None:
    """Encode those of this process's clips that are missing; tell how far it is."""
    own = range(processes.index(), len(paths), processes.count())
    share = f" (share of process 1 of {processes.count()})" if processes.count() > 1 else ""
    new, start = 0, time.perf_counter()
    told = start
    for done, was_new in enumerate(_encoded(encoding, clips, paths, own), 1):
        new, now = new + was_new, time.perf_counter()
        if new and (done == len(own) or now - told > _REPORT_SECONDS):
            told, speed = now, new / (now - start)
            report(
                f"latents of {done} of {len(own)} clips{share} are in {paths[0].parent}: "
                f"{new} encoded, {done - new} found, {speed:.2f} clips/s"
            )


def _encoded(
    encoding: Encoding, clips: Sequence[dict], paths: Sequence[Path], own: Sequence[int]
) -> Iterator[bool]:
    """Encode clips on all devices of this process, each in a thread; yield which were missing."""
    devices = jax.local_devices()[: max(1, len(own) // _CLIPS_OF_A_DEVICE)]
    free: queue.SimpleQueue[Encoding] = queue.SimpleQueue()
    for device in devices:
        free.put(encoding.on(device))

    def one(index: int) -> bool:
        mine = free.get()
        try:
            return _encode_one(mine, clips[index], paths[index])
        finally:
            free.put(mine)

    pool = concurrent.futures.ThreadPoolExecutor(len(devices))
    try:
        yield from pool.map(one, own)
    finally:
        pool.shutdown(cancel_futures=True)


def clip_paths(directory: Path, count: int) -> list[Path]:
    """Return the file of each clip."""
    return [directory / f"clip_{index:05d}.safetensors" for index in range(count)]


def open_latents(
    directory: Path,
    count: int,
    ram_bytes: int = RAM_BYTES,
    report: Callable[[str], None] = lambda line: None,
    *,
    chosen: Sequence[int] | None = None,
) -> LatentSource:
    """Open the latents of `count` clips, all or those chosen by index; see `encode_split`."""
    paths = clip_paths(directory, count)
    stored = StoredLatents(paths if chosen is None else [paths[index] for index in chosen])
    size = stored.clips * paths[0].stat().st_size
    if size <= ram_bytes:
        return stored.in_memory()
    report(
        f"latents of {stored.clips} clips in {directory} take {size} bytes, more than "
        f"data.ram_bytes {ram_bytes}: they are read from disk"
    )
    return stored


def stored_captions(directory: Path) -> tuple[str, ...]:
    """Return the captions of all clips of complete latents, without reading a clip."""
    return tuple(json.loads((directory / _CAPTIONS).read_text(encoding="utf-8")))


def origin_of_clip(encoding: Encoding, clip: dict) -> str:
    """Return what the latents of a clip depend on: after a space, if it has any, its caption."""
    frames = zlib.crc32(np.ascontiguousarray(clip["rgb"]))
    origin, caption = encoding.origin(f"{frames:08x}"), clip.get(CAPTION, NO_PROMPT)
    return f"{origin} {caption}" if caption else origin


def stored_origin(path: Path) -> str | None:
    """Return what stored latents were made of; None without a whole file of all arrays."""
    try:
        # Fewer or other arrays were written by a version that stored something else.
        known = set(stored_tensors(path)) == set(Latents._fields)
        return stored_metadata(path).get("origin") if known else None
    except (FileNotFoundError, ValueError):
        return None


def _encode_one(encoding: Encoding, clip: dict, path: Path) -> bool:
    """Encode a clip unless its file is of this codec and clip; return whether it was."""
    origin = origin_of_clip(encoding, clip)
    if stored_origin(path) == origin:
        return False
    arrays = {k: np.ascontiguousarray(v) for k, v in encoding(clip)._asdict().items()}
    with replacing(path) as temporary:
        # One entry: several would be written in any order, and equal latents be other bytes.
        save_file(arrays, temporary, metadata={"origin": origin})
    return True


def state_of(encoding: Encoding, clips: Sequence[dict]) -> dict[str, Any]:
    """Return what complete latents of a source depend on.

    Of a source without files `files` and `sizes` are None, and nothing can be told from them.
    """
    return {
        "codec": encoding.codec.digest,
        "mirror": encoding.mirror,
        "depth": encoding.depth,
        "clips": len(clips),
        "arrays": list(Latents._fields),
        "files": getattr(clips, "fingerprint", None),
        "sizes": getattr(clips, "file_sizes", None),
    }


def read_state(directory: Path) -> dict[str, Any] | None:
    """Return what `directory` says that its latents depend on; None if they are not complete."""
    try:
        return json.loads((directory / COMPLETE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def missing_files(directory: Path, paths: Sequence[Path]) -> list[str]:
    """Return the names of those files that are not there."""
    with os.scandir(directory) as entries:
        found = {entry.name for entry in entries}
    return [path.name for path in paths if path.name not in found]


def _is_complete(directory: Path, paths: Sequence[Path], state: dict[str, Any]) -> bool:
    if state["files"] is None or read_state(directory) != state:
        return False
    return not missing_files(directory, [*paths, directory / _CAPTIONS])


def _shapes_of(latents: Latents) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in latents._asdict().items()}
