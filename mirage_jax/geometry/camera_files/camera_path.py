"""The one type that every camera file is read to: cameras of a path with what is known beside them.

Conventions: OpenCV cam_to_world, scene units as in the file, intrinsics in pixels of `hw` with the
centre of the top-left pixel at (0.5, 0.5); normalised intrinsics are those of a 1 x 1 image. NumPy
float64, because a file that is read and written again should not lose digits.

Read next: ``formats.py``.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from mirage_jax.geometry.camera import Camera, rescale_intrinsics

UNIT_HW = (1, 1)
# Of frames whose times are not known.
DEFAULT_FPS = 16.0


@dataclasses.dataclass(frozen=True)
class CameraPath:
    """Cameras in order.

    Attributes:
      cam_to_world: [f, 4, 4] float64, OpenCV axes.
      intrinsics: [f, 3, 3] float64 in pixels of `hw`, or None where the file has none.
      hw: (height, width) of the images; (1, 1) for normalised intrinsics; None if not known.
      times: [f] seconds, or None.
      names: file name or number of each frame, or None.
      notes: what the user should know of how the file was read.
    """

    cam_to_world: Float[np.ndarray, "f 4 4"]
    intrinsics: Float[np.ndarray, "f 3 3"] | None = None
    hw: tuple[int, int] | None = None
    times: Float[np.ndarray, " f"] | None = None
    names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.cam_to_world)

    @property
    def centers(self) -> Float[np.ndarray, "f 3"]:
        """Positions of the cameras."""
        return self.cam_to_world[:, :3, 3]

    @property
    def seconds(self) -> Float[np.ndarray, " f"]:
        """Times, or those of ``DEFAULT_FPS`` where they are not known."""
        return np.arange(len(self)) / DEFAULT_FPS if self.times is None else self.times

    def camera(self) -> Camera:
        """Return the cameras in float32, as the rest of the package takes them.

        Raises:
          ValueError: there are no intrinsics.
        """
        if self.intrinsics is None:
            raise ValueError(
                "intrinsics are missing: the file holds camera matrices only; got none, expected "
                "fx, fy, cx, cy in pixels. Give --intrinsics or --fov, or use a file that has them."
            )
        return Camera(self.cam_to_world.astype(np.float32), self.intrinsics.astype(np.float32))

    def rescaled(self, hw: tuple[int, int]) -> "CameraPath":
        """Return the path for images resized to `hw`; nothing to do without intrinsics."""
        if self.intrinsics is None or self.hw == hw:
            return dataclasses.replace(self, hw=hw)
        if self.hw is None:
            raise ValueError(
                f"cannot rescale intrinsics to {hw}: the image size they belong to is not known. "
                "Say it with --size HEIGHTxWIDTH when reading the file."
            )
        matrices = rescale_intrinsics(self.intrinsics, self.hw, hw)
        return dataclasses.replace(self, intrinsics=matrices, hw=hw)

    def taken(self, index: Any) -> "CameraPath":
        """Return the frames at `index` (a slice or an integer array)."""
        order = np.arange(len(self))[index]
        return dataclasses.replace(
            self,
            cam_to_world=self.cam_to_world[order],
            intrinsics=None if self.intrinsics is None else self.intrinsics[order],
            times=None if self.times is None else self.times[order],
            names=None if self.names is None else tuple(self.names[i] for i in order),
        )


def path_of(camera: Camera, hw: tuple[int, int] | None = None) -> CameraPath:
    """Return the path of cameras [f] that are already checked."""
    poses, intrinsics = (np.asarray(leaf, dtype=np.float64) for leaf in camera)
    return CameraPath(poses, intrinsics, hw)
