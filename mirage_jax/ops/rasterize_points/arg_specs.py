"""Named sizes of the points rasterizer, shared by tests and benchmarks.

Each case says how many points fall on how many cells and how often depths tie or rows are invalid.

Read next: `tests/ops/test_rasterize_points.py`.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class ArgSpec:
    """One named case.

    Attributes:
        num_points: Rows n of the table.
        num_cells: Cells m of the image.
        depth_levels: Number of distinct depths; few levels make many exact ties.
        invalid_fraction: Share of rows with NaN, infinite, zero or negative depth, and again of
            rows that fall outside the image.
    """

    num_points: int
    num_cells: int
    depth_levels: int = 1 << 20
    invalid_fraction: float = 0.1


SPECS = {
    "empty": ArgSpec(0, 12),
    "no_cells": ArgSpec(7, 0),
    "one_point": ArgSpec(1, 1, invalid_fraction=0.0),
    "all_invalid": ArgSpec(50, 9, invalid_fraction=1.0),
    "all_ties": ArgSpec(500, 20, depth_levels=1),
    "many_ties": ArgSpec(2000, 48, depth_levels=4),
    "tiny_train": ArgSpec(1500, 12 * 16),
    "release_frame": ArgSpec(3520, 44 * 80, depth_levels=64),
    "release_scene": ArgSpec(200_000, 44 * 80),
}


def make_arguments(spec: ArgSpec, seed: int = 0) -> tuple[np.ndarray, np.ndarray, int]:
    """Return random (cell, depth, num_cells) of a case, the same for the same seed."""
    rng = np.random.default_rng(seed)
    n = spec.num_points
    cell = rng.integers(0, max(spec.num_cells, 1), n).astype(np.int32)
    outside = rng.random(n) < spec.invalid_fraction
    cell[outside] = rng.choice([-1, -7, spec.num_cells, spec.num_cells + 5], outside.sum())
    levels = np.sort(rng.uniform(0.05, 30.0, min(spec.depth_levels, max(n, 1))))
    depth = rng.choice(levels, n).astype(np.float32)
    bad = rng.random(n) < spec.invalid_fraction
    depth[bad] = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0], bad.sum())
    return cell, depth, spec.num_cells
