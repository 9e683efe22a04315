"""Folders with one camera file and pictures: geometry.npz, nerfstudio, ViPE and RealEstate10K.

The cameras come through ``geometry/camera_files``; pictures are a video or files, depth lies
beside. Where a layout has no depth, ``Recording.has_depth`` is False and the caller refuses.

Read next: ``../recording.py``, ``beside.py`` (where pictures and depth are looked for).
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mirage_jax.data.ingest.depth_frames import DepthFrames, depth_of_files, depth_of_zip
from mirage_jax.data.ingest.layouts.beside import (
    Frames,
    depth_beside,
    frames_beside,
    mask_frames_of_zip,
    text_beside,
)
from mirage_jax.data.ingest.media import FileFrames, frame_size, natural_key, read_picture
from mirage_jax.data.ingest.recording import IngestOptions, Picture, Recording, cameras_for
from mirage_jax.data.ingest.straighten import straightened
from mirage_jax.geometry.camera_files import CameraPath, load_geometry, path_of, read_cameras
from mirage_jax.geometry.camera_files.nerfstudio import read_lenses
from mirage_jax.geometry.camera_files.text_lines import read_json

_SUFFIXES = (".png", ".jpg", ".jpeg")


def read_geometry_folder(file: Path, options: IngestOptions) -> Recording:
    """Read a geometry.npz with its frames inside, in ``clip.mp4``, or in a folder of pictures."""
    geometry = load_geometry(file)
    count = len(geometry.depths)
    frames: Frames | np.ndarray
    if geometry.frames is not None and len(geometry.frames) == count:
        frames, hw = geometry.frames, geometry.hw
    else:
        frames = frames_beside(file.parent, file.stem)
        hw = frame_size(frames)
        _same_count(len(frames), count, file)
    scaled = path_of(geometry.camera, geometry.hw)
    cameras, notes = cameras_for(scaled, hw, str(file))
    depths = geometry.depths
    masks = geometry.masks

    def picture(index: int) -> Picture:
        return Picture(frames[index], depths[index], None if masks is None else ~masks[index])

    return Recording(
        name=file.parent.name,
        scene=file.parent.name,
        source=str(file),
        cameras=cameras,
        hw=hw,
        picture=picture,
        has_depth=True,
        caption=geometry.prompt or "",
        notes=notes,
    )


def read_nerfstudio_folder(file: Path, options: IngestOptions) -> Recording:
    """Read a transforms.json with its pictures and, where frames name them, depth and masks.

    Frames are ordered by the numbers in their names, as the video they were taken from. Lenses are
    taken out of the pictures. Masks are 0 where nothing is to be learned from.
    """
    folder = file.parent
    cameras = read_cameras(file, dataclasses.replace(options.reading, bent=True), kind="nerfstudio")
    if cameras.names is None:
        raise ValueError(f"{file}: frames have no 'file_path': expected a picture of each frame.")
    files = [_found_picture(folder / name, file) for name in cameras.names]
    order = sorted(range(len(files)), key=lambda i: natural_key(str(files[i])))
    frames, lenses = read_json(file)["frames"], read_lenses(file)
    names = [frame.get("depth_file_path") for frame in frames]
    masks = [frame.get("mask_path") for frame in frames]
    files, cameras = [files[i] for i in order], cameras.taken(order)
    depth = None
    notes: tuple[str, ...] = ()
    if all(isinstance(name, str) for name in names):
        depth = depth_of_files([folder / str(names[i]) for i in order], options.depth_unit or 0.001)
        notes = ("whole numbers of depth are millimetres",) if options.depth_unit is None else ()
    else:
        depth = depth_beside(folder, file.stem, len(files), options.depth_unit)
    moving = None
    if all(isinstance(name, str) for name in masks):
        moving = _masked_out([folder / str(masks[i]) for i in order])
    recording = _recording(file, FileFrames(files), cameras, depth, notes, moving=moving)
    return straightened(recording, [lenses[i] for i in order])


def read_vipe_folder(file: Path, options: IngestOptions) -> Recording:
    """Read a clip of ViPE from its archive of camera matrices: pictures, depth and masks beside."""
    cameras = read_cameras(file, options.reading, kind="vipe")
    numbers = [int(name) for name in cameras.names or ()]
    grouped = file.parent.name == "pose" and file.name != "pose.npz"
    root = file.parent.parent if grouped else file.parent
    inner = f"{file.stem}.zip" if grouped else ""
    depth_file = root / "depth" / inner if grouped else root / "depth.zip"
    mask_file = root / "mask" / inner if grouped else root / "mask.zip"
    pictures = frames_beside(root, file.stem if grouped else "rgb")
    if wrong := [number for number in numbers if not 0 <= number < len(pictures)]:
        raise ValueError(
            f"{file}: has a camera for frame {wrong[0]}, got {len(pictures)} pictures: expected "
            "the video that ViPE was given."
        )
    depth = depth_of_zip(depth_file, numbers, 0.001) if depth_file.is_file() else None
    moving = mask_frames_of_zip(mask_file, numbers) if mask_file.is_file() else None
    breaks = tuple((np.flatnonzero(np.diff(numbers) != 1) + 1).tolist())
    chosen = _Chosen(pictures, numbers)
    return _recording(file, chosen, cameras, depth, breaks=breaks, moving=moving, root=root)


def read_realestate_file(file: Path, options: IngestOptions) -> Recording:
    """Read RealEstate10K's ``<id>.txt`` with ``<id>.mp4`` or a folder of frames beside.

    Frames that are files are named by their time in microseconds, or are as many as the cameras;
    frames of a video are those nearest to the cameras' times.
    """
    cameras = read_cameras(file, options.reading, kind="realestate10k")
    frames = frames_beside(file.parent, file.stem)
    chosen = _at_times(frames, cameras, file)
    depth = depth_beside(file.parent, file.stem, len(cameras), options.depth_unit)
    return _recording(file, chosen, cameras, depth, root=file.with_suffix(""))


class _Chosen:
    """Some frames of a source, by number."""

    def __init__(self, frames: Frames, numbers: list[int]) -> None:
        self._frames, self._numbers = frames, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._frames[self._numbers[index]]

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width of the frames."""
        return frame_size(self._frames)


