"""Camera files as text: RealEstate10K ``<id>.txt``, and ``w2c.txt`` with ``intrinsics.txt``.

RealEstate10K: the first line is a video address; each further line has 19 numbers: timestamp in
microseconds, fx fy cx cy normalised by the image size, two zeros (distortion), and a row-major 3x4
world-to-camera matrix (OpenCV). ``w2c.txt``: one JSON list (3x4 or 4x4, world to camera) per line;
``intrinsics.txt`` beside it: normalised fx fy cx cy, on one line or on one per camera.

Both have normalised intrinsics; they are returned as those of a 1 x 1 image, to be rescaled with
``rescale_intrinsics(K, (1, 1), (height, width))``. Read next: ``../camera_files.py``.
"""

import json
import os
from pathlib import Path

import numpy as np

from mirage_jax.atomic import write_text
from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.files.matrices import (
    from_world_to_cam,
    intrinsics_matrix,
    intrinsics_values,
    to_world_to_cam,
)


def read_realestate(path: str | os.PathLike[str]) -> Camera:
    """Read a RealEstate10K file; intrinsics are those of a 1 x 1 image."""
    rows = []
    for number, line in enumerate(_lines(path)[1:], start=2):
        row = _numbers(line, f"{path}: line {number}")
        if len(row) != 19:
            raise ValueError(
                f"{path}: line {number} is not a camera: got {len(row)} numbers, expected 19 "
                "(timestamp, fx fy cx cy, two zeros, 3x4 world-to-camera). The file may be cut off."
            )
        if row[5] or row[6]:
            raise ValueError(
                f"{path}: line {number} has lens distortion: got {row[5:7]}, expected 0 0. "
                "Undistort the images and their cameras first."
            )
        rows.append(row)
    if not rows:
        raise ValueError(
            f"{path}: no cameras: got no line after the first, expected one per frame. The first "
            "line of a RealEstate10K file is the video's address."
        )
    table = np.array(rows)
    return from_world_to_cam(
        table[:, 7:].reshape(-1, 3, 4), intrinsics_matrix(table[:, 1:5]), str(path)
    )


def write_realestate(
    path: str | os.PathLike[str], camera: Camera, hw: tuple[int, int], fps: float = 16.0
) -> None:
    """Write cameras [f] as a RealEstate10K file with a blank address and times from `fps`."""
    poses = to_world_to_cam(camera)[:, :3].reshape(-1, 12)
    values = intrinsics_values(camera.intrinsics, hw).reshape(-1, 4)
    lines = [""]
    for index, (pose, value) in enumerate(zip(poses, values, strict=True)):
        numbers = [*value, 0, 0, *pose]
        lines.append(" ".join([str(round(index * 1e6 / fps)), *(f"{x:.12g}" for x in numbers)]))
    write_text(path, "\n".join(lines) + "\n")


def read_w2c(path: str | os.PathLike[str]) -> Camera:
    """Read w2c.txt and the intrinsics.txt beside it; intrinsics are those of a 1 x 1 image."""
    matrices = []
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            matrix = np.array(json.loads(line), dtype=np.float64)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{path}: line {number} is not a matrix: got {error}, expected one JSON list of "
                "3x4 or 4x4 numbers per line. The file may be cut off."
            ) from error
        if matrix.shape not in ((3, 4), (4, 4)):
            raise ValueError(
                f"{path}: line {number} has the wrong shape: got {matrix.shape}, expected (3, 4) "
                "or (4, 4). Write one matrix per line."
            )
        matrices.append(matrix if len(matrix) == 4 else np.vstack([matrix, [0, 0, 0, 1]]))
    if not matrices:
        raise ValueError(f"{path}: no cameras: got an empty file, expected one matrix per line.")
    beside = Path(path).with_name("intrinsics.txt")
    return from_world_to_cam(np.stack(matrices), _read_intrinsics(beside, len(matrices)), str(path))


def write_w2c(path: str | os.PathLike[str], camera: Camera, hw: tuple[int, int]) -> None:
    """Write cameras [f] as w2c.txt (any name) and intrinsics.txt in the same folder."""
    poses = to_world_to_cam(camera)
    values = intrinsics_values(camera.intrinsics, hw).reshape(-1, 4)
    if (values == values[0]).all():
        values = values[:1]
    rows = [" ".join(f"{x:.12g}" for x in row) for row in values]
    write_text(Path(path).with_name("intrinsics.txt"), "\n".join(rows) + "\n")
    write_text(path, "".join(json.dumps(pose.tolist()) + "\n" for pose in poses))


def _read_intrinsics(path: Path, count: int) -> np.ndarray:
    """Read normalised fx fy cx cy, one line or `count`, as [count, 3, 3] or [3, 3]."""
    rows = [
        _numbers(line.strip().strip("[]").replace(",", " "), f"{path}: line {number}")
        for number, line in enumerate(_lines(path), start=1)
        if line.strip()
    ]
    if len(rows) not in (1, count) or any(len(row) != 4 for row in rows):
        raise ValueError(
            f"{path}: wrong number of values: got {[len(row) for row in rows]} per line, expected "
            f"fx fy cx cy on one line, or on {count} lines. Divide pixels by the image size."
        )
    values = np.array(rows)
    if (values > 20).any():
        raise ValueError(
            f"{path}: intrinsics are not normalised: got {rows[0]}, expected fx and cx divided by "
            "the image width, fy and cy by the height. Divide them."
        )
    return intrinsics_matrix(values if len(rows) > 1 else values[0])


def _lines(path: str | os.PathLike[str]) -> list[str]:
    """Return the lines of a text file without trailing empty ones."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such file. Check the path.")
    try:
        return Path(path).read_text(encoding="utf-8").rstrip().split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: not text: got {error}, expected UTF-8. Check the file."
        ) from error


def _numbers(line: str, name: str) -> list[float]:
    """Parse blank-separated numbers."""
    try:
        return [float(word) for word in line.split()]
    except ValueError as error:
        raise ValueError(
            f"{name} is not a row of numbers: got {line[:80]!r}, expected numbers separated by "
            "blanks. Check that this is the right kind of file."
        ) from error
