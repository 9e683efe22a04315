"""Depth of a clip, one picture a frame: ViPE's ``depth.zip``, and folders of pictures.

ViPE stores ``00000.exr`` and so on, 16-bit floats in the channel Z: z-depth in the units of its
cameras. Frames come in the order of the numbers in their names.

Read next: ``formats.py``.
"""

import re
import zipfile
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from mirage_jax.geometry.camera_files.npz import MAX_ARRAY_BYTES
from mirage_jax.geometry.depth_files.exr import MAX_BYTES, read_exr_depth
from mirage_jax.geometry.depth_files.pictures import read_picture_depth

SUFFIXES = (".exr", ".png", ".tif", ".tiff")


def read_zip_depth(path: Path) -> np.ndarray:
    """Read all frames [f, H, W] of a zip of pictures.

    Raises:
      ValueError: not a whole archive, no pictures in it, or pictures of several sizes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            names = in_order(name for name in members if not name.endswith("/"))
            _check_sizes([members[name].file_size for name in names], path)
            frames = _Frames(path, len(names))
            for name in names:
                frames.add(depth_of_bytes(_content(archive, name, path), f"{path}: {name}"))
    except ValueError:
        raise
    except Exception as error:  # a broken archive makes zipfile raise many kinds
        raise broken_zip(path, error) from error
    return frames.stacked()


def read_folder_depth(path: Path) -> np.ndarray:
    """Read all frames [f, H, W] of a folder of pictures."""
    names = in_order(file.name for file in path.iterdir() if file.is_file())
    frames = _Frames(path, len(names))
    for name in names:
        file = path / name
        _check_sizes([file.stat().st_size], file)
        frames.add(depth_of_bytes(file.read_bytes(), str(file)))
    return frames.stacked()


def in_order(names: Iterable[str], suffixes: Collection[str] = SUFFIXES) -> list[str]:
    """Return the names of pictures by the last number in each, then by name."""

    def key(name: str) -> tuple[int, str]:
        numbers = re.findall(r"\d{1,18}", Path(name).stem)
        return (int(numbers[-1]) if numbers else -1, name)

    return sorted((name for name in names if Path(name).suffix.lower() in suffixes), key=key)


class _Frames:
    """Collects pictures of one size into one array that is not allowed to grow past the limit."""

    def __init__(self, path: Path, count: int) -> None:
        if not count:
            raise ValueError(
                f"{path}: holds no pictures of depth: expected {', '.join(SUFFIXES)}, as "
                "00000.exr. Check the path."
            )
        self._path, self._count = path, count
        self._frames: list[np.ndarray] = []

    def add(self, frame: np.ndarray) -> None:
        first = self._frames[0] if self._frames else frame
        if frame.shape != first.shape or frame.dtype != first.dtype:
            raise ValueError(
                f"{self._path}: frame {len(self._frames)} differs: got {frame.dtype} "
                f"{frame.shape}, expected {first.dtype} {first.shape} as the first. Export the "
                "clip again."
            )
        if frame.nbytes * self._count > MAX_ARRAY_BYTES:
            raise ValueError(
                f"{self._path}: is too large: got {self._count} frames of {frame.nbytes} bytes, "
                f"expected at most {MAX_ARRAY_BYTES} in all. Use fewer frames."
            )
        self._frames.append(frame)

    def stacked(self) -> np.ndarray:
        return np.stack(self._frames)


def _content(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    """Return the bytes of one member, which may inflate to no more than it announces."""
    try:
        with archive.open(name) as stream:
            return stream.read(MAX_BYTES)
    except Exception as error:
        raise broken_zip(f"{path}: {name}", error) from error


def depth_of_bytes(content: bytes, name: str) -> np.ndarray:
    """Read one picture of depth [H, W] that is a file or a member of an archive."""
    if name.lower().endswith(".exr"):
        return read_exr_depth(content, name)
    return read_picture_depth(content, name)


def _check_sizes(sizes: list[int], path: Path) -> None:
    if max(sizes, default=0) > MAX_BYTES:
        raise ValueError(
            f"{path}: is too large: got a picture of {max(sizes)} bytes, expected at most "
            f"{MAX_BYTES}."
        )


def broken_zip(where: object, error: Exception) -> ValueError:
    """Return what is said of an archive that cannot be read."""
    return ValueError(
        f"{where}: cannot be read as a zip of pictures: got "
        f"{str(error) or type(error).__name__:.200}. It may be truncated; copy it again."
    )
