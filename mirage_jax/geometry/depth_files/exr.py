"""Depth in OpenEXR files, through the library ``OpenEXR`` (extra ``exr``).

The channel is ``Z`` or ``depth`` (as ``depth.Z`` in layers), or the only one. Infinite values and
those from 1e9 on, which renderers write where there is nothing, become unknown. Whether a renderer
writes z-depth or distances along rays differs, so the kind is not taken as stated.

Read next: ``vipe.py``.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np

from mirage_jax.geometry.depth_files.pictures import MAX_PIXELS

MAX_BYTES = 512 << 20
_BACKGROUND = 1e9
_MAX_CHANNELS = 64
_NAMES = ("z", "depth")


def read_exr_depth(source: Path | bytes, name: str) -> np.ndarray:
    """Read the depth channel [H, W] as float32.

    Args:
      source: the file, or its content.
      name: for messages.

    Raises:
      ValueError: the library is missing, the file is not whole, too large, or has no such channel.
    """
    openexr = _library(name)
    content = source if isinstance(source, bytes) else _read_bounded(source)
    _check_header(openexr, content, name)
    try:
        file = openexr.File(io.BytesIO(content), separate_channels=True, num_threads=0)
        channels = {key: channel.pixels for key, channel in file.channels().items()}
    except Exception as error:  # a broken file makes the library raise many kinds
        raise _broken(name, error) from error
    values = np.asarray(channels[_chosen(channels, name)], np.float32)
    if values.ndim != 2:
        raise ValueError(f"{name}: its depth is not one picture: got shape {values.shape}.")
    return np.where(np.isinf(values) | (values >= _BACKGROUND), np.float32(0), values)


def _read_bounded(path: Path) -> bytes:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path}: is too large: got {size} bytes, expected at most {MAX_BYTES}.")
    return path.read_bytes()


def _library(name: str) -> Any:
    try:
        import OpenEXR
    except ImportError as error:
        raise ValueError(
            f"{name}: reading OpenEXR needs a library that is not installed; "
            "pip install 'mirage-jax[exr]'"
        ) from error
    return OpenEXR


def _check_header(openexr: Any, content: bytes, name: str) -> None:
    """Raise if a header announces more than a depth picture has: it would be allocated."""
    try:
        header = openexr.File(io.BytesIO(content), header_only=True).header()
        low, high = (np.asarray(corner, np.int64) for corner in header["dataWindow"])
        count = len(header["channels"])
        sides = (high - low + 1).tolist()
    except Exception as error:  # as above
        raise _broken(name, error) from error
    width, height = sides
    if min(sides) < 1 or width * height * count > MAX_PIXELS * 4 or width * height > MAX_PIXELS:
        raise ValueError(
            f"{name}: is too large: got {height}x{width} with {count} channels, expected at most "
            f"{MAX_PIXELS} pixels."
        )
    if count > _MAX_CHANNELS:
        raise ValueError(f"{name}: got {count} channels, expected at most {_MAX_CHANNELS}.")


def _chosen(channels: dict[str, Any], name: str) -> str:
    if len(channels) == 1:
        return next(iter(channels))
    for wanted in _NAMES:
        for key in channels:
            if key.lower() == wanted or key.lower().endswith(f".{wanted}"):
                return key
    raise ValueError(
        f"{name}: has no depth channel: got {sorted(channels)[:20]}, expected Z or depth, or a "
        "single one. Export the depth pass alone."
    )


def _broken(name: str, error: Exception) -> ValueError:
    return ValueError(
        f"{name}: cannot be read as OpenEXR: got {str(error) or type(error).__name__:.200}, "
        "expected a whole file of one part. It may be truncated; copy it again."
    )
