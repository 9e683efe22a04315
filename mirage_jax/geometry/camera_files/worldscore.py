"""``camera_data.json`` of WorldScore.

``cameras_interp`` holds a camera for each frame, ``cameras`` the keyframes: 4x4, camera to world,
axes y up and z backward. ``focal_length`` is in pixels; the benchmark's pictures are 512 x 512 with
the principal point in the middle, which is assumed here unless a size is given. ``scale`` is the
camera speed that lengths were multiplied by; positions are kept as they are and it is noted.

Read next: ``formats.py``.
"""

import json
from pathlib import Path

import numpy as np

from mirage_jax.atomic import write_text
from mirage_jax.geometry.camera_files.camera_path import CameraPath
from mirage_jax.geometry.camera_files.matrices import OPENGL_TO_OPENCV, intrinsics_values
from mirage_jax.geometry.camera_files.reading import Reading
from mirage_jax.geometry.camera_files.stored import Stored
from mirage_jax.geometry.camera_files.text_lines import check_count, json_number, read_json

_HW = (512, 512)
# Not WorldScore's own: where they stand, the size need not be assumed.
_SIZE_KEYS = ("image_height", "image_width")


def read_worldscore(path: Path, reading: Reading) -> Stored:
    """Read a camera_data.json."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not WorldScore's: got a {type(content).__name__} at the top.")
    key = "cameras_interp" if content.get("cameras_interp") else "cameras"
    cameras = content.get(key)
    if not isinstance(cameras, list) or not cameras:
        raise ValueError(
            f"{path}: no cameras: expected a list of 4x4 matrices under 'cameras_interp' or "
            "'cameras'. Check that this is a camera_data.json."
        )
    check_count(len(cameras), str(path))
    places = [f"{key}[{index}]" for index in range(len(cameras))]
    matrices = []
    for camera, place in zip(cameras, places, strict=True):
        try:
            matrices.append(np.array(camera, dtype=np.float64).reshape(4, 4))
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"{path}: {place} is not a matrix: got {str(error)[:200]}, expected 4x4 numbers. "
                "Write it again."
            ) from error
    focal = json_number(content.get("focal_length"), f"{path}: focal_length")
    hw, notes = reading.hw or _HW, []
    if all(name in content for name in _SIZE_KEYS):
        height, width = (json_number(content[name], f"{path}: {name}") for name in _SIZE_KEYS)
        hw = (max(int(height), 1), max(int(width), 1)) if max(height, width) < 1e6 else hw
    elif reading.hw is None:
        notes.append("images taken as 512 x 512, WorldScore's; --size for others")
    if key == "cameras":
        notes.append("no cameras_interp: these are keyframes")
    scale = json_number(content.get("scale", 1), f"{path}: scale")
    if scale != 1:
        notes.append(f"lengths are in units of the file's scale, {scale:g}")
    return Stored(
        np.stack(matrices),
        "c2w",
        "opengl",
        intrinsics=[focal, focal, 0.5 * hw[1], 0.5 * hw[0]],
        hw=hw,
        places=places,
        notes=tuple(notes),
    )


def write_worldscore(path: Path, cameras: CameraPath) -> None:
    """Write a camera_data.json, the first and last camera as its keyframes.

    Raises:
      ValueError: intrinsics that one focal length cannot hold.
    """
    values = intrinsics_values(cameras.intrinsics, str(path)).reshape(-1, 4)
    height, width = cameras.hw or _HW
    held = np.array([values[0, 0], values[0, 0], 0.5 * width, 0.5 * height])
    if (wrong := np.abs(values - held).max()) > 1e-6 * values[0, 0]:
        raise ValueError(
            f"{path}: WorldScore's file holds one focal length and a central principal point: got "
            f"intrinsics that differ from that by up to {wrong:.4g} pixels. Resize and crop the "
            "images, or write a trajectory.npz."
        )
    poses = (cameras.cam_to_world @ OPENGL_TO_OPENCV).tolist()
    content = {
        "focal_length": float(values[0, 0]),
        "scale": 1,
        **dict(zip(_SIZE_KEYS, (height, width), strict=True)),
        "cameras": [poses[0], poses[-1]],
        "cameras_interp": poses,
    }
    write_text(path, json.dumps(content, indent=1) + "\n")
