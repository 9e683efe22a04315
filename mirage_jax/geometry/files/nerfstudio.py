"""``transforms.json`` of nerfstudio and its relatives.

``transform_matrix`` (per frame) is camera to world with OpenGL axes (y up, z backwards); it is
right-multiplied by diag(1, -1, -1, 1) to reach OpenCV. ``fl_x fl_y cx cy w h`` stand at the top or
in a frame, in pixels; ``camera_angle_x`` with ``w`` replaces ``fl_x``. ``applied_transform`` (3x4)
was applied to all matrices on the world's side by the tool that wrote the file; it is undone here,
so cameras come back in the world of the original reconstruction. Frames keep the file's order.

Read next: ``../camera_files.py``.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from mirage_jax.atomic import write_text
from mirage_jax.geometry.camera import Camera, validate_camera
from mirage_jax.geometry.files.matrices import (
    intrinsics_matrix,
    intrinsics_values,
    square_matrices,
)

OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")


def read_transforms(path: str | os.PathLike[str]) -> tuple[Camera, tuple[int, int]]:
    """Read a transforms.json: cameras [f] and the image size (height, width).

    Raises:
      FileNotFoundError: no such file.
      ValueError: not JSON, no frames, a key missing, several image sizes, lens distortion, or
        matrices that are not rigid.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such file. Check the path.")
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path}: not JSON: got {error}, expected a nerfstudio transforms file. It may be cut "
            "off."
        ) from error
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames:
        raise ValueError(
            f"{path}: no frames: got {type(frames).__name__}, expected a list under the key "
            "'frames'. Check that this is a transforms.json."
        )
    merged = [{**content, **frame} for frame in frames]
    names = [f"{path}: frames[{index}]" for index in range(len(merged))]
    sizes = [_size(frame, name) for frame, name in zip(merged, names, strict=True)]
    if len(set(sizes)) > 1:
        raise ValueError(
            f"{path}: several image sizes: got {sorted(set(sizes))}, expected one (h, w) for all "
            "frames. Resize the images or split the file."
        )
    poses = np.stack([_matrix(frame, name) for frame, name in zip(merged, names, strict=True)])
    values = [_values(frame, name) for frame, name in zip(merged, names, strict=True)]
    poses = _undo_applied(content, str(path)) @ poses @ OPENGL_TO_OPENCV
    camera = validate_camera(Camera(poses, intrinsics_matrix(values)), str(path))
    camera = Camera(camera.cam_to_world.astype(np.float32), camera.intrinsics.astype(np.float32))
    return camera, sizes[0]


def write_transforms(path: str | os.PathLike[str], camera: Camera, hw: tuple[int, int]) -> None:
    """Write cameras [f] as transforms.json, intrinsics in every frame, without applied_transform.

    Frames are named ``frames/00000.png`` and so on; no picture is written.
    """
    camera = validate_camera(camera, "camera")
    poses = camera.cam_to_world.astype(np.float64).reshape(-1, 4, 4) @ OPENGL_TO_OPENCV
    values = intrinsics_values(camera.intrinsics).reshape(-1, 4)
    frames = [
        {
            "file_path": f"frames/{index:05d}.png",
            **dict(zip(("fl_x", "fl_y", "cx", "cy"), value.tolist(), strict=True)),
            "transform_matrix": pose.tolist(),
        }
        for index, (pose, value) in enumerate(zip(poses, values, strict=True))
    ]
    content = {"camera_model": "PINHOLE", "h": hw[0], "w": hw[1], "frames": frames}
    write_text(path, json.dumps(content, indent=1) + "\n")


def _number(frame: dict[str, Any], key: str, name: str) -> float:
    """Return a finite number of a frame (or of the file's top), or raise naming the key."""
    value = frame.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(
            f"{name}: {key} is missing or not a number: got {value!r}, expected a number there or "
            "at the top of the file. Add it, in pixels."
        )
    return float(value)


def _size(frame: dict[str, Any], name: str) -> tuple[int, int]:
    """Return (height, width) of a frame."""
    return int(_number(frame, "h", name)), int(_number(frame, "w", name))


def _values(frame: dict[str, Any], name: str) -> list[float]:
    """Return fx, fy, cx, cy in pixels; refuse distortion."""
    bent = {key: frame[key] for key in _DISTORTION if frame.get(key)}
    if bent:
        raise ValueError(
            f"{name}: the lens is distorted: got {bent}, expected a pinhole camera. Undistort the "
            "images first (for example with COLMAP's image_undistorter)."
        )
    height, width = _size(frame, name)
    if "fl_x" not in frame and "camera_angle_x" in frame:
        fl_x = 0.5 * width / math.tan(0.5 * _number(frame, "camera_angle_x", name))
    else:
        fl_x = _number(frame, "fl_x", name)
    fl_y = _number(frame, "fl_y", name) if "fl_y" in frame else fl_x
    cx = _number(frame, "cx", name) if "cx" in frame else 0.5 * width
    cy = _number(frame, "cy", name) if "cy" in frame else 0.5 * height
    return [fl_x, fl_y, cx, cy]


def _matrix(frame: dict[str, Any], name: str) -> np.ndarray:
    """Return the frame's 4x4 matrix."""
    try:
        return square_matrices(np.array(frame["transform_matrix"], dtype=np.float64), name)[0]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{name}: transform_matrix is missing or not a matrix: got {error}, expected 4x4 "
            "numbers. Write it again."
        ) from error


def _undo_applied(content: dict[str, Any], name: str) -> np.ndarray:
    """Return the inverse of applied_transform, the identity where there is none."""
    applied = content.get("applied_transform")
    if applied is None:
        return np.eye(4)
    matrix = square_matrices(np.array(applied, dtype=np.float64), f"{name}: applied_transform")[0]
    if matrix.shape != (4, 4) or abs(np.linalg.det(matrix)) < 1e-9:
        raise ValueError(
            f"{name}: applied_transform cannot be undone: got {applied}, expected an invertible "
            "3x4 or 4x4 matrix. Remove the key if it was never applied."
        )
    return np.linalg.inv(matrix)
