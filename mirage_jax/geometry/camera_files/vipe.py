"""Folders of ViPE.

Either ``pose.npz`` and ``intrinsics.npz`` in one folder, or ``pose/<clip>.npz`` and
``intrinsics/<clip>.npz``, with ``intrinsics/<clip>_camera.txt`` naming the camera model. Each
archive holds ``inds`` [f], the frames' numbers, and ``data``: [f, 4, 4] or [f, 16] camera to world
(OpenCV), and [f, 4] fx fy cx cy or [f, 3, 3] in pixels. The image size is not in there.

Read next: ``formats.py``.
"""

from pathlib import Path

import numpy as np

from mirage_jax.geometry.camera_files.camera_path import CameraPath
from mirage_jax.geometry.camera_files.matrices import intrinsics_values
from mirage_jax.geometry.camera_files.npz import MAX_CAMERA_BYTES, read_npz, write_npz
from mirage_jax.geometry.camera_files.reading import Reading
from mirage_jax.geometry.camera_files.stored import Stored
from mirage_jax.geometry.camera_files.text_lines import numbered_lines


def find_vipe(path: Path) -> Path | None:
    """Return the archive of camera matrices that a folder or a file of ViPE stands for.

    Raises:
      ValueError: a folder of several clips.
    """
    if path.is_file():
        return path
    if (path / "pose.npz").is_file():
        return path / "pose.npz"
    clips = sorted((path / "pose").glob("*.npz"))
    if len(clips) > 1:
        shown = ", ".join(clip.stem for clip in clips[:5])
        raise ValueError(
            f"{path}: holds {len(clips)} clips ({shown}{', ...' if len(clips) > 5 else ''}), "
            f"expected one. Name it: {clips[0]}"
        )
    return clips[0] if clips else None


def read_vipe(path: Path, reading: Reading) -> Stored:
    """Read a ViPE folder, or the archive of one clip in it."""
    file = find_vipe(path)
    if file is None:
        raise FileNotFoundError(f"{path}: no pose.npz and no pose/<clip>.npz. Check the folder.")
    numbers, data = _indexed(file)
    if data.ndim == 2 and data.shape[1] == 16:
        data = data.reshape(-1, 4, 4)
    beside = file.with_name("intrinsics.npz")
    if file.parent.name == "pose" and file.name != "pose.npz":
        beside = file.parent.parent / "intrinsics" / file.name
    intrinsics = None
    if beside.is_file():
        _check_model(beside.with_name(f"{beside.stem}_camera.txt"))
        intrinsics = _matched(numbers, *_indexed(beside), beside)
    names = [f"{number:05d}" for number in numbers]
    return Stored(data, "c2w", intrinsics=intrinsics, names=names)


def write_vipe(path: Path, cameras: CameraPath) -> None:
    """Write pose.npz and intrinsics.npz into the folder `path`, in float32 as ViPE does."""
    names = cameras.names or ()
    named = len(names) == len(cameras) and all(name.isdecimal() for name in names)
    numbers = np.array([int(name[-15:]) for name in names] if named else range(len(cameras)))
    if cameras.intrinsics is not None:
        values = intrinsics_values(cameras.intrinsics, str(path)).astype(np.float32)
        write_npz(path / "intrinsics.npz", {"inds": numbers, "data": values})
    poses = cameras.cam_to_world.astype(np.float32)
    write_npz(path / "pose.npz", {"inds": numbers, "data": poses})


def _indexed(file: Path) -> tuple[list[int], np.ndarray]:
    """Read `inds` and `data` of equal length."""
    arrays = read_npz(file, ("inds", "data"), max_array_bytes=MAX_CAMERA_BYTES)
    inds, data = arrays["inds"], arrays["data"]
    right = inds.ndim == 1 and inds.dtype.kind in "iu" and data.ndim > 1 and len(data) == len(inds)
    if not right or data.dtype.kind not in "fiu" or not len(inds):
        raise ValueError(
            f"{file}: not ViPE's: got inds {inds.dtype} {inds.shape} and data {data.dtype} "
            f"{data.shape}, expected whole numbers [f] and numbers [f, ...]. Check the file."
        )
    return inds.tolist(), data


def _matched(numbers: list[int], found: list[int], data: np.ndarray, file: Path) -> np.ndarray:
    """Return the intrinsics of the frames that have a camera."""
    if len(found) == 1:
        return data[0]
    place = {number: index for index, number in enumerate(found)}
    missing = [number for number in numbers if number not in place]
    if missing:
        raise ValueError(
            f"{file}: intrinsics are missing for {len(missing)} frames, the first number "
            f"{missing[0]}. Expected one for each camera, or one for all."
        )
    return data[[place[number] for number in numbers]]


def _check_model(file: Path) -> None:
    """Raise if a clip was taken with anything but a pinhole camera."""
    if not file.is_file():
        return
    for number, line in numbered_lines(file):
        model = line.rpartition(":")[2].strip()
        if model not in ("", "PINHOLE"):
            raise ValueError(
                f"{file}: line {number}: the camera is no pinhole: got {model!r}. Rectify the "
                "video first."
            )