def _at_times(frames: Frames, cameras: CameraPath, file: Path) -> Frames | _Chosen:
    seconds = cameras.seconds
    if isinstance(frames, FileFrames):
        stamps = {f.stem.split("_")[-1]: i for i, f in enumerate(frames.files)}
        wanted = [str(round(time * 1e6)) for time in seconds]
        if all(stamp in stamps for stamp in wanted):
            return _Chosen(frames, [stamps[stamp] for stamp in wanted])
        _same_count(len(frames), len(cameras), file)
        return frames
    if len(frames) == len(cameras):
        return frames
    times = frames.times
    after = np.clip(np.searchsorted(times, seconds), 0, len(times) - 1)
    before = np.maximum(after - 1, 0)
    near = np.where(abs(times[before] - seconds) <= abs(times[after] - seconds), before, after)
    apart = float(np.abs(times[near] - seconds).max())
    if apart > 0.1:
        raise ValueError(
            f"{file}: a camera is {apart:.2f} s from the nearest frame of {frames.path}, which has "
            f"{len(frames)} frames for {len(cameras)} cameras: expected the whole video, or the "
            "cut clip with one frame for each camera."
        )
    return _Chosen(frames, near.tolist())


def _recording(
    file: Path,
    frames: Frames | _Chosen,
    cameras: CameraPath,
    depth: DepthFrames | None,
    notes: tuple[str, ...] = (),
    *,
    breaks: tuple[int, ...] = (),
    moving: Callable[[int], np.ndarray] | None = None,
    root: Path | None = None,
) -> Recording:
    """Put a recording together; `root` names it."""
    root = root or file.parent
    _same_count(len(frames), len(cameras), file)
    hw = frames.hw if isinstance(frames, _Chosen) else frame_size(frames)
    fitted, more = cameras_for(cameras, hw, str(file))

    def picture(index: int) -> Picture:
        return Picture(
            frames[index],
            None if depth is None else depth(index),
            None if moving is None else moving(index),
        )

    name = file.stem if file.parent.name == "pose" and file.name != "pose.npz" else root.name
    return Recording(
        name=name,
        scene=name,
        source=str(file),
        cameras=fitted,
        hw=hw,
        picture=picture,
        has_depth=depth is not None,
        caption=text_beside(file.parent, name),
        breaks=breaks,
        notes=cameras.notes + tuple(notes) + more,
    )


def _masked_out(files: list[Path]) -> Callable[[int], np.ndarray]:
    """Return what reads masks of nerfstudio as [h, w], True where they are 0."""
    return lambda index: (read_picture(files[index]) == 0).all(axis=-1)


def _same_count(pictures: int, cameras: int, file: Path) -> None:
    if pictures != cameras:
        raise ValueError(
            f"{file}: got {cameras} cameras and {pictures} pictures, expected as many of both. "
            "Were frames dropped when the video was cut?"
        )


def _found_picture(path: Path, file: Path) -> Path:
    """Return a picture of a frame: without its ending, or of a smaller copy (``images_4``), too."""
    parents = [path.parent, *(path.parent.with_name(f"{path.parent.name}_{n}") for n in (2, 4, 8))]
    names = [path.name, *(path.name + suffix for suffix in _SUFFIXES)]
    candidates = [parent / name for parent in parents for name in names]
    found = next((one for one in candidates if one.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"{file}: names {path}, which is not there. Check the folder.")
    return found
