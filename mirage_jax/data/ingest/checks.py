"""Measure whether the parts of a clip agree: depth with motion, pictures with both.

Points of one frame are moved into another by depth and cameras. There they meet the depth that is
stored (relative disagreement) and the colours (difference in grey levels of 255; both medians of a
pair, averaged over pairs), which stand beside what copying the picture unmoved would give. Both
are measured between neighbours and between frames further apart, and again with depth scaled by
other factors: if a factor makes pictures meet much better than 1 does, depth and positions have
different units.

Read next: ``prepare.py`` (where bad clips go).
"""

from typing import Any, NamedTuple

import numpy as np

from mirage_jax.data.clip import FAR
from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.projection import project

# Neighbours; and frames further apart, between which more is hidden.
MAX_DISAGREEMENT, MAX_WIDE = 0.08, 0.12
# Below so many grey levels, or pixels that points travel, noise may be what pictures differ by.
_LEVELS, _TRAVEL = 8.0, 2.0
MIN_KNOWN = 0.05
MIN_SHARED = 0.1
_PAIRS = 6
_POINTS = 64  # along the longer side
_FACTORS = 2.0 ** np.arange(-11, 11.5, 0.5)


class Measure(NamedTuple):
    """What was measured of a clip.

    Attributes:
        disagreement: median relative difference of depths that should be the same, neighbours.
        wide_disagreement: the same between frames an eighth of the clip apart.
        moved, copied: difference of colours, moved by geometry and not moved, of the latter
            frames; grey levels.
        shared: share of points that fall into the other frame, the latter frames.
        travel: how far points move in the picture between the latter frames, pixels.
        known: share of pixels with depth.
        factor: by which depth would have to be multiplied to suit the motion best; 1 where motion
            does not tell.
        step: mean step of the camera between neighbours, over the median depth.
    """

    disagreement: float
    wide_disagreement: float
    moved: float
    copied: float
    shared: float
    travel: float
    known: float
    factor: float
    step: float


class _Pair(NamedTuple):
    disagreement: float
    moved: float
    copied: float
    shared: float
    travel: float


