"""What COLMAP's text and binary models share: lenses, images, and their order.

World to camera, OpenCV axes, quaternions w x y z, pixel centres at (i + 0.5): as here. A model
keeps no order but that of the images' names, numbers in them counted as numbers; cameras come back
in that order.

Read next: ``colmap_text.py``, ``colmap_binary.py``.
"""

import re
from typing import NamedTuple

import numpy as np

from mirage_jax.geometry.camera_files.camera_path import CameraPath
from mirage_jax.geometry.camera_files.matrices import (
    from_quaternions,
    intrinsics_values,
    inverse_of_path,
    quaternions,
)
from mirage_jax.geometry.camera_files.stored import Stored

# name, number of parameters, number of focal lengths; the place in the list is COLMAP's number.
MODELS = (
    ("SIMPLE_PINHOLE", 3, 1),
    ("PINHOLE", 4, 2),
    ("SIMPLE_RADIAL", 4, 1),
    ("RADIAL", 5, 1),
    ("OPENCV", 8, 2),
    ("OPENCV_FISHEYE", 8, 2),
    ("FULL_OPENCV", 12, 2),
    ("FOV", 5, 2),
    ("SIMPLE_RADIAL_FISHEYE", 4, 1),
    ("RADIAL_FISHEYE", 5, 1),
    ("THIN_PRISM_FISHEYE", 12, 2),
)
_PINHOLE_WITHOUT_DISTORTION = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")
PINHOLE = 1


class Lens(NamedTuple):
    """A row of cameras.txt: pixels of `hw`."""

    hw: tuple[int, int]
    values: tuple[float, ...]


class Image(NamedTuple):
    """A row of images.txt: quaternion w x y z and translation from world to camera."""

    rotation: tuple[float, ...]
    translation: tuple[float, ...]
    lens: int
    name: str
    place: str


def lens_of(model: str, hw: tuple[int, int], parameters: list[float], where: str) -> Lens:
    """Return fx fy cx cy of a lens; refuse one that bends straight lines.

    Raises:
      ValueError: unknown model, another number of parameters, a size of nothing, or distortion.
    """
    known = {name: (count, focals) for name, count, focals in MODELS}
    if model not in known or len(parameters) != known[model][0]:
        raise ValueError(
            f"{where}: not a camera: got model {model[:40]!r} with {len(parameters)} parameters, "
            "expected one of COLMAP's with its number of them. The file may be cut off."
        )
    focals = known[model][1]
    bent = any(parameters[focals + 2 :])
    if model not in (*_PINHOLE_WITHOUT_DISTORTION, "FULL_OPENCV") or bent:
        raise ValueError(
            f"{where}: the lens is distorted: got {model} {parameters[focals + 2 :]}, expected a "
            "pinhole camera. Undistort the model first: colmap image_undistorter."
        )
    if min(hw) < 1 or max(hw) > 1_000_000:
        raise ValueError(f"{where}: not an image size: got {hw[1]} x {hw[0]}.")
    center = tuple(parameters[focals : focals + 2])
    return Lens(hw, (parameters[0], parameters[focals - 1], *center))


def stored_model(lenses: dict[int, Lens] | None, images: list[Image], path: str) -> Stored:
    """Return the cameras of a model, in the order of their names."""
    if not images:
        raise ValueError(f"{path}: no images: expected at least one. Is the model empty?")
    images = sorted(images, key=lambda image: natural_key(image.name))
    places = [f"{image.place} ({image.name})" for image in images]
    turns = np.array([image.rotation for image in images])[:, [1, 2, 3, 0]]
    moves = np.array([image.translation for image in images])
    matrices = from_quaternions(turns, moves, path, places)
    names = [image.name for image in images]
    if lenses is None:
        return Stored(matrices, "w2c", names=names, places=places)
    missing = [image for image in images if image.lens not in lenses]
    if missing:
        raise ValueError(
            f"{path}: {missing[0].place}: camera {missing[0].lens} is not among the cameras; got "
            f"{sorted(lenses)[:10]}. The two files belong to different models."
        )
    used = [lenses[image.lens] for image in images]
    sizes = {lens.hw for lens in used}
    if len(sizes) > 1:
        raise ValueError(
            f"{path}: several image sizes: got {sorted(sizes)[:5]} (height, width), expected one. "
            "Undistort to one size, or split the model."
        )
    values = np.array([lens.values for lens in used])
    return Stored(matrices, "w2c", intrinsics=values, hw=sizes.pop(), names=names, places=places)


def model_of(cameras: CameraPath, path: str) -> tuple[list[Lens], list[Image]]:
    """Return what a model of the cameras holds; equal intrinsics share one camera, from 1."""
    values = intrinsics_values(cameras.intrinsics, path).tolist()
    lenses: dict[tuple[float, ...], int] = {}
    poses = inverse_of_path(cameras.cam_to_world)
    turns = quaternions(poses[:, :3, :3])[:, [3, 0, 1, 2]].tolist()
    names = cameras.names or tuple(f"{index:05d}.png" for index in range(len(cameras)))
    images = [
        Image(
            tuple(turns[index]),
            tuple(poses[index, :3, 3].tolist()),
            lenses.setdefault(tuple(values[index]), len(lenses) + 1),
            # Names end at a blank line or a zero byte.
            "_".join(names[index].split()) or f"{index:05d}.png",
            f"image {index + 1}",
        )
        for index in range(len(cameras))
    ]
    height, width = cameras.hw or (1, 1)
    return [Lens((height, width), lens) for lens in lenses], images


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts img2 before img10."""
    parts = re.split(r"(\d{1,15})", name)
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]
