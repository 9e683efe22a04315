"""Scenes with geometry: ``geometry.npz``, the released system's own file.

Arrays: ``depths`` [f, H, W], ``intrinsics`` [f, 3, 3] in pixels of the frames, ``poses_c2w``
[f, 4, 4] (OpenCV); optional ``frames`` [1 or f, H, W, 3] uint8, ``masks`` [f, H, W] (True = keep),
``frame_indices`` [f], ``original_size`` and ``processed_size`` (height, width). Where ``frames`` is
absent, the pictures are in ``clip.mp4`` or ``first_frame.png`` beside the file: their path is
returned, and decoding them is left to the caller. The prompt is in ``clip.txt`` beside the file.

Read next: ``formats.py``.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8

from mirage_jax.geometry.camera import Camera, validate_camera
from mirage_jax.geometry.camera_files.npz import (
    MAX_CAMERA_BYTES,
    array_shape,
    read_npz,
    write_npz,
)
from mirage_jax.geometry.camera_files.reading import Reading
from mirage_jax.geometry.camera_files.stored import Stored
from mirage_jax.geometry.depth import validate_depth

_REQUIRED = ("depths", "intrinsics", "poses_c2w")
_OPTIONAL = ("frames", "masks", "frame_indices", "original_size", "processed_size")


class Geometry(NamedTuple):
    """A clip with geometry; every array is NumPy.

    Attributes:
      depths: [f, H, W] float32 z-depth in scene units, 0 = unknown.
      camera: cameras [f], intrinsics in pixels of H x W.
      frames: [1 or f, H, W, 3] uint8, or None if they are not in the file.
      masks: [f, H, W] True where content is kept, or None for everywhere.
      frame_indices: [f] places in the original clip, or None.
      original_size: (height, width) of the original clip, or None.
      media: path of the pictures beside the file when `frames` is None, if there is one.
      prompt: text beside the file, if there is one.
    """

    depths: Float[Any, "f H W"]
    camera: Camera
    frames: UInt8[Any, "_ H W 3"] | None = None
    masks: Bool[Any, "f H W"] | None = None
    frame_indices: Integer[Any, "f"] | None = None
    original_size: tuple[int, int] | None = None
    media: Path | None = None
    prompt: str | None = None

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width shared by depths, masks, frames and intrinsics."""
        return self.depths.shape[-2], self.depths.shape[-1]


def load_geometry(path: str | os.PathLike[str]) -> Geometry:
    """Read a geometry.npz and check it; pictures beside it are found but not decoded.

    Raises:
      FileNotFoundError: no such file.
      ValueError: an array is missing, of another size than the rest, or holds impossible values.
    """
    path = Path(path)
    arrays = read_npz(path, _REQUIRED, _OPTIONAL)
    geometry = Geometry(
        depths=arrays["depths"],
        camera=Camera(arrays["poses_c2w"], arrays["intrinsics"]),
        frames=arrays.get("frames"),
        masks=arrays.get("masks"),
        frame_indices=arrays.get("frame_indices"),
        original_size=_size(arrays.get("original_size"), f"{path}: original_size"),
        media=None if "frames" in arrays else _media_beside(path),
        prompt=_prompt_beside(path),
    )
    geometry = validate_geometry(geometry, str(path))
    processed = _size(arrays.get("processed_size"), f"{path}: processed_size")
    if processed is not None and processed != geometry.hw:
        raise ValueError(
            f"{path}: processed_size disagrees with the depths: got {processed} against "
            f"{geometry.hw}, expected one resolution for frames, depths and intrinsics. Resize "
            "the depths, rescale the intrinsics, and write the file again."
        )
    return geometry


def read_geometry_cameras(path: Path, reading: Reading) -> Stored:
    """Read the cameras of a geometry.npz; depths and frames are not touched."""
    arrays = read_npz(path, _REQUIRED[1:], (), MAX_CAMERA_BYTES)
    shape = array_shape(path, "depths")
    if len(shape) != 3 or shape[:1] != arrays["poses_c2w"].shape[:1] or not all(shape):
        raise ValueError(
            f"{path}: depths do not go with the cameras: got {shape} against poses_c2w "
            f"{arrays['poses_c2w'].shape}, expected [f, H, W] and [f, 4, 4]. Write the file again."
        )
    return Stored(
        arrays["poses_c2w"], "c2w", intrinsics=arrays["intrinsics"], hw=(shape[1], shape[2])
    )


