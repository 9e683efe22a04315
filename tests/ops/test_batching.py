"""Operations of a batch, as kernels run them, against the plain ones under `jax.vmap`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirage_jax.ops.batching import one_by_one, rows_of_one_table
from mirage_jax.ops.gather_rows import reference as gather
from mirage_jax.ops.put_rows import reference as put

C, LINE_ROWS, LINES, ROWS = 3, 4, 5, 6


def draw(size):
    rng = np.random.default_rng(size)
    table = rng.normal(size=(size, LINES, LINE_ROWS * C)).astype(np.float32)
    rows = rng.normal(size=(size, ROWS, C)).astype(np.float32)
    index = np.stack([rng.permutation(LINES * LINE_ROWS)[:ROWS] for _ in range(size)])
    index[:, 2] = -1
    return jnp.asarray(table), jnp.asarray(rows), jnp.asarray(index, jnp.int32)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("shared", ["nothing", "table", "index"])
def test_rows_of_a_batch_are_those_of_each_table(size, shared):
    table, rows, index = draw(size)
    table = table[0] if shared == "table" else table
    index = index[0] if shared == "index" else index
    axes = [None if shared == name else 0 for name in ("table", "rows", "index")]

    def take(table, index):
        return gather.gather_rows(table, index, C)

    long = rows_of_one_table(take, C, puts=False)
    got = jax.vmap(long, in_axes=(axes[0], axes[2]))(table, index)
    want = jax.vmap(take, in_axes=(axes[0], axes[2]))(table, index)
    np.testing.assert_array_equal(got, want)
    long = rows_of_one_table(put.put_rows, C, puts=True)
    got = jax.vmap(long, in_axes=axes)(table, rows, index)
    np.testing.assert_array_equal(got, jax.vmap(put.put_rows, in_axes=axes)(table, rows, index))


@pytest.mark.parametrize("size", [1, 3])
def test_a_batch_one_by_one_equals_all_at_once(size):
    table, rows, _ = draw(size)

    def function(tree, scale):
        return {"sum": tree["table"].sum() * scale, "rows": tree["rows"][::-1]}

    axes = ({"table": 0, "rows": 0}, None)
    arguments = ({"table": table, "rows": rows}, jnp.float32(2))
    got = jax.jit(jax.vmap(one_by_one(function), in_axes=axes))(*arguments)
    want = jax.vmap(function, in_axes=axes)(*arguments)
    np.testing.assert_allclose(got["sum"], want["sum"], rtol=1e-6)
    np.testing.assert_array_equal(got["rows"], want["rows"])
