"""Brings estimated depth of generated frames onto what memory already holds, frame by frame.

A depth model's scale (and, for relative ones, shift) is its own and drifts from picture to picture;
written as it is, surfaces would double. Each frame is aligned to the depth that memory shows to its
camera. A frame that sees too little of memory takes the alignment of the frame before it in the
same chunk; one that does not fit is not remembered. Nothing is carried from chunk to chunk, so a
resumed rollout ends like an uninterrupted one.
Conventions: z-depth in scene units on the latent grid, 0 = unknown.
Read next: `mirage_jax/geometry/depth_alignment.py`, `mirage_jax/rollout/depths.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

from mirage_jax.geometry.depth_alignment import (
    AlignmentLimits,
    DepthAlignment,
    Model,
    align_depth,
    check_alignment,
    fit_alignment,
    inverse_depth,
)
from mirage_jax.world_model import FAR

# On small grids fewer cells must do: a tenth, but never fewer than these.
_FEWEST_CELLS, _SHARE_OF_CELLS = 12, 0.1


@dataclasses.dataclass(frozen=True)
class MemoryAlignment:
    """How depth is aligned to memory.

    Attributes:
        model: "scale", or "disparity" for scale and shift.
        say: receives a line for each frame that does not fit.
        limits: when a fit is refused.
    """

    model: Model = "scale"
    say: Callable[[str], None] = lambda line: None
    limits: AlignmentLimits = AlignmentLimits()

    def align(
        self,
        depth: Float[np.ndarray, "n h w"],
        remembered: Float[np.ndarray, "n h w"],
        visible: Bool[np.ndarray, "n h w"],
        numbers: Int[np.ndarray, " n"],
    ) -> tuple[Float[np.ndarray, "n h w"], Bool[np.ndarray, "n h w"]]:
        """Align consecutive frames of one chunk.

        Args:
            depth: of the frames' cells, of unknown scale (and shift of its inverse).
            remembered: what memory shows to the frames' cameras.
            visible: where it shows something.
            numbers: of the video frames, for messages.

        Returns:
            Aligned depth, and True where it may be remembered: nowhere in frames that do not fit.
        """
        aligned, keep = np.zeros_like(depth), np.zeros(depth.shape, bool)
        last: DepthAlignment | None = None
        limits = self._limits(depth[0].size)
        for index, frame in enumerate(depth):
            inverse = inverse_depth(frame)
            valid = visible[index] & (remembered[index] < 0.99 * FAR) & (frame > 0)
            found = fit_alignment(inverse, remembered[index], valid, self.model, limits.tolerance)
            if found.points < limits.fewest_points and last is not None:
                found = last
            else:
                try:
                    check_alignment(found, self.model, f"frame {numbers[index]}", limits)
                except ValueError as error:
                    self.say(f"not remembered: {error}")
                    continue
            last = found
            aligned[index] = align_depth(inverse, found)
            keep[index] = aligned[index] > 0
        return np.minimum(aligned, FAR), keep

    def _limits(self, cells: int) -> AlignmentLimits:
        fewest = max(_FEWEST_CELLS, int(_SHARE_OF_CELLS * cells))
        fewest = min(self.limits.fewest_points, fewest)
        return dataclasses.replace(self.limits, fewest_points=fewest)
