"""Pictures and videos as data URIs, so that a page holds them itself.

Read next: `report_page.py`.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mirage_jax.rollout import video as video_files


def video_uri(path: Path) -> str:
    """Return an mp4 file as a data URI."""
    return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()


def picture_uri(picture: UInt8[np.ndarray, "H W 3"]) -> str:
    """Return a picture as a data URI, without loss."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, format="WEBP", lossless=True)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def strip_uri(path: Path, places: list[float]) -> str:
    """Return frames of a video side by side, as one picture.

    Args:
        path: of the video.
        places: which frames, from 0 for the first to 1 for the last.
    """
    frames = video_files.read_video(path)
    chosen = [frames[round(place * (len(frames) - 1))] for place in places]
    gap = np.full((frames.shape[1], 2, 3), 128, np.uint8)
    pieces = [piece for frame in chosen for piece in (gap, frame)][1:]
    return picture_uri(np.concatenate(pieces, axis=1))
