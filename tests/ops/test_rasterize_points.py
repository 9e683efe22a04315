"""Properties of the points rasterizer against a slow loop over the points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirage_jax.ops.rasterize_points import rasterize_points
from mirage_jax.ops.rasterize_points.arg_specs import SPECS, make_arguments

rasterize = jax.jit(rasterize_points, static_argnums=2)


def slow_rasterize(cell, depth, num_cells):
    """Visit the points one by one and keep the nearest, the first of equals."""
    best = [(np.inf, -1)] * num_cells
    for row, (where, value) in enumerate(zip(cell.tolist(), depth.tolist(), strict=True)):
        usable = 0 <= where < num_cells and value > 0 and np.isfinite(value)
        if usable and value < best[where][0]:
            best[where] = (value, row)
    return np.array([row for _, row in best], np.int32)


@pytest.mark.parametrize("name", sorted(SPECS))
def test_rasterize_points_matches_oracle(name):
    cell, depth, num_cells = make_arguments(SPECS[name], seed=3)
    got = np.asarray(rasterize(cell, depth, num_cells))
    np.testing.assert_array_equal(got, slow_rasterize(cell, depth, num_cells))


@pytest.mark.parametrize("name", ["many_ties", "tiny_train"])
def test_rasterize_points_is_deterministic_and_stable_under_shuffling(name):
    cell, depth, num_cells = make_arguments(SPECS[name], seed=4)
    first = np.asarray(rasterize(cell, depth, num_cells))
    np.testing.assert_array_equal(first, np.asarray(rasterize(cell, depth, num_cells)))
    order = np.random.default_rng(0).permutation(len(cell))
    shuffled = np.asarray(rasterize(cell[order], depth[order], num_cells))
    np.testing.assert_array_equal(shuffled < 0, first < 0)
    hit = first >= 0
    np.testing.assert_array_equal(depth[order][shuffled[hit]], depth[first[hit]])
    for where in np.flatnonzero(hit):
        ties = (cell[order] == where) & (depth[order] == depth[first[where]])
        assert shuffled[where] == np.flatnonzero(ties)[0]


def test_rasterize_points_never_lets_an_invalid_row_win():
    bad = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, -3.0], np.float32)
    cell = np.zeros(7, np.int32)
    assert rasterize(cell[:6], bad, 2).tolist() == [-1, -1]
    assert rasterize(cell, np.append(bad, 1e30).astype(np.float32), 2).tolist() == [6, -1]
    assert rasterize(np.array([-1, 2, 99], np.int32), np.ones(3, np.float32), 2).tolist() == [
        -1,
        -1,
    ]


def test_rasterize_points_under_vmap_equals_a_loop():
    cases = [make_arguments(SPECS["many_ties"], seed=s) for s in range(3)]
    cell, depth = np.stack([c[0] for c in cases]), np.stack([c[1] for c in cases])
    got = jax.jit(jax.vmap(lambda c, d: rasterize_points(c, d, 48)))(cell, depth)
    for row, (c, d, m) in zip(np.asarray(got), cases, strict=True):
        np.testing.assert_array_equal(row, slow_rasterize(c, d, m))


def test_rasterize_points_accepts_bfloat16_depths():
    cell, depth, m = make_arguments(SPECS["many_ties"], seed=5)
    narrow = jnp.asarray(depth, jnp.bfloat16)
    want = slow_rasterize(cell, np.asarray(narrow, np.float32), m)
    np.testing.assert_array_equal(np.asarray(rasterize_points(jnp.asarray(cell), narrow, m)), want)


def test_rasterize_points_gradient_reaches_winning_features_only():
    cell, depth, m = make_arguments(SPECS["many_ties"], seed=6)
    features = np.random.default_rng(1).normal(size=len(cell)).astype(np.float32)

    def total(features, depth):
        index = rasterize_points(jnp.asarray(cell), depth, m)
        return jnp.sum(jnp.where(index < 0, 0.0, features[index]) ** 2)

    by_feature, by_depth = jax.grad(total, (0, 1))(jnp.asarray(features), jnp.asarray(depth))
    winners = slow_rasterize(cell, depth, m)
    want = np.zeros_like(features)
    want[winners[winners >= 0]] = 2 * features[winners[winners >= 0]]
    np.testing.assert_allclose(by_feature, want, rtol=1e-6)
    np.testing.assert_array_equal(by_depth, 0)


@pytest.mark.parametrize(
    ("cell", "depth", "num_cells", "error", "words"),
    [
        (np.zeros(3, np.int32), np.ones(4, np.float32), 2, ValueError, "same .n."),
        (np.zeros((2, 2), np.int32), np.ones((2, 2), np.float32), 2, ValueError, "vmap"),
        (np.zeros(3, np.float32), np.ones(3, np.float32), 2, TypeError, "cell has dtype float32"),
        (np.zeros(3, np.int32), np.ones(3, np.int32), 2, TypeError, "depth has dtype int32"),
        (np.zeros(3, np.int32), np.ones(3, np.float32), -1, ValueError, "num_cells is -1"),
        (np.zeros(3, np.int32), np.ones(3, np.float32), 2.0, TypeError, "num_cells has type float"),
    ],
)
def test_rasterize_points_names_the_wrong_argument(cell, depth, num_cells, error, words):
    with pytest.raises(error, match=words):
        rasterize_points(cell, depth, num_cells)
