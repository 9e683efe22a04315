"""From what a file holds, in its own convention, to ``CameraPath``: the one place that converts.

A reader only says what stands in its file (``Stored``); ``assemble`` turns directions and axes,
resolves pixels against normalised intrinsics, refuses what has two readings, and names file and
place of what is wrong.

Read next: ``formats.py``.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mirage_jax.geometry.camera import Camera, invert_rigid, validate_camera
from mirage_jax.geometry.camera_files.camera_path import UNIT_HW, CameraPath
from mirage_jax.geometry.camera_files.matrices import (
    OPENGL_TO_OPENCV,
    intrinsics_matrix,
    nearest_rotations,
    rotation_deviation,
    square_matrices,
)
from mirage_jax.geometry.camera_files.reading import Reading, refuse_two_readings
from mirage_jax.geometry.camera_files.text_lines import check_count

# Beyond this, sums of squares and inverses leave float64.
_LARGEST = 1e15
# Float32 rotations deviate by less; whatever deviates more is brought back to a rotation.
_ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True)
class Stored:
    """What a camera file holds, as it stands there.

    Attributes:
      matrices: [f, 3, 4] or [f, 4, 4].
      direction: "c2w" or "w2c"; None where the format leaves it open.
      axes: "opencv" or "opengl", of the camera.
      intrinsics: fx fy cx cy as [4] or [f, 4], matrices as [3, 3] or [f, 3, 3], or None.
      unit: "pixels" or "normalized".
      hw: (height, width), or None.
      applied: [4, 4] transform that was put on the world's side of every matrix, or None.
      times: [f] seconds.
      names: of the frames.
      places: where each frame stands in the file, for messages.
      notes: what the user should know.
    """

    matrices: Any
    direction: str | None
    axes: str = "opencv"
    intrinsics: Any = None
    unit: str = "pixels"
    hw: tuple[int, int] | None = None
    applied: np.ndarray | None = None
    times: Any = None
    names: Sequence[str] | None = None
    places: Sequence[str] | None = None
    notes: tuple[str, ...] = ()

    def place(self, index: int) -> str:
        """Return where frame `index` stands."""
        return f"frame {index}" if self.places is None else self.places[index]


def assemble(stored: Stored, path: str, reading: Reading, strict: bool = True) -> CameraPath:
    """Convert what a file holds.

    Args:
      stored: of a reader.
      path: file, for messages.
      reading: the user's answers.
      strict: refuse matrices that are not rigid; otherwise they are kept, to be reported.

    Raises:
      ValueError: numbers that are not finite, matrices that are not rigid (or, if not strict, not
        invertible), or a file with two readings.
    """
    matrices = square_matrices(stored.matrices, path)
    check_count(len(matrices), path)
    _check_finite(stored, matrices, path)
    intrinsics, hw, notes = _intrinsics(stored, len(matrices), path, reading)
    if strict:
        _check_cameras(stored, matrices, intrinsics, path)
        matrices, more = _made_orthonormal(matrices)
        notes += more
    direction = reading.matrices or stored.direction or _open_direction(matrices, path)
    if stored.direction and direction != stored.direction:
        notes += (f"read as {direction} on request; the format is {stored.direction}",)
    if direction == "w2c":
        matrices = invert_rigid(matrices) if strict else _inverse(stored, matrices, path)
    if (reading.axes or stored.axes) == "opengl":
        matrices = matrices @ OPENGL_TO_OPENCV
    if stored.applied is not None:
        matrices = np.linalg.inv(stored.applied) @ matrices
    if not np.isfinite(matrices).all():
        raise ValueError(f"{path}: matrices overflow when inverted: expected rigid transforms.")
    times = None if stored.times is None else np.asarray(stored.times, np.float64)
    if times is not None and not np.isfinite(times).all():
        raise ValueError(f"{path}: times are not finite: expected seconds. Drop these frames.")
    names = None if stored.names is None else tuple(map(str, stored.names))
    return CameraPath(matrices, intrinsics, hw, times, names, stored.notes + notes)


def _check_finite(stored: Stored, matrices: np.ndarray, path: str) -> None:
    """Raise at the first matrix with values that no camera has."""
    bad = ~(np.abs(matrices) < _LARGEST).all(axis=(1, 2))
    if bad.any():
        index = int(np.argmax(bad))
        raise ValueError(
            f"{path}: {stored.place(index)}: values that are not finite or over {_LARGEST:g}: got "
            f"{int(bad.sum())} such matrices, expected none. Drop these cameras."
        )


def _check_cameras(
    stored: Stored, matrices: np.ndarray, intrinsics: np.ndarray | None, path: str
) -> None:
    """Raise, with its place in the file, at the first camera that is none."""
    values = np.broadcast_to(np.eye(3), (len(matrices), 3, 3)) if intrinsics is None else intrinsics
    try:
        validate_camera(Camera(matrices, values), path)
    except ValueError:
        for index, (matrix, value) in enumerate(zip(matrices, values, strict=True)):
            validate_camera(Camera(matrix, value), f"{path}: {stored.place(index)}")
        raise


def _made_orthonormal(matrices: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Replace rotations that were rounded in the file by the nearest true ones."""
    deviation = rotation_deviation(matrices)
    rounded = deviation > _ROUNDING
    if not rounded.any():
        return matrices, ()
    matrices = matrices.copy()
    matrices[rounded, :3, :3] = nearest_rotations(matrices[rounded, :3, :3])
    note = (
        f"{int(rounded.sum())} rotations made orthonormal: they deviated by {deviation.max():.1e}"
    )
    return matrices, (note,)


