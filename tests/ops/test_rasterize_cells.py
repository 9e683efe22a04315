"""The nearest point of each cell against a slow loop over the points."""

import jax
import numpy as np

from mirage_jax.ops.rasterize_points import rasterize_cells


def slow_rasterize(cell, depth, num_cells):
    """Visit the points one by one and keep the nearest, the first of equals."""
    best = [(np.inf, -1)] * num_cells
    for row, (where, value) in enumerate(zip(cell.tolist(), depth.tolist(), strict=True)):
        usable = 0 <= where < num_cells and value > 0 and np.isfinite(value)
        if usable and value < best[where][0]:
            best[where] = (value, row)
    return np.array([row for _, row in best], np.int32)


def test_rasterize_cells_matches_a_slow_loop_with_ties_and_invalid_rows():
    rng = np.random.default_rng(3)
    cell = rng.integers(-3, 51, 2000).astype(np.int32)
    depth = rng.choice([0.5, 1, 2, np.nan, np.inf, -np.inf, 0.0, -0.0, -1], 2000).astype(np.float32)
    got = jax.jit(rasterize_cells, static_argnums=2)(cell, depth, 48)
    np.testing.assert_array_equal(got, slow_rasterize(cell, depth, 48))
