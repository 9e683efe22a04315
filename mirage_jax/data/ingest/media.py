"""Pictures of a recording, one at a time: from a video through PyAV, or from files through Pillow.

Conventions: uint8 RGB [H, W, 3] as the pixels are stored; orientation tags are not applied, since
cameras are those of the stored pixels. Sizes are checked before memory is taken.

Read next: ``recording.py``.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")
MAX_PIXELS = 64 << 20
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM", "TIFF")


class FileFrames:
    """Frames that are files."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray:
        """Read one frame."""
        return read_picture(self.files[index])


class VideoFrames:
    """Frames of a video; cheap when they are asked for in order.

    Attributes:
        path: the file.
        times: [f] seconds of the frames, read from the packets without decoding.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.times = _frame_times(path)
        self._decoded: Iterator[Any] | None = None
        self._next = 0

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, index: int) -> np.ndarray:
        """Decode one frame.

        Raises:
            ValueError: the video ends earlier than it says, or is damaged.
        """
        if self._decoded is None or index < self._next:
            self._decoded, self._next = self._decode(), 0
        while True:
            frame = self._take(self._decoded)
            self._next += 1
            if self._next > index:
                return frame.to_ndarray(format="rgb24")

    def _take(self, decoded: Iterator[Any]) -> Any:
        import av

        try:
            return next(decoded)
        except StopIteration:
            self._decoded = None
            raise ValueError(
                f"{self.path}: ends at frame {self._next}, expected {len(self)} frames. It may be "
                "truncated; copy it again."
            ) from None
        except (av.FFmpegError, ValueError) as error:
            self._decoded = None
            raise _broken_video(self.path, error) from error

    def _decode(self) -> Iterator[Any]:
        import av

        with av.open(str(self.path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield from container.decode(stream)


def read_picture(path: Path) -> np.ndarray:
    """Read a picture as uint8 RGB [H, W, 3]; grey and transparent ones are converted.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a whole picture, or too large.
    """
    with _opened(path) as picture:
        try:
            return np.asarray(picture.convert("RGB"))
        except Exception as error:  # damaged data makes Pillow raise many kinds
            raise _broken_picture(path, error) from error


def picture_size(path: Path) -> tuple[int, int]:
    """Return (height, width) of a picture from its header."""
    with _opened(path) as picture:
        return picture.size[1], picture.size[0]


def frame_size(frames: "FileFrames | VideoFrames") -> tuple[int, int]:
    """Return (height, width) of the first frame."""
    if isinstance(frames, FileFrames):
        return picture_size(frames.files[0])
    height, width = frames[0].shape[:2]
    return height, width


def in_natural_order(files: Sequence[Path]) -> list[Path]:
    """Sort files so that frame_9 comes before frame_10."""
    return sorted(files, key=lambda file: natural_key(file.name))


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a key that orders names by the numbers in them."""
    parts = re.findall(r"\d{1,30}|\D+", name)
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)


def pictures_in(folder: Path) -> list[Path]:
    """Return the picture files of a folder in natural order."""
    return in_natural_order([f for f in folder.iterdir() if f.suffix.lower() in PICTURES])


def _opened(path: Path) -> Any:
    from PIL import Image

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such picture. Check the folder, or copy it again.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, which are checked below
            picture = Image.open(path, formats=_FORMATS)
    except Exception as error:  # as in read_picture
        raise _broken_picture(path, error) from error
    width, height = picture.size
    if width * height > MAX_PIXELS:
        picture.close()
        raise ValueError(
            f"{path}: is too large: got {height}x{width}, expected at most {MAX_PIXELS} pixels."
        )
    return picture


def _frame_times(path: Path) -> np.ndarray:
    import av

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such video. Check the path.")
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            if stream.width * stream.height > MAX_PIXELS:
                raise ValueError(f"{stream.height}x{stream.width} pixels are too many")
            base = float(stream.time_base or 1)
            times = [p.pts * base for p in container.demux(stream) if p.pts is not None and p.size]
    except (av.FFmpegError, IndexError, ValueError, UnicodeDecodeError) as error:
        raise _broken_video(path, error) from error
    if not times:
        raise _broken_video(path, ValueError("no frames"))
    return np.sort(np.array(times))


def _broken_video(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path}: cannot be read as a video: got {str(error)[:200]}, expected a whole video file. "
        "It may be truncated; copy it again."
    )


def _broken_picture(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path}: cannot be read as a picture: got {str(error)[:200] or type(error).__name__}, "
        "expected a whole picture. It may be truncated; copy it again."
    )
