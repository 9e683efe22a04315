"""Row gather and row writes against NumPy, and their gradients against finite differences."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from mirage_jax.ops.gather_rows import gather_rows
from mirage_jax.ops.gather_rows.arg_specs import SPECS, make_arguments, make_unique
from mirage_jax.ops.put_rows import put_rows

SMALL = sorted(name for name, spec in SPECS.items() if spec.num_rows < 1000)
gather = jax.jit(gather_rows, static_argnums=(2, 3))
put = jax.jit(put_rows, static_argnums=3)


def numpy_gather(table, index, channels):
    rows = np.asarray(table).reshape(-1, channels)
    return np.stack([rows[i] if i >= 0 else np.zeros_like(rows[0]) for i in index.reshape(-1)])


def numpy_put(table, rows, index):
    flat = np.array(table).reshape(-1, rows.shape[1])
    for row, place in zip(rows, index, strict=True):
        if place >= 0:
            flat[place] = row
    return flat.reshape(table.shape)


@pytest.mark.parametrize("implementation", ["xla"])
@pytest.mark.parametrize("name", SMALL)
def test_gather_equals_numpy_bit_for_bit(name, implementation):
    table, index = make_arguments(SPECS[name], seed=1)
    got = gather(table, index, SPECS[name].channels, implementation)
    assert got.dtype == table.dtype
    np.testing.assert_array_equal(got, numpy_gather(table, index, SPECS[name].channels))


@pytest.mark.parametrize("implementation", ["xla"])
@pytest.mark.parametrize("name", SMALL)
def test_put_equals_numpy_bit_for_bit(name, implementation):
    table, rows, index = make_unique(SPECS[name], seed=1)
    got = put(table, rows, index, implementation)
    np.testing.assert_array_equal(got, numpy_put(table, rows, index))


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(index=st.lists(st.integers(-1, 11), min_size=6, max_size=6))
def test_any_index_gathers_what_numpy_gathers(index):
    table = np.arange(36, dtype=np.float32).reshape(3, 12)
    index = np.array(index, np.int32)
    np.testing.assert_array_equal(gather(table, index, 3, "xla"), numpy_gather(table, index, 3))


def test_put_then_gather_returns_the_rows():
    table, rows, index = make_unique(SPECS["tiny"], seed=2)
    back = gather(put(table, rows, index), index, SPECS["tiny"].channels)
    np.testing.assert_array_equal(back, np.where(index[:, None] >= 0, rows, 0))


def test_gather_takes_an_index_of_any_shape_and_empty_tables():
    table, index = make_arguments(SPECS["tiny"], seed=3)
    grid = gather(table, index.reshape(2, 4, 5), 16)
    np.testing.assert_array_equal(grid.reshape(40, 16), gather(table, index, 16))
    none = gather(np.zeros((0, 32), np.float32), np.full(3, -1, np.int32), 16)
    np.testing.assert_array_equal(none, np.zeros((3, 16)))


def test_vmap_equals_a_loop():
    cases = [make_unique(SPECS["tiny"], seed=s) for s in range(3)]
    table, rows, index = (np.stack(leaves) for leaves in zip(*cases, strict=True))
    taken = jax.vmap(lambda t, i: gather_rows(t, i, 16))(table, index)
    written = jax.vmap(put_rows)(table, rows, index)
    for one, (t, r, i) in enumerate(cases):
        np.testing.assert_array_equal(taken[one], numpy_gather(t, i, 16))
        np.testing.assert_array_equal(written[one], numpy_put(t, r, i))


def test_gradients_equal_finite_differences():
    table, index = make_arguments(SPECS["plain"], seed=4)
    index[:3] = 7  # one row several times
    check_grads(lambda t: gather_rows(t, index, 5) ** 2, (table,), order=1, modes=["rev"])
    table, rows, index = make_unique(SPECS["plain"], seed=4)
    check_grads(lambda t, r: put_rows(t, r, index) ** 2, (table, rows), order=1, modes=["rev"])


def test_gradient_of_a_row_taken_twice_is_the_sum_in_float32_also_for_bfloat16():
    table = jnp.ones((1, 4), jnp.bfloat16)
    index = np.zeros(300, np.int32)  # a running sum in bfloat16 would stop at 256
    gradient = jax.grad(lambda t: jnp.sum(gather_rows(t, index, 4).astype(jnp.float32)))(table)
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_array_equal(gradient.astype(jnp.float32), 300)


def test_put_works_in_place_on_a_donated_table():
    table, rows, index = make_unique(SPECS["lines"], seed=5)
    step = jax.jit(functools.partial(put_rows, implementation="xla"), donate_argnums=0)
    compiled = step.lower(jnp.asarray(table), rows, index).compile()
    assert compiled.memory_analysis().alias_size_in_bytes == table.nbytes


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: gather_rows(np.zeros((2, 7)), np.zeros(1, np.int32), 3), ValueError, "whole rows"),
        (lambda: gather_rows(np.zeros((2, 6)), np.zeros(1), 3), TypeError, "expected int32"),
        (
            lambda: put_rows(np.zeros((2, 6)), np.zeros((2, 3)), np.zeros(1, np.int32)),
            ValueError,
            "expected .m, c. and .m.",
        ),
        (
            lambda: put_rows(np.zeros((2, 6)), np.zeros((1, 3), "f4"), np.zeros(1, np.int32)),
            TypeError,
            "convert the rows",
        ),
        (
            lambda: gather_rows(np.zeros((2, 6)), np.zeros(1, np.int32), 3, "cuda"),
            ValueError,
            "implementation is 'cuda'",
        ),
    ],
)
def test_the_wrong_argument_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
