"""Bring depth and masks to the latent grid, and tell trustworthy depth from edges.

Conventions: depth is z-depth in scene units, 0 = unknown. Masks are True where content is kept.
Resampling follows the release: bilinear with half-pixel corners and no antialiasing for depth,
nearest (index rounded down) for masks.

Read next: ``projection.py`` (what the resampled depth is for).
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from mirage_jax.geometry.namespace import array_namespace, as_float


def _linear_taps(size: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each output index its two source indices and the weight of the second."""
    position = (np.arange(target, dtype=np.float64) + 0.5) * (size / target) - 0.5
    position = np.clip(position, 0.0, size - 1)
    low = np.floor(position).astype(np.int32)
    high = np.minimum(low + 1, size - 1)
    return low, high, (position - low).astype(np.float32)


def resize_depth(depth: Float[Any, "*batch H W"], hw: tuple[int, int]) -> Float[Any, "*batch h w"]:
    """Resize depth bilinearly, half-pixel corners, without antialiasing.

    Unknown depth is not treated specially: a cell between a known and an unknown pixel gets a
    blend that lies on no surface. Mask such cells with ``resize_validity``.

    Args:
      depth: [..., H, W] z-depth in scene units.
      hw: target size (height, width).

    Returns:
      [..., h, w], float32 or wider.
    """
    xp = array_namespace(depth)
    depth = as_float(depth, xp)
    low, high, weight = _linear_taps(depth.shape[-2], hw[0])
    weight = weight[:, None]
    depth = depth[..., low, :] * (1 - weight) + depth[..., high, :] * weight
    low, high, weight = _linear_taps(depth.shape[-1], hw[1])
    return depth[..., low] * (1 - weight) + depth[..., high] * weight


def resize_mask(mask: Shaped[Any, "*batch H W"], hw: tuple[int, int]) -> Shaped[Any, "*batch h w"]:
    """Resize a mask by nearest neighbour: cell i takes pixel floor(i * H / h).

    The rule (and its float32 product) is the release's; note that it picks the top-left pixel of a
    cell, not the middle one.
    """
    rows, columns = (
        np.minimum(
            np.floor(np.arange(target, dtype=np.float32) * np.float32(size / target)), size - 1
        ).astype(np.int32)
        for size, target in zip(mask.shape[-2:], hw, strict=True)
    )
    return mask[..., rows, :][..., columns]


def resize_surface(
    depth: Float[Any, "*batch H W"], hw: tuple[int, int], relative_range: float = 0.1
) -> Float[Any, "*batch h w"]:
    """Resize depth so that every value lies on a surface: bilinear inside, nearest at edges.

    Args:
      depth: [..., H, W] z-depth in scene units, 0 = unknown; at least 3 x 3.
      hw: target size (height, width).
      relative_range: as in ``edge_validity``.

    Returns:
      [..., h, w]; where a bilinear sample would touch an edge or unknown depth, the pixel whose
      centre is nearest.
    """
    xp = array_namespace(depth)
    depth = as_float(depth, xp)
    smooth = resize_validity(edge_validity(depth, 5, relative_range), hw)
    rows, columns = (
        np.minimum(((np.arange(target) + 0.5) * (size / target)).astype(np.int32), size - 1)
        for size, target in zip(depth.shape[-2:], hw, strict=True)
    )
    return xp.where(smooth, resize_depth(depth, hw), depth[..., rows, :][..., columns])


def resize_validity(valid: Bool[Any, "*batch H W"], hw: tuple[int, int]) -> Bool[Any, "*batch h w"]:
    """Tell which cells of ``resize_depth`` are made of valid pixels only.

    Args:
      valid: [..., H, W] True where the depth of a pixel may be used.
      hw: target size (height, width).

    Returns:
      [..., h, w] True where every pixel with weight in the cell's bilinear sample is valid.
    """
    low, high, weight = _linear_taps(valid.shape[-2], hw[0])
    high = np.where(weight > 0, high, low)
    valid = valid[..., low, :] & valid[..., high, :]
    low, high, weight = _linear_taps(valid.shape[-1], hw[1])
    high = np.where(weight > 0, high, low)
    return valid[..., low] & valid[..., high]


def edge_validity(
    depth: Float[Any, "*batch H W"], window: int = 5, relative_range: float = 0.1
) -> Bool[Any, "*batch H W"]:
    """Tell where depth is continuous, so that interpolating it makes no point on no surface.

    A plain range test of depth would reject every floor seen at a slant. On a plane *inverse* depth
    is linear in the pixel, so the range is measured on what is left of inverse depth after the
    window's least-squares plane is taken out: planes of any slant pass, steps do not.

    Args:
      depth: [..., H, W] z-depth in scene units; 0, negative, NaN and infinite are unknown.
      window: odd side of the square window, in pixels; at most 2 * min(H, W) - 1.
      relative_range: largest accepted (max - min) of the residual, relative to the pixel's inverse
        depth. Beside a depth step by a factor 1 + s it is about 0.7 s (0.7 s / (1 + s) in front).

    Returns:
      [..., H, W] True where every pixel of the window is known and the residual range is small.

    Raises:
      ValueError: `window` is even, not positive, or larger than the image allows.
    """
    height, width = depth.shape[-2:]
    if window < 1 or window % 2 == 0 or window > 2 * min(height, width) - 1:
        raise ValueError(
            f"edge_validity: window must be odd and between 1 and {2 * min(height, width) - 1} "
            f"for depth of {height}x{width}; got {window}. Pass an odd number such as 3 or 5."
        )
    xp = array_namespace(depth)
    depth = as_float(depth, xp)
    known = xp.isfinite(depth) & (depth > 0)
    inverse = xp.where(known, 1.0 / xp.where(known, depth, 1.0), 0.0)
    if window == 1:
        return known
    taps, tap_known = _windows(xp, inverse, known, window)
    highest, lowest = _residual_extremes(xp, taps, window)
    return tap_known & (highest - lowest <= relative_range * inverse)


