"""Lenses that bend straight lines, and pictures without that: the models of OpenCV.

A point at (x, y, z) in front of the camera lies at (x/z, y/z) before the lens and elsewhere behind
it; intrinsics then take it to pixels. ``opencv`` is Brown's model (k1 k2 p1 p2, then k3, then the
denominator k4 k5 k6), ``fisheye`` that of Kannala and Brandt (k1 k2 k3 k4 on the angle). A
straightened picture keeps centre, size and z-depth; focal lengths change by one factor, the
smallest for which no pixel of it looks past the border of the bent picture.

Conventions: pixels with the centre of the top-left one at (0.5, 0.5).
Read next: ``camera.py``.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

_LENGTHS = {"opencv": (4, 5, 8), "fisheye": (4,)}
# Focal lengths may become so many times shorter or longer.
_SHORTEST, _LONGEST = 0.25, 4.0
_STEPS, _GRID = 40, 65


@dataclasses.dataclass(frozen=True)
class Lens:
    """A model and its coefficients, in OpenCV's order; same fields, same lens.

    Attributes:
        model: "opencv" or "fisheye".
        coefficients: 4, 5 or 8 of "opencv": k1 k2 p1 p2 [k3 [k4 k5 k6]]; 4 of "fisheye".
    """

    model: str
    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        lengths = _LENGTHS.get(self.model, ())
        if len(self.coefficients) not in lengths or not np.isfinite(self.coefficients).all():
            raise ValueError(
                f"lens: got {self.model!r} with {self.coefficients}, expected opencv with 4, 5 or "
                "8 finite coefficients, or fisheye with 4"
            )

    def pixels(
        self, points: Float[np.ndarray, "n 3"], intrinsics: Float[np.ndarray, "3 3"]
    ) -> Float[np.ndarray, "n 2"]:
        """Return where points in front of the camera are seen, as (column, row)."""
        import cv2

        given = np.ascontiguousarray(points, np.float64)[:, None]
        still, values = np.zeros(3), np.array(self.coefficients)
        if self.model == "fisheye":
            found, _ = cv2.fisheye.projectPoints(given, still, still, intrinsics, values)
        else:
            found, _ = cv2.projectPoints(given, still, still, intrinsics, values)
        return found[:, 0]


class Straightened(NamedTuple):
    """How a bent picture becomes one of a pinhole camera of the same size.

    Attributes:
        columns, rows: [H, W] where each new pixel lies in the bent picture.
    """

    columns: Float[np.ndarray, "H W"]
    rows: Float[np.ndarray, "H W"]

    def colors(self, picture: Shaped[np.ndarray, "H W c"]) -> Shaped[np.ndarray, "H W c"]:
        """Resample a picture, bilinear."""
        import cv2

        return self._taken(picture, cv2.INTER_LINEAR)

    def nearest(self, values: Shaped[np.ndarray, "H W"]) -> Shaped[np.ndarray, "H W"]:
        """Take the nearest value: of z-depth, or of a mask."""
        import cv2

        plain = values.astype(np.uint8) if values.dtype == bool else values
        return self._taken(plain, cv2.INTER_NEAREST).astype(values.dtype)

    def _taken(self, values: np.ndarray, how: int) -> np.ndarray:
        import cv2

        # OpenCV counts from the centre of the first pixel.
        at = self.columns - np.float32(0.5), self.rows - np.float32(0.5)
        return cv2.remap(values, *at, how, borderMode=cv2.BORDER_REPLICATE)


def straight_intrinsics(
    lens: Lens, intrinsics: Float[np.ndarray, "3 3"], hw: tuple[int, int]
) -> Float[np.ndarray, "3 3"]:
    """Return the intrinsics of the largest straight view that the bent picture fills.

    Raises:
        ValueError: none with a focal length between a quarter and four times the given one.
    """
    low, high = _SHORTEST, _LONGEST
    if not _inside(lens, intrinsics, high, hw):
        raise _impossible(lens, "no straight view lies within the picture")
    for _ in range(_STEPS):
        middle = (low * high) ** 0.5
        if _inside(lens, intrinsics, middle, hw):
            high = middle
        else:
            low = middle
    return _zoomed(intrinsics, high)


def straighten(
    lens: Lens,
    intrinsics: Float[np.ndarray, "3 3"],
    straight: Float[np.ndarray, "3 3"],
    hw: tuple[int, int],
) -> Straightened:
    """Return what resamples pictures of one size.

    Args:
        lens: of the bent picture.
        intrinsics: of the bent picture, in pixels of `hw`.
        straight: of the new picture, see `straight_intrinsics`.
        hw: (height, width) of both.

    Raises:
        ValueError: the coefficients fold the picture over itself.
    """
    height, width = hw
    column, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    at = lens.pixels(_rays(np.stack([column, row], -1).reshape(-1, 2), straight), intrinsics)
    grid = at.reshape(height, width, 2)
    if not _unfolded(grid):
        raise _impossible(lens, "the coefficients fold the picture over itself")
    return Straightened(grid[..., 0].astype(np.float32), grid[..., 1].astype(np.float32))


def _inside(lens: Lens, intrinsics: np.ndarray, zoom: float, hw: tuple[int, int]) -> bool:
    """Whether a view is seen, unfolded, within the bent picture; on a grid with its border."""
    size = np.array([hw[1], hw[0]])
    column, row = np.meshgrid(*(np.linspace(0, n, _GRID) for n in size))
    corners = np.stack([column, row], -1).reshape(-1, 2)
    at = lens.pixels(_rays(corners, _zoomed(intrinsics, zoom)), intrinsics)
    grid = at.reshape(_GRID, _GRID, 2)
    return bool(_unfolded(grid) and (at >= 0).all() and (at <= size).all())


def _unfolded(grid: np.ndarray) -> bool:
    """Whether columns of [n, m, 2] grow from left to right, and rows downwards."""
    right, down = np.diff(grid[..., 0], axis=1), np.diff(grid[..., 1], axis=0)
    return bool((right > 0).all() and (down > 0).all())


def _zoomed(intrinsics: np.ndarray, zoom: float) -> np.ndarray:
    return intrinsics * np.array([[zoom, zoom, 1.0], [zoom, zoom, 1.0], [1.0, 1.0, 1.0]])


def _rays(at: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    return np.concatenate([at, np.ones((len(at), 1))], axis=1) @ np.linalg.inv(intrinsics).T


def _impossible(lens: Lens, why: str) -> ValueError:
    shown = ", ".join(f"{value:g}" for value in lens.coefficients)
    return ValueError(
        f"lens {lens.model} ({shown}): {why}, expected coefficients that were fitted to pictures "
        "of this camera. Check them, or undistort the pictures yourself."
    )
