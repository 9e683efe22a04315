"""Tell z-depth from distances along rays by which of them makes surfaces flat.

On a plane the inverse of z-depth is linear in the pixel; read the other way the plane is bent by
about a percent across a quarter of the picture. Exact depth and depth of sensors tell clearly,
depth of networks often does not, and neither does a scene without planes.

Read next: ``depth.py`` (the same linearity finds edges).
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.projection import camera_rays

# Windows this large (a share of the sides) are compared, overlapping by half.
_WINDOW = 0.25
_FEWEST_PIXELS = 8
# A window counts where one reading deviates from a plane by no more than this share.
_PLANAR = 0.003
_FEWEST_WINDOWS = 4
# One reading must deviate so many times less than the other.
_CLEARLY = 3.0


class Flatness(NamedTuple):
    """Median deviation from planes under both readings, relative to the inverse depth.

    Attributes:
      kind: "z", "ray", or None where nothing can be told.
      as_z: deviation if values are z-depth; NaN where no window is planar.
      as_ray: deviation if they are distances along rays.
    """

    kind: Literal["z", "ray"] | None
    as_z: float
    as_ray: float


def flatter_reading(
    depth: Float[np.ndarray, "H W"], intrinsics: Float[np.ndarray, "3 3"]
) -> Flatness:
    """Compare both readings on all windows of a picture that are nearly planar.

    Args:
      depth: [H, W] values of either kind; 0 = unknown.
      intrinsics: in pixels of `depth`.
    """
    depth = np.asarray(depth, np.float64)
    rays = camera_rays(Camera(np.eye(4), np.asarray(intrinsics, np.float64)), depth.shape)
    length = np.linalg.norm(rays, axis=-1)
    known = np.isfinite(depth) & (depth > 0)
    inverse = np.where(known, 1.0 / np.where(known, depth, 1.0), np.nan)
    found = []
    for rows, columns in _windows(depth.shape):
        if known[rows, columns].all():
            as_z = _deviation(inverse[rows, columns])
            as_ray = _deviation((inverse * length)[rows, columns])
            if min(as_z, as_ray) <= _PLANAR:
                found.append((as_z, as_ray))
    if len(found) < _FEWEST_WINDOWS:
        return Flatness(None, np.nan, np.nan)
    as_z, as_ray = (float(value) for value in np.median(found, axis=0))
    if as_ray * _CLEARLY < as_z:
        return Flatness("ray", as_z, as_ray)
    return Flatness("z" if as_z * _CLEARLY < as_ray else None, as_z, as_ray)


def _windows(hw: tuple[int, ...]) -> list[tuple[slice, slice]]:
    """Return windows over a picture, each thinned to at most some hundred pixels."""
    places = []
    for size in hw:
        side = max(_FEWEST_PIXELS, int(size * _WINDOW))
        step = max(1, side // 16)
        places.append(
            [slice(start, start + side, step) for start in range(0, size - side + 1, side // 2)]
        )
    return [(row, column) for row in places[0] for column in places[1]]


def _deviation(values: Float[np.ndarray, "h w"]) -> float:
    """Return the root mean square distance of values from their plane, relative to their mean."""
    height, width = values.shape
    rows = np.linspace(-1, 1, height)[:, None]
    columns = np.linspace(-1, 1, width)
    mean = values.mean()
    slope_y = (values * rows).sum() / (width * (rows**2).sum())
    slope_x = (values * columns).sum() / (height * (columns**2).sum())
    rest = values - mean - slope_y * rows - slope_x * columns
    return float(np.sqrt((rest**2).mean()) / mean)