def measure_clip(clip: dict[str, Any]) -> Measure:
    """Measure a clip of the record format."""
    frames = len(clip["rgb"])
    gap = max(1, frames // 8)
    depth = clip["depth"].astype(np.float32)
    depth[clip["moving"] | (depth >= FAR)] = 0
    known = float((clip["depth"] > 0).mean())
    middle = float(np.median(depth[depth > 0])) if (depth > 0).any() else 0.0
    steps = np.linalg.norm(np.diff(clip["cam_to_world"][:, :3, 3], axis=0), axis=-1)
    near = _pairs(clip, depth, 1, 1.0)
    wide = _pairs(clip, depth, gap, 1.0)
    factor = _best_factor(clip, depth, gap, wide)
    return Measure(
        near.disagreement,
        wide.disagreement,
        wide.moved,
        wide.copied,
        wide.shared,
        wide.travel,
        known,
        factor,
        float(steps.mean()) / middle if middle else 0.0,
    )


def fault_of(measure: Measure) -> str | None:
    """Return why a clip should not be trained on, or None."""
    if measure.known < MIN_KNOWN:
        return f"depth is known in {measure.known:.1%} of the pixels, expected {MIN_KNOWN:.0%}"
    if measure.factor != 1.0:
        return (
            f"units: depth and positions disagree; depth times {measure.factor:.3g} suits the "
            f"motion best (colours differ by {measure.moved:.1f} levels as it is). Check the unit "
            "of depth (--depth-unit)"
        )
    if measure.shared < MIN_SHARED:
        return (
            f"frames are no neighbours: {measure.shared:.1%} of the points are seen again, "
            f"expected {MIN_SHARED:.0%}. Are the pictures in order, cameras camera to world?"
        )
    if measure.disagreement > MAX_DISAGREEMENT or measure.wide_disagreement > MAX_WIDE:
        return (
            f"depth disagrees with motion: by {measure.disagreement:.1%} between neighbours and "
            f"{measure.wide_disagreement:.1%} further apart (medians), expected "
            f"{MAX_DISAGREEMENT:.0%} and {MAX_WIDE:.0%}. Check units, axes and the order of frames"
        )
    telling = measure.copied > _LEVELS and measure.travel > _TRAVEL
    if measure.moved > (0.9 * measure.copied if telling else 1.2 * measure.copied + 2):
        return (
            f"pictures disagree with motion: moved by the cameras they differ by "
            f"{measure.moved:.1f} levels, unmoved by {measure.copied:.1f}. Check axes and "
            "intrinsics"
        )
    return None


def _best_factor(clip: dict[str, Any], depth: np.ndarray, gap: int, now: _Pair) -> float:
    """Return the factor of depth that suits the motion much better than 1, or 1."""
    moved = np.array([_score(_pairs(clip, depth, gap, factor)) for factor in _FACTORS])
    best = int(np.argmin(moved))
    here = _score(now)
    # Motion tells the unit only if pictures differ, and if the wrong units fit clearly worse.
    tells = here > 0.3 * now.copied + 0.5 and moved[best] < 0.5 * here
    far = abs(np.log2(_FACTORS[best])) >= 1
    return float(_FACTORS[best]) if tells and far else 1.0


def _score(pair: _Pair) -> float:
    """Return the difference of colours, infinite where too few points are seen again."""
    return pair.moved if pair.shared >= 0.3 else np.inf


def _pairs(clip: dict[str, Any], depth: np.ndarray, gap: int, factor: float) -> _Pair:
    frames = len(depth)
    firsts = np.unique(np.linspace(0, frames - 1 - gap, _PAIRS).round().astype(int))
    found = [_pair(clip, depth, int(first), int(first) + gap, factor) for first in firsts]
    found = [one for one in found if one is not None]
    if not found:
        return _Pair(np.inf, np.inf, 0.0, 0.0, 0.0)
    return _Pair(*np.mean(np.array(found), axis=0).tolist())


def _pair(
    clip: dict[str, Any], depth: np.ndarray, first: int, second: int, factor: float
) -> _Pair | None:
    """Move points of one frame into another; None without points."""
    height, width = depth.shape[1:]
    skip = max(1, max(height, width) // _POINTS)
    rows, columns = np.mgrid[skip // 2 : height : skip, skip // 2 : width : skip].reshape(2, -1)
    usable = depth[first, rows, columns] > 0
    rows, columns = rows[usable], columns[usable]
    if not len(rows):
        return None
    matrices, lens = clip["cam_to_world"].astype(np.float64), clip["intrinsics"].astype(np.float64)
    x = (columns + 0.5 - lens[0, 2]) / lens[0, 0]
    y = (rows + 0.5 - lens[1, 2]) / lens[1, 1]
    away = depth[first, rows, columns, None] * factor
    local = np.stack([x, y, np.ones_like(x)], axis=-1) * away
    points = local @ matrices[first, :3, :3].T + matrices[first, :3, 3]
    uv, z = project(points, Camera(matrices[second], lens))
    inside = (z > 0) & (uv >= 0).all(axis=-1) & (uv < [width, height]).all(axis=-1)
    shared = float(inside.mean())
    if not inside.any():
        return _Pair(1.0, 255.0, 0.0, 0.0, 0.0)
    from_uv = np.stack([columns, rows], axis=-1) + 0.5
    own = clip["rgb"][first, rows[inside], columns[inside]].astype(np.float32)
    place = np.clip(uv[inside] - 0.5, 0, [width - 1, height - 1])
    moved = _bilinear(clip["rgb"][second], place)
    copied = clip["rgb"][second, rows[inside], columns[inside]]
    u, v = uv[inside].astype(int).T
    there = depth[second, v, u] * factor
    both = there > 0
    apart = np.abs(z[inside][both] / there[both] - 1)
    disagreement = float(np.median(apart)) if both.any() else 0.0
    # What is hidden in the other frame is no fault: the middle of the differences counts.
    return _Pair(
        disagreement,
        float(np.median(np.abs(own - moved).mean(axis=-1))),
        float(np.median(np.abs(own - copied).mean(axis=-1))),
        shared,
        float(np.median(np.hypot(*(uv[inside] - from_uv[inside]).T))),
    )


def _bilinear(picture: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Sample [H, W, 3] at columns and rows [n, 2] counted in pixel centres."""
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, np.array(picture.shape[1::-1]) - 1)
    across, down = (place - low).T[..., None]
    (left, top), (right, bottom) = low.T, high.T
    upper = picture[top, left] * (1 - across) + picture[top, right] * across
    lower = picture[bottom, left] * (1 - across) + picture[bottom, right] * across
    return upper * (1 - down) + lower * down
