"""Where pictures, depth, masks and captions of a camera file are looked for.

Pictures: ``<stem>.mp4`` (or another video), a folder ``<stem>/``, then ``clip``, ``rgb``,
``video``, ``images``, ``frames`` and the folder itself. Depth: ``depth/<stem>`` or
``<stem>.depth`` as .zip, .npz, .npy or a folder, then ``depth`` alone.

Read next: ``camera_and_pictures.py``.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mirage_jax.data.ingest.depth_frames import (
    MILLIMETRES,
    DepthFrames,
    depth_of_array,
    depth_of_files,
    depth_of_zip,
    zip_content,
    zip_members,
)
from mirage_jax.data.ingest.media import VIDEOS, FileFrames, VideoFrames, pictures_in
from mirage_jax.geometry.depth_files.archives import SUFFIXES, in_order
from mirage_jax.geometry.depth_files.arrays import read_npy_depth, read_npz_depth

Frames = FileFrames | VideoFrames
_GROUPS = ("clip", "rgb", "color", "video", "images", "frames", "images_2", "images_4", "images_8")
_MAX_TEXT = 1 << 16


def frames_beside(folder: Path, stem: str) -> Frames:
    """Return the pictures that go with the camera file `stem` of a folder.

    Raises:
        ValueError: none, or several that could be meant.
    """
    for place in (folder / stem, folder / "rgb" / stem, folder / "video" / stem):
        if (found := _frames_at(place)) is not None:
            return found
    for name in _GROUPS:
        if (found := _frames_at(folder / name)) is not None:
            return found
    videos = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in VIDEOS]
    if len(videos) > 1:
        shown = ", ".join(file.name for file in videos[:5])
        raise ValueError(f"{folder}: holds several videos ({shown}), expected one, or {stem}.mp4.")
    if videos:
        return VideoFrames(videos[0])
    if pictures := pictures_in(folder):
        return FileFrames(pictures)
    raise ValueError(
        f"{folder}: has cameras and no pictures: expected {stem}.mp4, or a folder {stem}/ or "
        "images/ with a picture of each frame. Put the video beside the cameras."
    )


def depth_beside(folder: Path, stem: str, count: int, unit: float | None) -> DepthFrames | None:
    """Return the depth of a clip that lies beside its cameras, or None.

    Raises:
        ValueError: as many maps as cameras are expected.
    """
    for place in (folder / "depth" / stem, folder / f"{stem}.depth", folder / f"{stem}_depth"):
        if (found := _depth_at(place, count, unit)) is not None:
            return found
    for name in ("depth", "depths"):
        if (found := _depth_at(folder / name, count, unit)) is not None:
            return found
    return None


def mask_frames_of_zip(path: Path, numbers: Sequence[int]) -> Callable[[int], np.ndarray]:
    """Return what reads ViPE's masks as [h, w], True where something moves.

    ViPE marks what moves with numbers above 0 and leaves the static scene 0.
    """
    from PIL import Image

    members = zip_members(path)

    def read(index: int) -> np.ndarray:
        name = members.get(numbers[index])
        if name is None:
            raise ValueError(f"{path}: has no mask of frame {numbers[index]}. Run the tool again.")
        content = zip_content(path, name)
        try:
            with Image.open(io.BytesIO(content), formats=("PNG",)) as picture:
                values = np.asarray(picture)
        except Exception as error:  # damaged data makes Pillow raise many kinds
            raise ValueError(f"{path}: {name} is no picture: {str(error)[:200]}") from error
        return (values if values.ndim == 2 else values.max(axis=-1)) > 0

    return read


def text_beside(folder: Path, stem: str) -> str:
    """Return a caption: ``<stem>.caption.txt``, ``caption.txt``, ``prompt.txt`` or ``clip.txt``."""
    for name in (f"{stem}.caption.txt", "caption.txt", "prompt.txt", "clip.txt"):
        file = folder / name
        if file.is_file() and file.stat().st_size <= _MAX_TEXT:
            return file.read_text(encoding="utf-8", errors="replace").strip()
    return ""


def _frames_at(place: Path) -> Frames | None:
    for suffix in VIDEOS:
        video = place.with_name(place.name + suffix)
        if video.is_file():
            return VideoFrames(video)
    if place.is_dir() and (pictures := pictures_in(place)):
        return FileFrames(pictures)
    return None


def _depth_at(place: Path, count: int, unit: float | None) -> DepthFrames | None:
    unit = MILLIMETRES if unit is None else unit
    archive, npz, npy = (place.with_name(place.name + end) for end in (".zip", ".npz", ".npy"))
    if archive.is_file():
        numbers = sorted(zip_members(archive))
        _check_count(len(numbers), count, archive)
        return depth_of_zip(archive, numbers, unit)
    for file, read in ((npz, read_npz_depth), (npy, read_npy_depth)):
        if file.is_file():
            array = read(file)
            array = array[None] if array.ndim == 2 else array
            _check_count(len(array), count, file)
            return depth_of_array(array, str(file), unit)
    if not place.is_dir():
        return None
    names = in_order(file.name for file in place.iterdir() if file.suffix.lower() in SUFFIXES)
    if not names:
        return None
    _check_count(len(names), count, place)
    return depth_of_files([place / name for name in names], unit)


def _check_count(maps: int, count: int, where: Path) -> None:
    if maps != count:
        raise ValueError(
            f"{where}: got {maps} maps of depth and {count} cameras, expected as many of both."
        )
