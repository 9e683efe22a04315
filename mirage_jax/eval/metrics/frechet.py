"""`frechet_dct`: a Fréchet distance over patches, on features that need no weights.

Features of a patch of 8x8 pixels, stepping by 4: of its brightness the lowest 15 coefficients of
the two-dimensional cosine transform (u + v <= 4), the logarithm of the energy in three bands of the
others (u + v of 5 to 6, 7 to 8, 9 to 14), and the means of its two colour differences: 20 numbers.
Low ones tell layout and contrast, the bands tell texture: blur empties them and is punished.
Between two sets of patches with means m and covariances C:

    |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))

Sets add up, so pictures of many scenes need not be held at once. It is not FID and not comparable
with one; values depend on the picture's size and are for comparing systems on the same frames.
Read next: `detail.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

_SIDE, _STEP = 8, 4
_LOWEST = 4
_BANDS = ((5, 6), (7, 8), (9, 14))
# The weight of a logarithm of energy beside coefficients in gray values.
_BAND_WEIGHT = 10.0
FEATURES = 20


class PatchSums(NamedTuple):
    """Sums over patches, which add up: patches, sum of features, sum of their outer products."""

    patches: float
    total: Float[np.ndarray, " d"]
    outer: Float[np.ndarray, "d d"]


def patch_features(video: UInt8[np.ndarray, "f H W 3"]) -> Float[np.ndarray, "n d"]:
    """Return the features of every patch of every frame."""
    transform = _cosines()
    u, v = np.mgrid[:_SIDE, :_SIDE]
    rows = []
    for frame in video:
        ycc = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2YCrCb).astype(np.float64)
        windows = np.lib.stride_tricks.sliding_window_view(ycc, (_SIDE, _SIDE), axis=(0, 1))
        patches = windows[::_STEP, ::_STEP].reshape(-1, 3, _SIDE, _SIDE)
        coefficients = transform @ patches[:, 0] @ transform.T
        low = coefficients[:, u + v <= _LOWEST] / _SIDE
        bands = [
            np.log1p(np.mean(coefficients[:, (u + v >= a) & (u + v <= b)] ** 2, axis=1))
            for a, b in _BANDS
        ]
        color = patches[:, 1:].mean(axis=(2, 3))
        rows.append(np.concatenate([low, _BAND_WEIGHT * np.stack(bands, axis=1), color], axis=1))
    return np.concatenate(rows)


def patch_sums(video: UInt8[np.ndarray, "f H W 3"]) -> PatchSums:
    """Return the sums of a video's patches."""
    features = patch_features(video)
    return PatchSums(float(len(features)), features.sum(axis=0), features.T @ features)


def add_sums(parts: list[PatchSums]) -> PatchSums:
    """Return the sums of several sets together."""
    return PatchSums(*(sum(part[i] for part in parts) for i in range(3)))  # type: ignore[arg-type]


def frechet_distance(a: PatchSums, b: PatchSums) -> float:
    """Return the distance of two sets of patches; 0 for equal ones."""
    (mean_a, cov_a), (mean_b, cov_b) = _moments(a), _moments(b)
    # tr (C_a C_b)^(1/2) through symmetric roots only: the product itself is not symmetric.
    root = _root(cov_a)
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_b @ root), 0.0)).sum()
    distance = np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a) + np.trace(cov_b) - 2.0 * cross
    return float(max(distance, 0.0))


def _moments(sums: PatchSums) -> tuple[np.ndarray, np.ndarray]:
    mean = np.asarray(sums.total) / sums.patches
    return mean, np.asarray(sums.outer) / sums.patches - np.outer(mean, mean)


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def _cosines() -> Any:
    """Return the orthonormal cosine transform (type II) as a matrix."""
    k, n = np.mgrid[:_SIDE, :_SIDE]
    matrix = np.sqrt(2.0 / _SIDE) * np.cos(np.pi * (2 * n + 1) * k / (2 * _SIDE))
    matrix[0] /= np.sqrt(2.0)
    return matrix
