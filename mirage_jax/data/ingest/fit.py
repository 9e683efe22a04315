"""Bring the frames of a clip to one training size, with one matrix of intrinsics.

Conventions: pixel centres at (i + 0.5). The largest middle part of the training aspect is kept.
Colours are averaged over the area of a new pixel; depth is taken at its centre, bilinear on
surfaces and nearest at edges, so every value lies on something. Where intrinsics change from frame
to frame, each is resampled to the same ones. Lenses are straight here (``straighten.py``).

Read next: ``cut.py``.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mirage_jax.geometry.camera import crop_intrinsics

# Neighbours whose inverse depths differ by more are on two surfaces.
_STEP = 0.1


class Frame(NamedTuple):
    """Which part of the pictures of a clip is kept, and its intrinsics at the training size.

    Attributes:
        intrinsics: [3, 3] in pixels of `hw`.
        hw: (height, width) of training.
    """

    intrinsics: Float[np.ndarray, "3 3"]
    hw: tuple[int, int]


def common_frame(
    intrinsics: Float[np.ndarray, "f 3 3"], source_hw: tuple[int, int], hw: tuple[int, int]
) -> Frame:
    """Return the largest middle part that all frames show, in the aspect of training.

    Args:
        intrinsics: of the pictures, in their pixels.
        source_hw: (height, width) of the pictures.
        hw: (height, width) of training.

    Raises:
        ValueError: the intrinsics change so much that less than half of a side is shared.
    """
    first = intrinsics[0]
    corners = np.array([[0.0, 0.0], [source_hw[1], source_hw[0]]])
    boxes = np.stack([_mapped(corners, matrix, first) for matrix in intrinsics])
    low, high = boxes[:, 0].max(axis=0), boxes[:, 1].min(axis=0)
    sides = high - low
    if (sides < 0.5 * corners[1]).any():
        raise ValueError(
            f"intrinsics change within a clip: all frames share {max(0, sides[0]):.0f} of "
            f"{source_hw[1]} columns and {max(0, sides[1]):.0f} of {source_hw[0]} rows, expected "
            "at least half. Cut the recording where the lens zooms."
        )
    width, height = sides
    aspect = hw[1] / hw[0]
    kept = np.array([min(width, height * aspect), min(height, width / aspect)])
    left, top = low + (sides - kept) / 2
    if np.array_equal(intrinsics, np.broadcast_to(first, intrinsics.shape)):
        left, top = np.floor(left), np.floor(top)
    matrix = crop_intrinsics(first, float(top), float(left))
    scale = np.array([hw[1] / kept[0], hw[0] / kept[1], 1.0])
    return Frame(matrix * scale[:, None], hw)


def fit_colors(rgb: np.ndarray, intrinsics: np.ndarray, frame: Frame) -> np.ndarray:
    """Resample a picture [H, W, 3] to [h, w, 3], averaging over the area of each new pixel."""
    from PIL import Image

    height, width = frame.hw
    corners = np.array([[0.0, 0.0], [width, height]])
    low, high = _mapped(corners, frame.intrinsics, intrinsics)
    low = np.clip(low, 0, None)
    high = np.minimum(high, [rgb.shape[1], rgb.shape[0]])
    box = (*low.tolist(), *high.tolist())
    if box == (0, 0, width, height) and rgb.shape[:2] == frame.hw:
        return rgb
    picture = Image.fromarray(np.ascontiguousarray(rgb))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, box=box))


def fit_depth(depth: np.ndarray, intrinsics: np.ndarray, frame: Frame) -> np.ndarray:
    """Take z-depth [H, W] at the centres of new pixels: [h, w] float32, 0 where unknown."""
    at, inside = _positions(depth.shape, intrinsics, frame)
    rows, columns = (np.clip(p - 0.5, 0, n - 1) for p, n in zip(at, depth.shape, strict=True))
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    bottom = np.minimum(top + 1, depth.shape[0] - 1)
    right = np.minimum(left + 1, depth.shape[1] - 1)
    down, across = (rows - top)[:, None], (columns - left)[None]
    taps = np.stack([depth[np.ix_(r, c)] for r in (top, bottom) for c in (left, right)])
    weights = np.stack(
        [(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across]
    )
    used = weights > 1e-9
    low = np.where(used, taps, np.inf).min(axis=0)
    high = np.where(used, taps, 0).max(axis=0)
    smooth = (low > 0) & (high - low <= _STEP * low)
    nearest = fit_nearest(depth, intrinsics, frame)
    return np.where(smooth & inside, (weights * taps).sum(axis=0), nearest).astype(np.float32)


def fit_nearest(values: np.ndarray, intrinsics: np.ndarray, frame: Frame) -> np.ndarray:
    """Take values [H, W] at the centres of new pixels; 0 (or False) outside."""
    at, inside = _positions(values.shape, intrinsics, frame)
    rows, columns = (
        np.clip(np.floor(p).astype(int), 0, n - 1) for p, n in zip(at, values.shape, strict=True)
    )
    return np.where(inside, values[np.ix_(rows, columns)], values.dtype.type(0))


def _positions(
    shape: tuple[int, ...], intrinsics: np.ndarray, frame: Frame
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Return rows [h] and columns [w] of the source at new centres, and which are inside [h, w]."""
    height, width = frame.hw
    size = max(height, width)
    centers = np.repeat(np.arange(size)[:, None] + 0.5, 2, axis=1)
    mapped = _mapped(centers, frame.intrinsics, intrinsics)
    columns, rows = mapped[:width, 0], mapped[:height, 1]
    inside = ((rows >= 0) & (rows <= shape[0]))[:, None] & ((columns >= 0) & (columns <= shape[1]))
    return (rows, columns), inside


def _mapped(points: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Move points [n, 2] (column, row) from the pixels of one camera to another's, same centre."""
    focal = target.diagonal()[:2] / source.diagonal()[:2]
    return (points - source[:2, 2]) * focal + target[:2, 2]