def _windows(xp: Any, inverse: Any, known: Any, window: int) -> tuple[list[Any], Any]:
    """Return the window's pixels as shifted images (row by row), and where all are known."""
    half = window // 2
    batch = [(0, 0)] * (inverse.ndim - 2)
    # Odd reflection continues a plane beyond the border as the same plane.
    padded = xp.pad(inverse, [*batch, (half, half), (half, half)], "reflect", reflect_type="odd")
    marked = xp.pad(known, [*batch, (half, half), (half, half)], "reflect")
    height, width = inverse.shape[-2:]
    taps, all_known = [], known
    for row in range(window):
        for column in range(window):
            place = (..., slice(row, row + height), slice(column, column + width))
            taps.append(padded[place])
            all_known = all_known & marked[place]
    return taps, all_known


def _residual_extremes(xp: Any, taps: list[Any], window: int) -> tuple[Any, Any]:
    """Return the largest and smallest residual of the window to its least-squares plane."""
    offsets = np.arange(window) - window // 2
    norm = float(window * np.sum(offsets**2))
    rows, columns = np.repeat(offsets, window).tolist(), np.tile(offsets, window).tolist()
    slope_y = sum(r * tap for r, tap in zip(rows, taps, strict=True)) / norm
    slope_x = sum(c * tap for c, tap in zip(columns, taps, strict=True)) / norm
    highest = lowest = None
    for r, c, tap in zip(rows, columns, taps, strict=True):
        residual = tap - r * slope_y - c * slope_x
        highest = residual if highest is None else xp.maximum(highest, residual)
        lowest = residual if lowest is None else xp.minimum(lowest, residual)
    return highest, lowest


def validate_depth(
    depth: Any, name: str = "depth", hw: tuple[int, int] | None = None
) -> Float[Any, "*batch H W"]:
    """Check depth that comes from outside (NumPy only; not for use under ``jit``).

    Args:
      depth: [..., H, W] z-depth in scene units, 0 = unknown.
      name: how the user knows this argument; every message starts with it.
      hw: (height, width) that the depth must have, or None for any.

    Returns:
      The depth as a NumPy array, float32 or wider.

    Raises:
      TypeError: not numbers.
      ValueError: wrong shape, NaN or infinite values, negative values, or a frame without any
        known depth.
    """
    array = np.asarray(depth)
    if array.dtype.kind not in "fiu":
        raise TypeError(
            f"{name} does not hold numbers: got dtype {array.dtype}, expected floating point. "
            "Convert it to a float32 array of z-depth."
        )
    expected = "[..., H, W]" if hw is None else f"[..., {hw[0]}, {hw[1]}]"
    if array.ndim < 2 or 0 in array.shape or (hw is not None and array.shape[-2:] != tuple(hw)):
        raise ValueError(
            f"{name} has the wrong shape: got {array.shape}, expected {expected}. Drop a trailing "
            "channel axis, and resize depth to the size of the frames."
        )
    array = as_float(array, np)
    bad = ~np.isfinite(array)
    if bad.any():
        raise ValueError(
            f"{name} has values that are not finite: got {int(bad.sum())} of {array.size} (the "
            f"first at {tuple(np.argwhere(bad)[0].tolist())}), expected none. Set unknown depth "
            "to 0, and sky to a large distance."
        )
    if (array < 0).any():
        raise ValueError(
            f"{name} is negative: got a minimum of {array.min():.4g}, expected 0 (unknown) or "
            "more. Give z-depth along the viewing axis, not disparity or an OpenGL z."
        )
    empty = ~(array > 0).any(axis=(-2, -1))
    if empty.any():
        frame = "" if empty.ndim == 0 else f" in frame {np.argwhere(empty)[0].tolist()}"
        raise ValueError(
            f"{name} is zero everywhere{frame}: got no pixel of known depth, expected at least "
            "one. Estimate depth for this frame, or leave the frame out."
        )
    return array


def depth_scale(depth: Float[Any, "*batch H W"]) -> float:
    """Return the median known z-depth in scene units, the yardstick of ``trajectories.py``."""
    array = np.asarray(depth)
    known = array[np.isfinite(array) & (array > 0)]
    if known.size == 0:
        raise ValueError(
            "depth_scale: depth has no known value: got only zeros or values that are not finite, "
            "expected some pixels above 0. Check the depth file."
        )
    return float(np.median(known.astype(np.float64)))
