"""Posed RGB-D of three benchmarks: TUM, 7-Scenes and ScanNet.

TUM: ``rgb.txt``, ``depth.txt`` and ``groundtruth.txt`` with times of their own, associated here;
fifths of millimetres. 7-Scenes: ``frame-000000.color.png/.depth.png/.pose.txt``; ScanNet:
``color/0.jpg``, ``depth/0.png``, ``pose/0.txt``, ``intrinsic/intrinsic_color.txt``; millimetres.
Matrices are OpenCV camera to world in metres. Frames without a valid camera break the recording.

Read next: ``../recording.py``.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mirage_jax.data.ingest.depth_frames import DepthFrames, depth_of_files
from mirage_jax.data.ingest.layouts.association import matched_times, timed_files
from mirage_jax.data.ingest.media import FileFrames, in_natural_order, picture_size
from mirage_jax.data.ingest.recording import IngestOptions, Picture, Recording, cameras_for
from mirage_jax.data.ingest.straighten import straightened
from mirage_jax.geometry.camera_files import CameraPath, read_cameras
from mirage_jax.geometry.camera_files.stored import Stored, assemble
from mirage_jax.geometry.camera_files.text_lines import numbered_lines, numbers
from mirage_jax.geometry.lens import Lens

# fx fy cx cy that the TUM benchmark publishes, with (0, 0) the centre of the first pixel.
_TUM_CAMERAS = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3),
    "freiburg2": (520.9, 521.0, 325.1, 249.7),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
}
# Pictures of freiburg3 are published straightened.
_TUM_LENSES = {
    "freiburg1": Lens("opencv", (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "freiburg2": Lens("opencv", (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
}
_TUM_UNIT = 1 / 5000
# 7-Scenes publishes no calibration: Kinect's usual focal lengths of colour and depth, 640x480.
_KINECT_COLOR, _KINECT_DEPTH = 525.0, 585.0
_MAX_APART = 0.02  # seconds between a picture and its depth or camera


def read_tum_folder(folder: Path, options: IngestOptions) -> Recording:
    """Read a TUM RGB-D sequence.

    Raises:
        FileNotFoundError, ValueError: a list or a picture is missing or broken, or nothing is
            within 20 ms of anything.
    """
    times, files = timed_files(folder / "rgb.txt")
    depth_times, depth_files = timed_files(folder / "depth.txt")
    cameras = read_cameras(folder / "groundtruth.txt", kind="tum")
    nearest_depth, depth_apart = matched_times(times, depth_times)
    nearest_camera, camera_apart = matched_times(times, cameras.seconds)
    kept = np.flatnonzero((depth_apart <= _MAX_APART) & (camera_apart <= _MAX_APART))
    if not len(kept):
        raise ValueError(
            f"{folder}: no picture has depth and a camera within {_MAX_APART * 1000:.0f} ms: the "
            f"times begin at {times[0]:.3f} (rgb.txt), {depth_times[0]:.3f} (depth.txt) and "
            f"{cameras.seconds[0]:.3f} (groundtruth.txt). Do they belong to one recording?"
        )
    pictures = [files[i] for i in kept]
    chosen = cameras.taken(nearest_camera[kept])
    intrinsics, lens, notes = _tum_camera(folder, options)
    notes += _dropped(len(files) - len(kept), "without depth and camera within 20 ms")
    steps = np.diff(times[kept])
    # A hole of several frames is no neighbourhood.
    holes = np.flatnonzero(steps > 4 * np.median(steps)) if len(steps) else np.zeros(0, np.int64)
    every = np.tile(intrinsics, (len(kept), 1, 1))
    path = CameraPath(chosen.cam_to_world, every, times=times[kept], notes=cameras.notes)
    depth = depth_of_files(
        [depth_files[i] for i in nearest_depth[kept]], options.depth_unit or _TUM_UNIT
    )
    found = _recording(folder, path, pictures, depth, (tuple((holes + 1).tolist()), notes))
    return straightened(found, [lens] * len(found))


def read_seven_scenes(folder: Path, options: IngestOptions) -> Recording:
    """Read a sequence of 7-Scenes; the scene is the folder above."""
    poses = in_natural_order(list(folder.glob("frame-*.pose.txt")))
    stems = [file.name.removesuffix(".pose.txt") for file in poses]
    pictures = [folder / f"{stem}.color.png" for stem in stems]
    depths = [folder / f"{stem}.depth.png" for stem in stems]
    _require(pictures + depths, folder)
    matrices, kept = _matrices(poses)
    hw = picture_size(pictures[kept[0]])
    intrinsics, depth_matrix = options.intrinsics, None
    notes: tuple[str, ...] = ()
    if intrinsics is None:
        intrinsics = _centered(_KINECT_COLOR, hw)
        depth_matrix = _centered(_KINECT_DEPTH, picture_size(depths[kept[0]]))
        notes = (
            "7-Scenes publishes no calibration: focal lengths of 525 (colour) and 585 (depth)",
        )
    notes += _dropped(len(poses) - len(kept), "without a valid camera")
    path = assemble(
        Stored(matrices, "c2w", intrinsics=intrinsics, hw=hw), str(folder), options.reading
    )
    depth = depth_of_files([depths[i] for i in kept], options.depth_unit or 0.001)
    found = _recording(
        folder, path, [pictures[i] for i in kept], depth, (_breaks(kept), notes), depth_matrix
    )
    return found


def read_scannet(folder: Path, options: IngestOptions) -> Recording:
    """Read a ScanNet scene as its tools export it; all scans of one room are one scene."""
    poses = in_natural_order(list((folder / "pose").glob("*.txt")))
    if not (folder / "depth").is_dir():
        raise ValueError(f"{folder}: has no folder depth/: expected depth/0.png and so on.")
    colors = {file.stem: file for file in (folder / "color").iterdir()}
    depths = {file.stem: file for file in (folder / "depth").iterdir()}
    for stem in (file.stem for file in poses):
        if stem not in colors or stem not in depths:
            lacking = "color" if stem not in colors else "depth"
            raise ValueError(
                f"{folder}: frame {stem} has no picture in {lacking}/: got {len(poses)} cameras, "
                f"{len(colors)} pictures and {len(depths)} of depth, expected one of each a frame."
            )
    if not poses:
        raise ValueError(f"{folder}: holds no cameras: expected pose/0.txt and so on.")
    matrices, kept = _matrices(poses)
    names = [poses[i].stem for i in kept]
    color = options.intrinsics
    depth_matrix = None
    if color is None:
        color = _scannet_intrinsics(folder / "intrinsic" / "intrinsic_color.txt")
        depth_matrix = _scannet_intrinsics(folder / "intrinsic" / "intrinsic_depth.txt")
    path = assemble(Stored(matrices, "c2w", intrinsics=color), str(folder), options.reading)
    notes = _dropped(len(poses) - len(kept), "without a valid camera")
    depth = depth_of_files([depths[name] for name in names], options.depth_unit or 0.001)
    return _recording(
        folder, path, [colors[n] for n in names], depth, (_breaks(kept), notes), depth_matrix
    )


def read_matrix(path: Path, size: int = 4) -> np.ndarray:
    """Read a matrix [size, size] of numbers, a row a line; values may be infinite."""
    rows: list[list[float]] = []
    for number, line in numbered_lines(path):
        words = line.replace(",", " ").split()
        if not words:
            continue
        where = f"{path}: line {number}"
        if len(words) != size or len(rows) == size:
            raise ValueError(
                f"{where}: got {len(words)} numbers in row {len(rows) + 1}, expected {size} rows "
                f"of {size}. The file may be cut off."
            )
        try:
            rows.append([float(word) for word in words])
        except ValueError:
            rows.append(numbers(words, where))
    if len(rows) != size:
        raise ValueError(
            f"{path}: line {len(rows) + 1}: got {len(rows)} rows, expected {size} rows of {size} "
            "numbers. The file may be cut off."
        )
    return np.array(rows)


def _matrices(files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Return the finite matrices and which frames have them."""
    found = [read_matrix(file) for file in files]
    kept = np.array([i for i, matrix in enumerate(found) if np.isfinite(matrix).all()], np.int64)
    if not len(kept):
        raise ValueError(f"{files[0].parent}: no frame has a valid camera: got {len(files)} files.")
    return np.stack([found[i] for i in kept]), kept


