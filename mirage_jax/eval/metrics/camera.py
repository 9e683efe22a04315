"""Errors of a camera path: rotation in degrees, translation, with the alignment stated.

Both paths are expressed relative to their own first camera; rotations are never aligned.
Translations are compared as they are (`scale="none"`: the estimate is in the units of the truth,
because it comes from known geometry), or after one factor c that minimises
sum_i |t_true_i - c t_i| (`scale="worldscore"`: the sum of lengths, not of squares). Errors are
means over the frames after the first.

The WorldScore score of a path maps mean rotation of 0 to 15 degrees and mean translation of 0 to
0.5 (in units of `unit`) each to 1 to 0, clamped, and takes the geometric mean.
Read next: `camera_from_pictures.py` for where the paths come from.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

WORST_ROTATION, WORST_TRANSLATION = 15.0, 0.5  # degrees; units
_SEARCH_STEPS = 120


class PathError(NamedTuple):
    """Mean errors over the frames of a path, and the factor its translations were multiplied by."""

    rotation: float
    translation: float
    scale: float


def rotation_degrees(
    a: Float[np.ndarray, "*f 4 4"], b: Float[np.ndarray, "*f 4 4"]
) -> Float[np.ndarray, "*f"]:
    """Return the angle of the rotation between two matrices, in degrees.

    Uses the chord |A - B|, which is exact near 0 where the cosine has no digits left.
    """
    chord = np.linalg.norm(np.asarray(a, float)[..., :3, :3] - b[..., :3, :3], axis=(-2, -1))
    return np.degrees(2.0 * np.arcsin(np.clip(chord / np.sqrt(8.0), 0.0, 1.0)))


def from_first(cam_to_world: Float[np.ndarray, "f 4 4"]) -> Float[np.ndarray, "f 4 4"]:
    """Return cameras relative to the first one, whose matrix becomes the identity."""
    matrices = np.asarray(cam_to_world, np.float64)
    first = matrices[0]
    inverse = np.eye(4)
    inverse[:3, :3] = first[:3, :3].T
    inverse[:3, 3] = -first[:3, :3].T @ first[:3, 3]
    return inverse @ matrices


def best_scale(true: Float[np.ndarray, "f 3"], got: Float[np.ndarray, "f 3"]) -> float:
    """Return c that minimises sum_i |true_i - c got_i|; 1 where `got` does not move.

    The sum is convex in c and its least value lies between the factors best for single frames.
    """
    square = np.sum(got**2, axis=-1)
    moves = square > 1e-12
    if not moves.any():
        return 1.0
    single = np.sum(true * got, axis=-1)[moves] / square[moves]
    low, high = float(single.min()), float(single.max())
    for _ in range(_SEARCH_STEPS):
        third = (high - low) / 3.0
        left, right = low + third, high - third
        if _spread(true, got, left) <= _spread(true, got, right):
            high = right
        else:
            low = left
    return (low + high) / 2.0


def path_error(
    true: Any,
    got: Any,
    scale: Literal["none", "worldscore"] = "none",
    unit: float = 1.0,
) -> PathError:
    """Compare two paths, each relative to its own first camera.

    Args:
        true: [f, 4, 4] cameras to world that were asked for.
        got: [f, 4, 4] cameras to world that were found, for the same frames.
        scale: how translations are aligned, see the module.
        unit: length that counts as 1 in the translation error.

    Raises:
        ValueError: the paths have different lengths, or fewer than two cameras.
    """
    if len(true) != len(got) or len(true) < 2:
        raise ValueError(
            f"paths: got {len(true)} and {len(got)} cameras, expected two paths of one length of "
            "at least 2; compare the frames that both have"
        )
    a, b = from_first(true), from_first(got)
    factor = best_scale(a[1:, :3, 3], b[1:, :3, 3]) if scale == "worldscore" else 1.0
    away = np.linalg.norm(factor * b[1:, :3, 3] - a[1:, :3, 3], axis=-1)
    return PathError(
        rotation=float(rotation_degrees(a[1:], b[1:]).mean()),
        translation=float(away.mean() / unit),
        scale=factor,
    )


def worldscore(rotation: float, translation: float) -> float:
    """Return WorldScore's camera control of mean errors, 0 to 1; NaN errors score 0."""
    parts = [
        1.0 - np.clip(error / worst, 0.0, 1.0)
        for error, worst in ((rotation, WORST_ROTATION), (translation, WORST_TRANSLATION))
    ]
    return float(np.sqrt(np.prod(np.nan_to_num(parts, nan=0.0))))


def _spread(true: np.ndarray, got: np.ndarray, factor: float) -> float:
    return float(np.linalg.norm(true - factor * got, axis=-1).sum())
