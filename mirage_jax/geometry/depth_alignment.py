"""Bring depth of unknown scale onto depth that is known at some pixels, robustly.

Inverse depth is what is fitted: known 1/z = a x + b, where x is the inverse of the given depth, or
a network's disparity. `scale` alone has b = 0 (depth is multiplied by 1/a); `disparity` fits both.
The start is the hypothesis of least median deviation (of single points, or of pairs), which holds
while fewer than half of the points are wrong; reweighted least squares with Tukey's biweight refine
it. No randomness: the drawn points are constants.

Conventions: as in ``depth.py``; functions run on NumPy and JAX arrays alike, also under ``jit``
(``check_alignment`` does not). Read next: ``depth_files/depth_maps.py``.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from mirage_jax.geometry.namespace import array_namespace, as_float

Model = Literal["scale", "disparity"]

_SAMPLE, _HYPOTHESES, _ROUNDS = 1024, 384, 8
# Tukey's constant: 95 % efficient for normal noise. 1.4826 turns a median deviation into a sigma.
_TUKEY, _SIGMA = 4.685, 1.4826
_LEAST_SIGMA = 1e-6
# Deviations are relative to the inverse depth, but for far points to this share of its median.
_FAR_SHARE = 0.2


class DepthAlignment(NamedTuple):
    """Aligned 1/z = slope * x + offset, and how well it fits.

    Attributes:
      slope, offset: see above; offset is 0 where only a scale was fitted.
      residual: median relative deviation of the aligned depth at points within the tolerance.
      deviation: the same over all points.
      inliers: share of points within the tolerance.
      points: how many were compared.
      spread: of the known inverse depth, from its 10th to its 90th percentile over its median.
      constant: median relative deviation if the known depth were the same everywhere.
    """

    slope: Float[Any, ""]
    offset: Float[Any, ""]
    residual: Float[Any, ""]
    deviation: Float[Any, ""]
    inliers: Float[Any, ""]
    points: Any
    spread: Float[Any, ""]
    constant: Float[Any, ""]

    @property
    def scale(self) -> float:
        """Factor of depth, where only a scale was fitted."""
        return float(1.0 / self.slope)

    def report(self) -> dict[str, float]:
        """Return the figures by name, plain numbers all."""
        figures = {name: float(value) for name, value in self._asdict().items()}
        return {"scale": self.scale, **figures, "points": int(self.points)}


@dataclasses.dataclass(frozen=True)
class AlignmentLimits:
    """When an alignment is refused.

    Attributes:
      tolerance: relative deviation up to which a point agrees.
      least_inliers: share of points that must agree.
      fewest_points: that must be comparable.
      least_spread: of the known inverse depth, below which scale and shift cannot both be told.
    """

    tolerance: float = 0.1
    least_inliers: float = 0.5
    fewest_points: int = 30
    least_spread: float = 0.05


_LIMITS = AlignmentLimits()
# A deviation below this is noise, whatever a constant depth would reach.
_NOISE = 0.05


def fit_alignment(
    inverse: Float[Any, "*shape"],
    known: Float[Any, "*shape"],
    valid: Bool[Any, "*shape"],
    model: Model = "scale",
    tolerance: float = _LIMITS.tolerance,
) -> DepthAlignment:
    """Fit slope and offset; see the module. Nothing is refused here: see ``check_alignment``.

    Args:
      inverse: x of the module: 1/depth, or disparity.
      known: z-depth in scene units to align to.
      valid: where both are known and to be compared.
      model: "scale", or "disparity" for scale and shift.
      tolerance: relative deviation up to which a point agrees.
    """
    xp = array_namespace(inverse, known, valid)
    x, z = as_float(inverse, xp).reshape(-1), as_float(known, xp).reshape(-1)
    valid = xp.asarray(valid).reshape(-1) & xp.isfinite(x) & xp.isfinite(z) & (z > 0)
    if model == "scale":
        valid = valid & (x > 0)
    x = xp.where(valid, x, 1.0)
    y = xp.where(valid, 1.0 / xp.where(valid, z, 1.0), 1.0)
    weight = 1.0 / xp.maximum(y, _FAR_SHARE * _quantile(xp, y, valid, 0.5))
    slope, offset = _hypothesis(xp, x, y, weight, valid, model)
    slope, offset = _refined(xp, (x, y, weight, valid), slope, offset, model)
    return _described(xp, x, y, valid, slope, offset, tolerance)


def align_depth(inverse: Float[Any, "*shape"], found: DepthAlignment) -> Float[Any, "*shape"]:
    """Return aligned z-depth; 0 (unknown) where it lies beyond infinity or x is not finite."""
    xp = array_namespace(inverse, found.slope)
    x = as_float(inverse, xp)
    aligned = found.slope * x + found.offset
    good = xp.isfinite(aligned) & (aligned > 0)
    return xp.where(good, 1.0 / xp.where(good, aligned, 1.0), 0.0)


def inverse_depth(depth: Float[Any, "*shape"]) -> Float[Any, "*shape"]:
    """Return 1/z, NaN where depth is unknown."""
    xp = array_namespace(depth)
    depth = as_float(depth, xp)
    known = xp.isfinite(depth) & (depth > 0)
    return xp.where(known, 1.0 / xp.where(known, depth, 1.0), xp.nan)


def check_alignment(
    found: DepthAlignment,
    model: Model,
    name: str = "depth",
    limits: AlignmentLimits = _LIMITS,
) -> None:
    """Raise ValueError, with the figures and the cure, unless a fit can be trusted.

    Args:
      found: from ``fit_alignment`` with the same tolerance.
      model: that was fitted.
      name: what was aligned; messages start with it.
      limits: see there.
    """
    points = int(found.points)
    if points < limits.fewest_points:
        raise ValueError(
            f"{name}: cannot be aligned: got {points} points known on both sides, expected at "
            f"least {limits.fewest_points}. Align at a view that sees more of what is known."
        )
    if model == "disparity" and float(found.spread) < limits.least_spread:
        raise ValueError(
            f"{name}: scale and shift cannot both be told: the known inverse depth varies by "
            f"{float(found.spread):.1%}, expected at least {limits.least_spread:.0%}. Fit the "
            "scale alone, or align at a view with near and far things."
        )
    figures = (
        f"{float(found.inliers):.0%} of {points} points agree within {limits.tolerance:.0%}, the "
        f"median deviation is {float(found.deviation):.1%}"
    )
    other = " try scale and shift (disparity);" if model == "scale" else ""
    cure = (
        f"Check that both are depth of the same view and that it is z-depth;{other} or leave this "
        "depth out."
    )
    slope, deviation = float(found.slope), float(found.deviation)
    if not (np.isfinite(slope) and slope > 0):
        raise ValueError(f"{name}: near and far are exchanged: {figures}. {cure}")
    if float(found.inliers) < limits.least_inliers:
        raise ValueError(
            f"{name}: does not agree with what is known: got {figures}, expected "
            f"{limits.least_inliers:.0%} at least. {cure}"
        )
    if deviation > max(_NOISE, float(found.constant)):
        raise ValueError(
            f"{name}: tells no more than one depth for all: got {figures}, against "
            f"{float(found.constant):.1%} for a constant depth. {cure}"
        )


def _quantile(xp: Any, values: Any, valid: Any, share: float) -> Any:
    """Return a quantile of the valid values (the lower of two), 1 if there are none."""
    ordered = xp.sort(xp.where(valid, values, xp.inf), axis=-1)
    last = xp.maximum(xp.sum(valid) - 1, 0)
    place = xp.floor(share * last).astype(np.int32)
    found = xp.take(ordered, place, axis=-1)
    return xp.where(xp.isfinite(found), found, 1.0)


def _hypothesis(xp: Any, x: Any, y: Any, weight: Any, valid: Any, model: Model) -> tuple[Any, Any]:
    """Return the hypothesis with the least median deviation over a sample of the points."""
    random = np.random.default_rng(0)
    count = xp.maximum(xp.sum(valid), 1)
    # Valid points first, so that a share of the count is a valid point.
    order = xp.argsort(~valid, stable=True)

    def drawn(shares: np.ndarray) -> Any:
        return order[xp.minimum(xp.floor(shares * count).astype(np.int32), count - 1)]

    sample = drawn((np.arange(_SAMPLE) + random.random(_SAMPLE)) / _SAMPLE)
    sample = sample[xp.argsort(x[sample], stable=True)]
    sx, sy, sw = x[sample], y[sample], weight[sample]
    if model == "scale":
        chosen = random.integers(0, _SAMPLE, _HYPOTHESES)
        slope = xp.concatenate([(sy / sx)[chosen], xp.median(sy / sx)[None]])
        offset = xp.zeros_like(slope)
    else:
        # One of the farther and one of the nearer points: pairs apart tell the slope best.
        low = random.integers(0, _SAMPLE // 2, _HYPOTHESES)
        high = random.integers(_SAMPLE // 2, _SAMPLE, _HYPOTHESES)
        step = sx[high] - sx[low]
        apart = step > 0
        slope = xp.where(apart, (sy[high] - sy[low]) / xp.where(apart, step, 1.0), 0.0)
        offset = sy[low] - slope * sx[low]
    off = xp.abs(slope[:, None] * sx + offset[:, None] - sy) * sw
    score = xp.where(slope > 0, xp.median(off, axis=-1), xp.inf)
    best = xp.argmin(score)
    return slope[best], offset[best]


def _refined(
    xp: Any, points: tuple[Any, Any, Any, Any], slope: Any, offset: Any, model: Model
) -> tuple[Any, Any]:
    """Improve a start by reweighted least squares; points far off have no weight."""
    x, y, weight, valid = points
    off = xp.abs(slope * x + offset - y) * weight
    sigma = _SIGMA * _quantile(xp, off, valid, 0.5)
    for _ in range(_ROUNDS):
        near = valid & (off <= 2.5 * sigma)
        sigma = xp.maximum(_SIGMA * _quantile(xp, off, near, 0.5), _LEAST_SIGMA)
        ratio = xp.minimum(off / (_TUKEY * sigma), 1.0)
        w = xp.where(valid, ((1 - ratio**2) * weight) ** 2, 0.0)
        slope, offset = _least_squares(xp, x, y, w, (slope, offset), model)
        off = xp.abs(slope * x + offset - y) * weight
    return slope, offset


def _least_squares(
    xp: Any, x: Any, y: Any, w: Any, before: tuple[Any, Any], model: Model
) -> tuple[Any, Any]:
    """Solve for slope and offset; what the points leave open stays as it was."""
    if model == "scale":
        square = xp.sum(w * x * x)
        slope = xp.sum(w * x * y) / xp.where(square > 0, square, 1.0)
        return xp.where(square > 0, slope, before[0]), before[1]
    total = xp.sum(w)
    safe = xp.where(total > 0, total, 1.0)
    mean_x, mean_y = xp.sum(w * x) / safe, xp.sum(w * y) / safe
    square = xp.sum(w * (x - mean_x) ** 2)
    told = (total > 0) & (square > 0)
    slope = xp.sum(w * (x - mean_x) * (y - mean_y)) / xp.where(told, square, 1.0)
    slope = xp.where(told, slope, before[0])
    return slope, xp.where(told, mean_y - slope * mean_x, before[1])


def _described(
    xp: Any, x: Any, y: Any, valid: Any, slope: Any, offset: Any, tolerance: float
) -> DepthAlignment:
    aligned = slope * x + offset
    ahead = aligned > 0
    # |z_aligned - z| / z with z = 1/y; beyond infinity it is endless.
    off = xp.where(ahead, xp.abs(y / xp.where(ahead, aligned, 1.0) - 1.0), xp.inf)
    agrees = valid & (off <= tolerance)
    count = xp.sum(valid)
    middle = _quantile(xp, y, valid, 0.5)
    spread = _quantile(xp, y, valid, 0.9) - _quantile(xp, y, valid, 0.1)
    return DepthAlignment(
        slope=slope,
        offset=offset,
        residual=_quantile(xp, off, agrees, 0.5),
        deviation=_quantile(xp, off, valid, 0.5),
        inliers=xp.sum(agrees) / xp.maximum(count, 1),
        points=count,
        spread=spread / middle,
        constant=_quantile(xp, xp.abs(y / middle - 1.0), valid, 0.5),
    )