def _breaks(kept: np.ndarray) -> tuple[int, ...]:
    return tuple((np.flatnonzero(np.diff(kept) > 1) + 1).tolist())


def _dropped(count: int, why: str) -> tuple[str, ...]:
    return (f"{count} frames {why} left out",) if count else ()


def _require(files: Sequence[Path], folder: Path) -> None:
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ValueError(
            f"{folder}: {missing[0]} is missing ({len(missing)} files): expected colour, depth and "
            "pose of every frame. Unpack the archive again."
        )


def _centered(focal: float, hw: tuple[int, int]) -> np.ndarray:
    """Return intrinsics of a 640-wide camera scaled to `hw`, the middle as principal point."""
    scaled = focal * hw[1] / 640
    return np.array([[scaled, 0, hw[1] / 2], [0, scaled, hw[0] / 2], [0, 0, 1.0]])


def _tum_camera(
    folder: Path, options: IngestOptions
) -> tuple[np.ndarray, Lens | None, tuple[str, ...]]:
    if options.intrinsics is not None:
        return options.intrinsics, None, ()
    name = next((key for key in _TUM_CAMERAS if key in folder.resolve().name), None)
    if name is None:
        raise ValueError(
            f"{folder}: has no intrinsics: a TUM sequence is known by freiburg1, 2 or 3 in its "
            "name, got none of them. Give --intrinsics fx,fy,cx,cy in pixels (for many such "
            "recordings 525,525,320,240)."
        )
    fx, fy, cx, cy = _TUM_CAMERAS[name]
    matrix = np.array([[fx, 0, cx + 0.5], [0, fy, cy + 0.5], [0, 0, 1]])
    return matrix, _TUM_LENSES.get(name), (f"intrinsics that the benchmark publishes for {name}",)


def _scannet_intrinsics(file: Path) -> np.ndarray:
    matrix = read_matrix(file)[:3, :3]
    matrix[:2, 2] += 0.5  # stored with (0, 0) the centre of the first pixel
    return matrix


def _recording(
    folder: Path,
    path: CameraPath,
    pictures: Sequence[Path],
    depth: DepthFrames,
    told: tuple[tuple[int, ...], tuple[str, ...]],
    depth_intrinsics: np.ndarray | None = None,
) -> Recording:
    frames = FileFrames(pictures)
    hw = picture_size(pictures[0])
    cameras, notes = cameras_for(path, hw, str(folder))
    return Recording(
        name=folder.name,
        scene=_scene_of(folder),
        source=str(folder),
        cameras=cameras,
        hw=hw,
        picture=lambda i: Picture(frames[i], depth(i)),
        has_depth=True,
        depth_intrinsics=depth_intrinsics,
        breaks=told[0],
        notes=path.notes + told[1] + notes,
    )


def _scene_of(folder: Path) -> str:
    """Return what scans of one room share: 7-Scenes' folder above, ScanNet's number."""
    if re.fullmatch(r"seq-\d+", folder.name):
        return folder.resolve().parent.name
    scan = re.fullmatch(r"(scene\d{4})_\d\d", folder.name)
    return scan[1] if scan else folder.name
