"""RealEstate10K ``<id>.txt``.

The first line is a video address; each further line has 19 numbers: timestamp in microseconds,
fx fy cx cy normalised by the image size, two zeros (distortion), and a row-major 3x4
world-to-camera matrix (OpenCV). A file without the address is read too.

Read next: ``formats.py``.
"""

from pathlib import Path

import numpy as np

from mirage_jax.atomic import write_text
from mirage_jax.geometry.camera_files.camera_path import UNIT_HW, CameraPath
from mirage_jax.geometry.camera_files.matrices import intrinsics_values, inverse_of_path
from mirage_jax.geometry.camera_files.reading import Reading
from mirage_jax.geometry.camera_files.stored import Stored
from mirage_jax.geometry.camera_files.text_lines import check_count, numbered_lines, numbers

COLUMNS = 19


def read_realestate(path: Path, reading: Reading) -> Stored:
    """Read a RealEstate10K file."""
    rows, places = [], []
    for number, line in numbered_lines(path):
        words = line.split()
        if number == 1 and len(words) != COLUMNS:
            continue  # the address
        if not words:
            continue
        where = f"{path}: line {number}"
        if len(words) != COLUMNS:
            raise ValueError(
                f"{where} is not a camera: got {len(words)} numbers, expected 19 "
                "(timestamp, fx fy cx cy, two zeros, 3x4 world-to-camera). The file may be cut off."
            )
        row = numbers(words, where)
        if row[5] or row[6]:
            raise ValueError(
                f"{where} has lens distortion: got {row[5:7]}, expected 0 0. "
                "Undistort the images and their cameras first."
            )
        rows.append(row)
        places.append(f"line {number}")
        check_count(len(rows), str(path))
    if not rows:
        raise ValueError(
            f"{path}: no cameras: got no line after the first, expected one per frame. The first "
            "line of a RealEstate10K file is the video's address."
        )
    table = np.array(rows)
    return Stored(
        table[:, 7:].reshape(-1, 3, 4),
        "w2c",
        intrinsics=table[:, 1:5],
        unit="normalized",
        hw=UNIT_HW,
        times=table[:, 0] / 1e6,
        places=places,
    )


def write_realestate(path: Path, cameras: CameraPath) -> None:
    """Write a RealEstate10K file with a blank address; times are rounded to microseconds."""
    cameras = cameras.rescaled(UNIT_HW)
    values = intrinsics_values(cameras.intrinsics, str(path))
    poses = inverse_of_path(cameras.cam_to_world)[:, :3].reshape(-1, 12)
    rows = np.concatenate([values, np.zeros((len(poses), 2)), poses], axis=1)
    lines = [
        " ".join([str(round(time * 1e6)), *(f"{x:.17g}" for x in row)])
        for time, row in zip(cameras.seconds.tolist(), rows.tolist(), strict=True)
    ]
    write_text(path, "\n".join(["", *lines]) + "\n")
