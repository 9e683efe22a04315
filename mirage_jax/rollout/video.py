"""Video files in and out, through PyAV.

Conventions: uint8 RGB frames [f, H, W, 3]; files are H.264 in yuv420p, which every player shows.
Read next: `mirage_jax/rollout/outputs.py`.
"""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8


def write_video(path: Path, frames: UInt8[np.ndarray, "f H W 3"], fps: float = 8.0) -> None:
    """Write an mp4; sides are cut to even numbers of pixels, as yuv420p needs.

    Args:
        path: file to write.
        frames: pictures.
        fps: frames a second.
    """
    height, width = (side - side % 2 for side in frames.shape[1:3])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=round(fps))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "14", "preset": "medium"}
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(frame[:height, :width]), format="rgb24"
            )
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def read_video(path: Path, frames: int | None = None) -> UInt8[np.ndarray, "f H W 3"]:
    """Read a whole video.

    Args:
        path: video file.
        frames: how many frames it must hold, or None for any number.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not a video, is cut short, or holds another number of frames.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"video: got {path}, expected an existing video file; check the path"
        )
    try:
        with av.open(str(path)) as container:
            stated = container.streams.video[0].frames
            pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(
            f"video: got {path} ({error}), expected a whole video; it may be truncated, export or "
            "copy it again"
        ) from error
    expected = frames if frames is not None else stated
    if not pictures or (expected and len(pictures) < expected):
        raise ValueError(
            f"video: got {len(pictures)} frames in {path}, expected {expected or 'at least 1'}; it "
            "may be "
            "truncated, export or copy it again"
        )
    return np.stack(pictures[:frames])
