"""What every layout of folders is read to: a recording of pictures with cameras, one at a time.

Conventions: as in ``../clip.py``, but in the sizes and scene units of the source. Depth may have
a grid of its own, with its own intrinsics; nothing is resized here.

Read next: ``layouts/`` (who makes recordings), ``fit.py`` (to the training size).
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from mirage_jax.geometry.camera import rescale_intrinsics
from mirage_jax.geometry.camera_files import UNIT_HW, CameraPath, Reading

# A principal point nearer to the border than this share of the side belongs to another size.
_CENTRAL = 0.3
_ASPECT = 0.01


class Picture(NamedTuple):
    """One frame of a recording.

    Attributes:
        rgb: [H, W, 3] the picture.
        depth: [h, w] z-depth in scene units, 0 = unknown; None where the recording has none.
        moving: [h, w] True where something moves; None for nowhere.
        sky: [h, w] True where sky is seen; None for nowhere.
    """

    rgb: UInt8[np.ndarray, "H W 3"]
    depth: Float[np.ndarray, "h w"] | None = None
    moving: Bool[np.ndarray, "h w"] | None = None
    sky: Bool[np.ndarray, "h w"] | None = None


@dataclasses.dataclass(frozen=True)
class IngestOptions:
    """Answers to what folders leave open; None leaves the answer to the layout.

    Attributes:
        intrinsics: [3, 3] in pixels of the pictures, for layouts without them.
        depth_unit: scene units of one step of whole numbers.
        reading: answers about cameras.
    """

    intrinsics: Float[np.ndarray, "3 3"] | None = None
    depth_unit: float | None = None
    reading: Reading = Reading()


@dataclasses.dataclass(frozen=True)
class Recording:
    """Frames in order, each with a camera.

    Attributes:
        name: unique in the data set; the path below the folder that was given.
        scene: what must not be divided between training and validation.
        source: file or folder, for messages.
        cameras: [f], intrinsics in pixels of `hw`.
        hw: (height, width) of the pictures.
        picture: reads frame i, 0 <= i < f; raises ValueError or FileNotFoundError, naming the file.
        has_depth: whether pictures have depth.
        depth_intrinsics: [3, 3] in pixels of the depth, where it is not the camera of the pictures.
        caption: what the recording shows, in words.
        breaks: frames whose predecessor is missing, so that no clip may run across.
        notes: what the user should know of how it was read.
    """

    name: str
    scene: str
    source: str
    cameras: CameraPath
    hw: tuple[int, int]
    picture: Callable[[int], Picture]
    has_depth: bool
    depth_intrinsics: Float[np.ndarray, "3 3"] | None = None
    caption: str = ""
    breaks: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.cameras)


def cameras_for(
    cameras: CameraPath, hw: tuple[int, int], where: str
) -> tuple[CameraPath, tuple[str, ...]]:
    """Return cameras with intrinsics in pixels of the pictures, and notes.

    Normalised intrinsics are scaled; those of a larger or smaller copy of the pictures too.

    Raises:
        ValueError: no intrinsics, or those of pictures of another shape.
    """
    if cameras.intrinsics is None:
        raise ValueError(
            f"{where}: has no intrinsics: got camera matrices only, expected fx, fy, cx, cy. Give "
            "--intrinsics fx,fy,cx,cy in pixels of the pictures."
        )
    notes: tuple[str, ...] = ()
    if cameras.hw is None:
        _check_principal_point(cameras.intrinsics, hw, where)
        return dataclasses.replace(cameras, hw=hw), notes
    if cameras.hw != hw and cameras.hw != UNIT_HW:
        height, width = cameras.hw
        if abs(height * hw[1] - width * hw[0]) > _ASPECT * width * hw[0]:
            raise ValueError(
                f"{where}: the cameras belong to pictures of {height}x{width}, got pictures of "
                f"{hw[0]}x{hw[1]}, expected the same shape. Were they cropped or turned? Give the "
                "pictures that the cameras were made with."
            )
        notes = (f"intrinsics of {height}x{width} scaled to pictures of {hw[0]}x{hw[1]}",)
    matrices = rescale_intrinsics(cameras.intrinsics, cameras.hw, hw)
    _check_inside(matrices, hw, where)
    return dataclasses.replace(cameras, intrinsics=matrices, hw=hw), notes


def _check_inside(matrices: np.ndarray, hw: tuple[int, int], where: str) -> None:
    centers = matrices[:, [1, 0], 2]
    if ((centers < 0) | (centers > np.array(hw))).any():
        raise _wrong_center(matrices, hw, where)


def _check_principal_point(matrices: np.ndarray, hw: tuple[int, int], where: str) -> None:
    """Raise where nothing but the principal point tells the size, and it tells another one."""
    share = matrices[:, [1, 0], 2] / np.array(hw)
    if (np.abs(share - 0.5) > 0.5 - _CENTRAL).any():
        raise _wrong_center(matrices, hw, where)


def _wrong_center(matrices: np.ndarray, hw: tuple[int, int], where: str) -> ValueError:
    return ValueError(
        f"{where}: intrinsics do not fit the pictures: got a principal point at "
        f"({matrices[0, 0, 2]:.5g}, {matrices[0, 1, 2]:.5g}) in pictures {hw[1]} wide and {hw[0]} "
        "high, expected near the middle. Are the intrinsics those of another size?"
    )
