"""What a depth file says about itself, and what looks wrong with it.

Read next: ``depth_files/formats.py``, ``depth_kind.py``.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from mirage_jax.geometry.depth import edge_validity
from mirage_jax.geometry.depth_files.depth_maps import DepthMaps, pseudo_depth
from mirage_jax.geometry.depth_kind import flatter_reading

# No room and no street is this deep in metres, at the median.
_SUSPICIOUS = 200.0
_EDGE_WINDOW = 5


@dataclasses.dataclass(frozen=True)
class DepthInfo:
    """Figures of depth maps.

    Attributes:
      name: of the file.
      frames, height, width: how many maps, and their size.
      kind: "z", "ray" or "disparity".
      nearest, near, median, far, farthest: 0th, 2nd, 50th, 98th and 100th percentile of what is
        known, in scene units.
      unknown: share of unknown pixels.
      edges: share of known pixels of the first map within 2 of a depth edge, or of an unknown one.
      drift: largest median over smallest median of the maps.
      warnings: sentences.
    """

    name: str
    frames: int
    height: int
    width: int
    kind: str
    nearest: float
    near: float
    median: float
    far: float
    farthest: float
    unknown: float
    edges: float
    drift: float
    warnings: tuple[str, ...]

    def report(self) -> dict[str, Any]:
        """Return the figures by name, plain values all."""
        return {**dataclasses.asdict(self), "warnings": list(self.warnings)}

    def lines(self) -> list[str]:
        """Return them as lines for people."""
        spread = f"{self.near:.4g} to {self.far:.4g}, median {self.median:.4g}"
        return [
            f"{'size':<12}{self.frames} x {self.height}x{self.width}",
            f"{'kind':<12}{self.kind}",
            f"{'range':<12}{spread} (2 % to 98 %; all: {self.nearest:.4g} to {self.farthest:.4g})",
            f"{'unknown':<12}{self.unknown:.1%}",
            f"{'edges':<12}{self.edges:.1%} of the known pixels are beside edges or unknown ones",
            *(f"warning: {warning}" for warning in self.warnings),
        ]


def describe_depth(
    maps: DepthMaps, intrinsics: Float[np.ndarray, "3 3"] | None = None
) -> DepthInfo:
    """Measure depth maps.

    Args:
      maps: from ``read_depth``.
      intrinsics: of the camera, to test whether values are z-depth or distances along rays.
    """
    values = maps.values
    known = np.isfinite(values) if maps.kind == "disparity" else values > 0
    found = np.percentile(values[known], (0, 2, 50, 98, 100))
    edges, warnings = 0.0, list(maps.notes)
    if min(values.shape[1:]) >= 3:
        shown = pseudo_depth(values[0]) if maps.kind == "disparity" else values[0]
        inside = edge_validity(shown, _EDGE_WINDOW)
        # Beside unknown pixels nothing can be told, so these count as edges too.
        edges = float(1 - inside[known[0]].mean())
    middles = [
        float(np.median(frame[seen]))
        for frame, seen in zip(values, known, strict=True)
        if seen.any()
    ]
    if maps.kind != "disparity" and found[2] > _SUSPICIOUS:
        warnings.append(
            f"the median is {found[2]:.4g}: are these millimetres? Then read with --depth-as mm"
        )
    if intrinsics is not None and maps.kind == "z":
        told = flatter_reading(values[0], intrinsics)
        if told.kind == "ray":
            warnings.append(
                "walls are flat as distances along rays "
                f"({told.as_ray:.2%} off a plane against {told.as_z:.2%}): --depth-as ray"
            )
    if maps.kind == "z" and not maps.stated:
        warnings.append("taken as z-depth along the viewing axis; the file does not say so")
    nearest, near, median, far, farthest = (float(value) for value in found)
    frames, height, width = values.shape
    return DepthInfo(
        name=maps.name,
        frames=frames,
        height=height,
        width=width,
        kind=maps.kind,
        nearest=nearest,
        near=near,
        median=median,
        far=far,
        farthest=farthest,
        unknown=float(1 - known.mean()),
        edges=edges,
        drift=max(middles) / min(middles),
        warnings=tuple(warnings),
    )
