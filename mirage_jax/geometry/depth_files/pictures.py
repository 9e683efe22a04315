"""Depth in 16-bit PNG files and in TIFF files of one channel, through Pillow.

Sizes are checked on the header before memory is taken.

Read next: ``whole_numbers.py``.
"""

import io
import os
import warnings
from pathlib import Path

import numpy as np

MAX_PIXELS = 64 << 20
# Pillow's names of pictures with one channel of more than 8 bits.
_DEEP = {"I;16": np.uint16, "I;16L": np.uint16, "I;16B": np.uint16, "I": np.int32, "F": np.float32}


def read_picture_depth(source: Path | bytes, name: str) -> np.ndarray:
    """Read a picture's values [H, W], whole numbers or float32.

    Args:
      source: the file, or its content.
      name: for messages.

    Raises:
      ValueError: not a whole picture, too large, of several channels, or of 8 bits.
    """
    from PIL import Image

    stream = io.BytesIO(source) if isinstance(source, bytes) else os.fspath(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, which are checked below
            with Image.open(stream, formats=("PNG", "TIFF")) as picture:
                width, height = picture.size
                mode = picture.mode
                if mode in _DEEP and width * height <= MAX_PIXELS:
                    return np.asarray(picture).astype(_DEEP[mode])
    except Exception as error:  # a broken picture makes Pillow raise many kinds
        raise ValueError(
            f"{name}: cannot be read as a picture: got {str(error) or type(error).__name__:.200}, "
            "expected a whole 16-bit PNG or a TIFF. It may be truncated; copy it again."
        ) from error
    if mode in _DEEP:
        raise ValueError(
            f"{name}: is too large: got {height}x{width}, expected at most {MAX_PIXELS} pixels."
        )
    raise ValueError(
        f"{name}: is not depth: got pixels of the kind {mode!r}, expected one channel of 16 bits "
        "or floating point. A coloured or 8-bit picture of depth has lost the values; export them "
        "again."
    )
