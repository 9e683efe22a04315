"""COLMAP models in binary: ``cameras.bin`` and ``images.bin``; ``points3D.bin`` may be missing.

Little endian, counts in 64 bits. What a count announces must fit into the file before anything is
allocated; the images' points are skipped, not read.

Read next: ``colmap_models.py``.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mirage_jax.atomic import replacing
from mirage_jax.geometry.camera_files.camera_path import CameraPath
from mirage_jax.geometry.camera_files.colmap_models import (
    MODELS,
    PINHOLE,
    Image,
    Lens,
    lens_of,
    model_of,
    stored_model,
)
from mirage_jax.geometry.camera_files.reading import Reading
from mirage_jax.geometry.camera_files.stored import Stored
from mirage_jax.geometry.camera_files.text_lines import check_count, require_file

_MAX_BYTES = 64 << 30
_MAX_NAME = 4096
_COUNT = struct.Struct("<Q")
_LENS = struct.Struct("<iiQQ")
_IMAGE = struct.Struct("<i7di")
_POINT = struct.Struct("<Q3d3Bd")
_POINT2D_BYTES, _TRACK_BYTES = 24, 8


def read_colmap_binary(path: Path, reading: Reading) -> Stored:
    """Read the model in the folder `path`, or beside the file `path`."""
    folder = path if path.is_dir() else path.parent
    cameras = folder / "cameras.bin"
    lenses = dict(_lenses(_Bytes(cameras))) if cameras.is_file() else None
    return stored_model(lenses, list(_images(_Bytes(folder / "images.bin"))), str(folder))


def write_colmap_binary(path: Path, cameras: CameraPath) -> None:
    """Write a model without points into the folder `path`."""
    lenses, images = model_of(cameras, str(path))
    content = [_COUNT.pack(len(lenses))]
    for number, (hw, values) in enumerate(lenses, start=1):
        content.append(_LENS.pack(number, PINHOLE, hw[1], hw[0]) + struct.pack("<4d", *values))
    _write(path / "cameras.bin", content)
    content = [_COUNT.pack(len(images))]
    for number, image in enumerate(images, start=1):
        head = _IMAGE.pack(number, *image.rotation, *image.translation, image.lens)
        content.append(head + image.name.encode() + b"\0" + _COUNT.pack(0))
    _write(path / "images.bin", content)
    _write(path / "points3D.bin", [_COUNT.pack(0)])


def points_binary(path: Path) -> Iterator[list[float]]:
    """Yield x y z r g b (colours 0..255) of each point of points3D.bin."""
    source = _Bytes(path)
    with source.opened() as stream:
        for _ in range(source.count(stream, _POINT.size + _COUNT.size)):
            _, *row, _ = _POINT.unpack(source.take(stream, _POINT.size))
            source.skip(stream, source.count(stream, _TRACK_BYTES) * _TRACK_BYTES)
            yield row


def _write(path: Path, content: list[bytes]) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(b"".join(content))


class _Bytes:
    """Reads from a file without ever asking for more than it holds."""

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, require_file(path, _MAX_BYTES)

    def opened(self) -> BinaryIO:
        return self.path.open("rb")

    def take(self, stream: BinaryIO, length: int) -> bytes:
        content = stream.read(length)
        if len(content) < length:
            raise self.cut_off(stream, f"{length - len(content)} bytes are missing")
        return content

    def skip(self, stream: BinaryIO, length: int) -> None:
        stream.seek(length, 1)

    def count(self, stream: BinaryIO, record_bytes: int) -> int:
        """Read a count of records that each take at least `record_bytes`."""
        (count,) = _COUNT.unpack(self.take(stream, _COUNT.size))
        if count * record_bytes > self.size - stream.tell():
            raise self.cut_off(stream, f"{count:,} records announced that do not fit")
        return count

    def name(self, stream: BinaryIO) -> str:
        """Read text that ends with a zero byte."""
        start = stream.tell()
        text, end, _ = stream.read(_MAX_NAME).partition(b"\0")
        if not end:
            raise self.cut_off(stream, "a name without end")
        stream.seek(start + len(text) + 1)
        return text.decode("utf-8", errors="replace")

    def cut_off(self, stream: BinaryIO, found: str) -> ValueError:
        return ValueError(
            f"{self.path}: byte {stream.tell():,}: not a whole COLMAP file: got {found}, expected "
            f"the records of {self.path.name}. It may be truncated; copy it again."
        )


def _lenses(source: _Bytes) -> Iterator[tuple[int, Lens]]:
    with source.opened() as stream:
        count = source.count(stream, _LENS.size)
        check_count(count, str(source.path))
        for index in range(count):
            where = f"{source.path}: camera {index + 1}"
            number, model, width, height = _LENS.unpack(source.take(stream, _LENS.size))
            if not 0 <= model < len(MODELS):
                raise ValueError(
                    f"{where}: unknown lens: got model number {model}, expected 0 to "
                    f"{len(MODELS) - 1}. Undistort the model first: colmap image_undistorter."
                )
            name, size, _ = MODELS[model]
            parameters = struct.unpack(f"<{size}d", source.take(stream, 8 * size))
            yield number, lens_of(name, (height, width), list(parameters), where)


def _images(source: _Bytes) -> Iterator[Image]:
    with source.opened() as stream:
        count = source.count(stream, _IMAGE.size + _COUNT.size)
        check_count(count, str(source.path))
        for index in range(count):
            _, *values, lens = _IMAGE.unpack(source.take(stream, _IMAGE.size))
            name = source.name(stream)
            source.skip(stream, source.count(stream, _POINT2D_BYTES) * _POINT2D_BYTES)
            rotation, translation = tuple(values[:4]), tuple(values[4:])
            yield Image(rotation, translation, lens, name, f"image {index + 1}")