def _inverse(stored: Stored, matrices: np.ndarray, path: str) -> np.ndarray:
    """Invert matrices that need not be rigid."""
    bad = np.abs(np.linalg.det(matrices[:, :3, :3])) < 1e-12
    bad |= np.abs(matrices[:, 3] - [0, 0, 0, 1]).max(axis=1) > 1e-3
    if bad.any():
        index = int(np.argmax(bad))
        raise ValueError(
            f"{path}: {stored.place(index)}: a world-to-camera matrix cannot be inverted: got "
            f"{matrices[index].tolist()}, expected a rotation and a translation."
        )
    return np.linalg.inv(matrices)


def _open_direction(matrices: np.ndarray, path: str) -> str:
    """Return the direction where both are the same, else refuse with what each would mean."""
    other = invert_rigid(matrices)
    size = max(np.abs(matrices[:, :3, 3]).max(), np.abs(other[:, :3, 3]).max(), 1.0)
    if np.abs(matrices - other).max() <= 1e-9 * size:
        return "c2w"
    readings = {
        word: f"the path is {_length(found):.4g} long and ends at {_position(found[-1])}"
        for word, found in (("c2w", matrices), ("w2c", other))
    }
    raise refuse_two_readings(path, "the file does not say which way its matrices go", readings)


def _length(matrices: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(matrices[:, :3, 3], axis=0), axis=-1).sum())


def _position(matrix: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in matrix[:3, 3]) + ")"


def _intrinsics(
    stored: Stored, count: int, path: str, reading: Reading
) -> tuple[np.ndarray | None, tuple[int, int] | None, tuple[str, ...]]:
    """Return intrinsics [f, 3, 3] in pixels of the size returned beside them."""
    if stored.intrinsics is None:
        if reading.intrinsics is None:
            return None, reading.hw or stored.hw, ()
        given = np.asarray(reading.intrinsics, np.float64)
        return np.tile(given, (count, 1, 1)), reading.hw or stored.hw, ("intrinsics as given",)
    values = np.asarray(stored.intrinsics)
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{path}: intrinsics do not hold numbers: got dtype {values.dtype}.")
    values = values.astype(np.float64)
    matrix = values if values.shape[-2:] == (3, 3) else None
    if matrix is None and values.shape[-1:] == (4,) and values.ndim <= 2:
        matrix = intrinsics_matrix(values)
    if matrix is None or matrix.shape not in ((3, 3), (1, 3, 3), (count, 3, 3)):
        raise ValueError(
            f"{path}: intrinsics have the wrong shape: got {values.shape}, expected [3, 3], "
            f"[{count}, 3, 3], [4] or [{count}, 4]. Give one for each camera, or one for all."
        )
    if not (np.abs(matrix) < _LARGEST).all():
        raise ValueError(f"{path}: intrinsics have values that are not finite. Check the file.")
    matrix = np.broadcast_to(matrix, (count, 3, 3)).copy()
    unit = reading.unit or _checked_unit(stored, matrix, path)
    if reading.center == "whole-pixel":
        if unit == "normalized":
            raise ValueError(f"{path}: --as whole-pixel needs intrinsics in pixels.")
        matrix[:, :2, 2] += 0.5
    hw = UNIT_HW if unit == "normalized" else (None if stored.hw == UNIT_HW else stored.hw)
    if reading.hw is None or hw == reading.hw:
        return matrix, hw, ()
    if hw is not None:
        scale = np.array([reading.hw[1] / hw[1], reading.hw[0] / hw[0], 1.0])
        matrix = matrix * scale[:, None]
    return matrix, reading.hw, ()


def _checked_unit(stored: Stored, matrix: np.ndarray, path: str) -> str:
    """Return the format's unit, or refuse where the values speak for the other one."""
    fx, fy, cx, cy = (matrix[:, i, j] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    centers, focals = np.stack([cx, cy]), np.stack([fx, fy])
    small = bool((np.abs(centers) <= 1.5).all() and (focals <= 20).all())
    large = bool((centers > 1.5).any() or (focals > 20).any())
    tiny = stored.hw is not None and min(stored.hw) <= 8
    if (stored.unit == "normalized" and not large) or (stored.unit == "pixels" and not small):
        return stored.unit
    if stored.unit == "pixels" and tiny:
        return "pixels"
    # A view is at least some degrees wide, so a principal point far outside is not normalised.
    shown = ", ".join(f"{value[0]:.5g}" for value in (fx, fy, cx, cy))
    question = (
        f"intrinsics (fx, fy, cx, cy) = ({shown}) do not look as the format has them "
        f"({stored.unit})"
    )
    raise refuse_two_readings(
        path,
        question,
        {"pixels": "give --size HEIGHTxWIDTH too if the file has none", "normalized": ""},
    )
