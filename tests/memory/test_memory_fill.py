"""Properties of the hole-filled read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirage_jax.memory.fill import fill_holes

fill = jax.jit(fill_holes)
SHAPES = [(1, 1), (1, 7), (5, 13)]


@pytest.mark.parametrize("hw", SHAPES)
def test_known_cells_stay_exact_and_holes_stay_within_their_range(hw):
    rng = np.random.default_rng(0)
    tokens, known = rng.normal(size=(3, *hw, 4)).astype(np.float32), rng.random((3, *hw)) < 0.3
    known[:, 0, 0] = True
    filled = np.asarray(fill(np.where(known[..., None], tokens, np.nan), known))
    np.testing.assert_array_equal(filled[known], tokens[known])
    for one, mask, given in zip(filled, known, tokens, strict=True):
        assert (one <= given[mask].max(0) + 1e-5).all()
        assert (one >= given[mask].min(0) - 1e-5).all()


def test_a_constant_is_filled_with_itself_and_nothing_with_zero():
    known = np.random.default_rng(1).random((6, 8)) < 0.2
    filled = fill(jnp.full((6, 8, 2), 3.5), known)
    np.testing.assert_allclose(filled, 3.5, rtol=1e-6)
    np.testing.assert_array_equal(fill(jnp.full((6, 8, 2), 3.5), np.zeros((6, 8), bool)), 0)


def test_single_holes_in_a_smooth_field_are_filled_closely():
    v, u = np.mgrid[:12, :16].astype(np.float32)
    field = np.stack([u / 16, v / 12, (u + v) / 28], -1)
    known = np.random.default_rng(2).random((12, 16)) < 0.8
    error = np.abs(np.asarray(fill(jnp.asarray(field), known)) - field)
    assert error[~known].mean() < 0.05


def test_batches_are_filled_one_by_one_and_the_type_is_kept():
    rng = np.random.default_rng(3)
    tokens = jnp.asarray(rng.normal(size=(2, 3, 5, 6, 2)), jnp.bfloat16)
    known = rng.random((2, 3, 5, 6)) < 0.4
    filled = fill(tokens, known)
    assert filled.dtype == jnp.bfloat16
    alone = fill(tokens[1, 2], known[1, 2])
    np.testing.assert_array_equal(filled[1, 2], alone)