def save_geometry(path: str | os.PathLike[str], geometry: Geometry) -> None:
    """Check a clip with geometry and write it as geometry.npz in one step.

    ``media`` is a path, not content, and is not written; neither is the prompt.
    """
    geometry = validate_geometry(geometry, "geometry")
    write_npz(
        path,
        {
            "depths": geometry.depths,
            "intrinsics": geometry.camera.intrinsics,
            "poses_c2w": geometry.camera.cam_to_world,
            "frames": geometry.frames,
            "masks": geometry.masks,
            "frame_indices": geometry.frame_indices,
            "original_size": geometry.original_size,
            "processed_size": geometry.hw,
        },
    )


def validate_geometry(geometry: Geometry, name: str) -> Geometry:
    """Check that all parts of a clip agree; return it with float32 arrays.

    Args:
      geometry: the clip; masks may be any integer or boolean type.
      name: file or argument that messages start with.

    Raises:
      TypeError, ValueError: as for ``validate_camera`` and ``validate_depth``, and where sizes or
        numbers of frames disagree.
    """
    depths = np.asarray(geometry.depths)
    if depths.ndim != 3:
        raise ValueError(
            f"{name}: depths has the wrong shape: got {depths.shape}, expected [f, H, W]. Add the "
            "frame axis, or drop a trailing channel axis."
        )
    depths = validate_depth(depths, f"{name}: depths").astype(np.float32)
    camera = validate_camera(geometry.camera, f"{name}: camera")
    _require_shape(f"{name}: poses_c2w", camera.cam_to_world, (len(depths), 4, 4))
    masks, frames = geometry.masks, geometry.frames
    if masks is not None:
        masks = np.asarray(masks)
        _require_shape(f"{name}: masks", masks, depths.shape)
        if masks.dtype.kind not in "biu":
            raise TypeError(
                f"{name}: masks is not boolean: got dtype {masks.dtype}, expected bool with True "
                "where content is kept. Threshold it first."
            )
        masks = masks.astype(bool)
    if frames is not None:
        frames = np.asarray(frames)
        count = 1 if len(frames) == 1 else len(depths)
        _require_shape(f"{name}: frames", frames, (count, *depths.shape[1:], 3))
        if frames.dtype != np.uint8:
            raise TypeError(
                f"{name}: frames has the wrong type: got {frames.dtype}, expected uint8 RGB in "
                "0..255. Scale and round the values first."
            )
    if geometry.frame_indices is not None:
        _require_shape(f"{name}: frame_indices", np.asarray(geometry.frame_indices), (len(depths),))
    poses, intrinsics = (array.astype(np.float32) for array in camera)
    return geometry._replace(
        depths=depths, camera=Camera(poses, intrinsics), masks=masks, frames=frames
    )


def _require_shape(what: str, array: np.ndarray, expected: tuple[int, ...]) -> None:
    """Raise unless `array` has the expected shape."""
    if array.shape != expected:
        raise ValueError(
            f"{what} has the wrong shape: got {array.shape}, expected {expected} to go with the "
            "depths. All parts of a clip share one resolution and one number of frames; resize "
            "or cut them to match."
        )


def _size(value: np.ndarray | None, what: str) -> tuple[int, int] | None:
    """Return (height, width) from an array of two integers."""
    if value is None:
        return None
    if value.size != 2 or value.dtype.kind not in "fiu" or not ((value > 0) & (value < 1e9)).all():
        raise ValueError(
            f"{what} is not a size: got {value.tolist()}, expected [height, width]. Leave the "
            "array out if the size is unknown."
        )
    height, width = value.reshape(-1).tolist()
    return int(height), int(width)


def _media_beside(path: Path) -> Path | None:
    """Return the video or picture that belongs to a file without frames."""
    candidates = (path.with_name("clip.mp4"), path.with_name("first_frame.png"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _prompt_beside(path: Path) -> str | None:
    """Return the text of clip.txt beside the file."""
    text = path.with_name("clip.txt")
    return text.read_text(encoding="utf-8").strip() if text.is_file() else None
