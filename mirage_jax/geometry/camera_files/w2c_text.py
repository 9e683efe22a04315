"""``w2c.txt`` with ``intrinsics.txt`` beside it.

``w2c.txt``: one JSON list (3x4 or 4x4, world to camera, OpenCV) per line; ``intrinsics.txt``:
normalised fx fy cx cy, on one line or on one per camera.

Read next: ``formats.py``.
"""

import json
from pathlib import Path

import numpy as np

from mirage_jax.atomic import write_text
from mirage_jax.geometry.camera_files.camera_path import UNIT_HW, CameraPath
from mirage_jax.geometry.camera_files.matrices import intrinsics_values, inverse_of_path
from mirage_jax.geometry.camera_files.reading import Reading
from mirage_jax.geometry.camera_files.stored import Stored
from mirage_jax.geometry.camera_files.text_lines import check_count, numbered_lines, numbers

_INTRINSICS = "intrinsics.txt"
# Sixteen numbers with blanks are far shorter.
_MAX_LINE = 4096


def read_w2c(path: Path, reading: Reading) -> Stored:
    """Read w2c.txt and the intrinsics.txt beside it."""
    matrices, places = [], []
    for number, line in numbered_lines(path):
        if line:
            matrices.append(_matrix(line, f"{path}: line {number}"))
            places.append(f"line {number}")
            check_count(len(matrices), str(path))
    if not matrices:
        raise ValueError(f"{path}: no cameras: got an empty file, expected one matrix per line.")
    beside = path.with_name(_INTRINSICS)
    given = reading.intrinsics is not None and not beside.is_file()
    return Stored(
        np.stack(matrices),
        "w2c",
        intrinsics=None if given else _read_intrinsics(beside, len(matrices)),
        unit="normalized",
        hw=None if given else UNIT_HW,
        places=places,
    )


def write_w2c(path: Path, cameras: CameraPath) -> None:
    """Write w2c.txt (any name) and intrinsics.txt in the same folder."""
    cameras = cameras.rescaled(UNIT_HW)
    values = intrinsics_values(cameras.intrinsics, str(path)).reshape(-1, 4)
    if (values == values[0]).all():
        values = values[:1]
    rows = [" ".join(f"{x:.17g}" for x in row) for row in values.tolist()]
    poses = inverse_of_path(cameras.cam_to_world)
    write_text(path.with_name(_INTRINSICS), "\n".join(rows) + "\n")
    write_text(path, "".join(json.dumps(pose.tolist()) + "\n" for pose in poses))


def _matrix(line: str, where: str) -> np.ndarray:
    """Return one line's matrix, 4x4."""
    try:
        if len(line) > _MAX_LINE:
            raise ValueError(f"{len(line):,} characters")
        matrix = np.array(json.loads(line), dtype=np.float64)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(
            f"{where} is not a matrix: got {error}, expected one JSON list of "
            "3x4 or 4x4 numbers per line. The file may be cut off."
        ) from error
    if matrix.shape not in ((3, 4), (4, 4)):
        raise ValueError(
            f"{where} has the wrong shape: got {matrix.shape}, expected (3, 4) "
            "or (4, 4). Write one matrix per line."
        )
    return matrix if len(matrix) == 4 else np.vstack([matrix, [0, 0, 0, 1]])


def _read_intrinsics(path: Path, count: int) -> np.ndarray:
    """Read fx fy cx cy, one line or `count`, as [count, 4] or [4]."""
    rows = []
    for number, line in numbered_lines(path):
        words = line.strip("[]").replace(",", " ").split()
        if words:
            rows.append(numbers(words, f"{path}: line {number}"))
        if len(rows) > count:
            break
    if len(rows) not in (1, count) or any(len(row) != 4 for row in rows):
        raise ValueError(
            f"{path}: wrong number of values: got {[len(row) for row in rows[:5]]} per line, "
            f"expected fx fy cx cy on one line, or on {count} lines. Divide pixels by the image "
            "size."
        )
    return np.array(rows if len(rows) > 1 else rows[0])
