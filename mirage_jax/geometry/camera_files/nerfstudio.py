"""``transforms.json`` of nerfstudio and its relatives.

``transform_matrix`` (per frame) is camera to world with OpenGL axes (y up, z backwards). ``fl_x
fl_y cx cy w h`` stand at the top or in a frame, in pixels; ``camera_angle_x`` with ``w`` replaces
``fl_x``. ``applied_transform`` (3x4) was applied to all matrices on the world's side by the tool
that wrote the file; it is undone, so cameras come back in the world of the reconstruction. A file
without it has two readings: nothing was applied, or an old nerfstudio turned the world to z up
without a record. Frames keep the file's order.

Read next: ``formats.py``.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from mirage_jax.atomic import write_text
from mirage_jax.geometry.camera_files.camera_path import CameraPath
from mirage_jax.geometry.camera_files.matrices import (
    OPENGL_TO_OPENCV,
    intrinsics_values,
    square_matrices,
)
from mirage_jax.geometry.camera_files.reading import Reading, refuse_two_readings
from mirage_jax.geometry.camera_files.stored import Stored
from mirage_jax.geometry.camera_files.text_lines import check_count, json_number, read_json
from mirage_jax.geometry.lens import Lens

# Keys of a frame, in the order of the coefficients of a lens.
_BROWN = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
_FISHEYE = ("k1", "k2", "k3", "k4")
_MODELS = (None, "PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "SIMPLE_RADIAL", "RADIAL", "FULL_OPENCV")
# What nerfstudio did to the world before it recorded it: x and y exchanged, then z negated.
_UNRECORDED_TURN = np.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]])


def read_transforms(path: Path, reading: Reading) -> Stored:
    """Read a transforms.json.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not JSON, no frames, a key missing, several image sizes, or lens distortion
        that the caller does not take out.
    """
    content = read_json(path)
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(f, dict) for f in frames):
        raise ValueError(
            f"{path}: no frames: got {type(frames).__name__}, expected a list of objects under the "
            "key 'frames'. Check that this is a transforms.json."
        )
    check_count(len(frames), str(path))
    top = {key: value for key, value in content.items() if key != "frames"}
    places = [f"frames[{index}]" for index in range(len(frames))]
    sizes, values, matrices = set(), [], []
    for frame, place in zip(frames, places, strict=True):
        where, merged = f"{path}: {place}", {**top, **frame}
        hw = _size(merged, where, reading)
        sizes.add(hw)
        if not reading.bent and (lens := _lens(merged, where)) is not None:
            raise ValueError(
                f"{where}: the lens is distorted: got {lens.model} {lens.coefficients}, expected a "
                "pinhole camera. mirage prepare straightens pictures with their cameras, or "
                "undistort the images first (COLMAP's image_undistorter)."
            )
        values.append(_values(merged, hw, where))
        matrices.append(_matrix(frame.get("transform_matrix"), f"{where}: transform_matrix"))
    if len(sizes) > 1:
        raise ValueError(
            f"{path}: several image sizes: got {sorted(sizes)[:5]}, expected one (h, w) for all "
            "frames. Resize the images or split the file."
        )
    return Stored(
        np.stack(matrices),
        "c2w",
        "opengl",
        intrinsics=values,
        hw=sizes.pop(),
        applied=_applied(content, np.stack(matrices), reading, path),
        times=_times(frames, path),
        names=_names(frames),
        places=places,
    )


def read_lenses(path: Path) -> list[Lens | None]:
    """Return the lens of every frame of a transforms.json; None for a pinhole.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a model that is not known, or coefficients that are no numbers.
    """
    content = read_json(path)
    top = {key: value for key, value in content.items() if key != "frames"}
    return [
        _lens({**top, **frame}, f"{path}: frames[{index}]")
        for index, frame in enumerate(content["frames"])
    ]


def write_transforms(path: Path, cameras: CameraPath) -> None:
    """Write a transforms.json, intrinsics in every frame, applied_transform the identity.

    Frames without names are called ``frames/00000.png`` and so on; no picture is written.
    """
    poses = cameras.cam_to_world @ OPENGL_TO_OPENCV
    values = intrinsics_values(cameras.intrinsics, str(path)).reshape(-1, 4)
    names = cameras.names or [f"frames/{index:05d}.png" for index in range(len(cameras))]
    frames = [
        {
            "file_path": name,
            **dict(zip(("fl_x", "fl_y", "cx", "cy"), value.tolist(), strict=True)),
            "transform_matrix": pose.tolist(),
        }
        for name, pose, value in zip(names, poses, values, strict=True)
    ]
    if cameras.times is not None:
        for frame, time in zip(frames, cameras.times.tolist(), strict=True):
            frame["time"] = time
    height, width = cameras.hw or (1, 1)
    content = {
        "camera_model": "PINHOLE",
        "h": height,
        "w": width,
        "applied_transform": np.eye(4)[:3].tolist(),
        "frames": frames,
    }
    write_text(path, json.dumps(content, indent=1) + "\n")


def _size(frame: dict[str, Any], where: str, reading: Reading) -> tuple[int, int]:
    """Return (height, width) of a frame."""
    if reading.hw is not None and "h" not in frame and "w" not in frame:
        return reading.hw
    height, width = (json_number(frame.get(key), f"{where}: {key}") for key in ("h", "w"))
    if not (1 <= height <= 1e6 and 1 <= width <= 1e6):
        raise ValueError(f"{where}: h and w are not a size: got {height:g} x {width:g}.")
    return int(height), int(width)


def _lens(frame: dict[str, Any], where: str) -> Lens | None:
    """Return the lens of a frame, or None for a pinhole."""
    model = frame.get("camera_model")
    fisheye = model == "OPENCV_FISHEYE" or bool(frame.get("is_fisheye"))
    if not fisheye and model not in _MODELS:
        raise ValueError(
            f"{where}: camera_model is not known: got {str(model)[:80]!r}, expected one of "
            f"{', '.join(str(m) for m in _MODELS[1:])} or OPENCV_FISHEYE. Undistort the images "
            "first (COLMAP's image_undistorter)."
        )
    keys = _FISHEYE if fisheye else _BROWN
    found = [json_number(frame.get(key) or 0.0, f"{where}: {key}") for key in keys]
    if fisheye:
        return Lens("fisheye", tuple(found))
    if any(found[5:]) and model != "FULL_OPENCV":
        # k4 of r^8 in some programs, of the denominator in others.
        raise ValueError(
            f"{where}: k4, k5 and k6 have no certain meaning with the model {model}: got "
            f"{found[5:]}, expected camera_model FULL_OPENCV or OPENCV_FISHEYE, or zeros."
        )
    return Lens("opencv", tuple(found)) if any(found) else None


def _values(frame: dict[str, Any], hw: tuple[int, int], where: str) -> list[float]:
    """Return fx, fy, cx, cy in pixels."""

    def number(key: str) -> float:
        return json_number(frame.get(key), f"{where}: {key}")

    height, width = hw
    if "fl_x" in frame or "camera_angle_x" not in frame:
        fl_x = number("fl_x")
    elif not 0 < (angle := number("camera_angle_x")) < math.pi:
        raise ValueError(f"{where}: camera_angle_x: got {angle}, expected radians in (0, pi).")
    else:
        fl_x = 0.5 * width / math.tan(0.5 * angle)
    fl_y = number("fl_y") if "fl_y" in frame else fl_x
    cx = number("cx") if "cx" in frame else 0.5 * width
    cy = number("cy") if "cy" in frame else 0.5 * height
    return [fl_x, fl_y, cx, cy]


def _matrix(value: Any, where: str) -> np.ndarray:
    """Return a 4x4 matrix of JSON numbers."""
    try:
        return square_matrices(np.array(value, dtype=np.float64), where)[0]
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{where} is missing or not a matrix: got {str(error)[:200]}, expected 3x4 or 4x4 "
            "numbers. Write it again."
        ) from error


def _applied(
    content: dict[str, Any], matrices: np.ndarray, reading: Reading, path: Path
) -> np.ndarray:
    """Return the transform that was applied on the world's side."""
    if reading.world is not None:
        return _UNRECORDED_TURN if reading.world == "turned" else np.eye(4)
    applied = content.get("applied_transform")
    if applied is None:
        ends = {
            word: "the first camera is at "
            f"({', '.join(f'{x:.4g}' for x in (undo @ matrices[0, :, 3])[:3])})"
            for word, undo in (("original", np.eye(4)), ("turned", _UNRECORDED_TURN))
        }
        question = "the file has no applied_transform, so its world is not certain"
        raise refuse_two_readings(str(path), question, ends)
    matrix = _matrix(applied, f"{path}: applied_transform")
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-9:
        raise ValueError(
            f"{path}: applied_transform cannot be undone: got {str(applied)[:200]}, expected an "
            "invertible 3x4 or 4x4 matrix. Remove the key if it was never applied."
        )
    return matrix


def _times(frames: list[dict[str, Any]], path: Path) -> list[float] | None:
    """Return the frames' times if all have one."""
    if not all("time" in frame for frame in frames):
        return None
    return [
        json_number(frame["time"], f"{path}: frames[{index}]: time")
        for index, frame in enumerate(frames)
    ]


def _names(frames: list[dict[str, Any]]) -> list[str] | None:
    """Return the frames' file paths if all have one."""
    names = [frame.get("file_path") for frame in frames]
    return names if all(isinstance(name, str) for name in names) else None  # type: ignore[return-value]
