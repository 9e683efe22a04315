"""Trajectories of the TUM RGB-D benchmark, also what evo and many SLAM systems write.

One line a frame: ``timestamp tx ty tz qx qy qz qw``, seconds, camera to world (OpenCV); lines that
start with ``#`` are comments. There are no intrinsics.

Read next: ``formats.py``.
"""

from pathlib import Path

import numpy as np

from mirage_jax.atomic import write_text
from mirage_jax.geometry.camera_files.camera_path import CameraPath
from mirage_jax.geometry.camera_files.matrices import from_quaternions, quaternions
from mirage_jax.geometry.camera_files.reading import Reading
from mirage_jax.geometry.camera_files.stored import Stored
from mirage_jax.geometry.camera_files.text_lines import check_count, numbered_lines, numbers

COLUMNS = 8


def read_tum(path: Path, reading: Reading) -> Stored:
    """Read a TUM trajectory."""
    rows, places = [], []
    for number, line in numbered_lines(path):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        where = f"{path}: line {number}"
        if len(words) != COLUMNS:
            raise ValueError(
                f"{where} is not a camera: got {len(words)} numbers, expected 8 (timestamp, tx ty "
                "tz, qx qy qz qw). The file may be cut off."
            )
        rows.append(numbers(words, where))
        places.append(f"line {number}")
        check_count(len(rows), str(path))
    if not rows:
        raise ValueError(f"{path}: no cameras: got an empty file, expected one line per frame.")
    table = np.array(rows)
    matrices = from_quaternions(table[:, 4:], table[:, 1:4], str(path), places)
    return Stored(matrices, "c2w", times=table[:, 0], places=places)


def write_tum(path: Path, cameras: CameraPath) -> None:
    """Write a TUM trajectory; intrinsics are lost."""
    rows = np.concatenate(
        [
            cameras.seconds[:, None],
            cameras.centers,
            quaternions(cameras.cam_to_world[:, :3, :3]),
        ],
        axis=1,
    )
    lines = [" ".join(f"{x:.17g}" for x in row) for row in rows.tolist()]
    write_text(path, "\n".join(["# timestamp tx ty tz qx qy qz qw", *lines]) + "\n")
