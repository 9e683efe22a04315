"""Hand-written gradients against the derived ones of the plain formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirage_jax.models.products import bfloat16_product, plain_product


@pytest.fixture
def keys():
    return jax.random.split(jax.random.key(0), 4)


@pytest.mark.parametrize("lead", [(6,), (2, 3, 4)])
def test_bfloat16_product_equals_the_plain_one_to_its_rounding(keys, lead):
    x = jax.random.normal(keys[0], (*lead, 8))
    kernel = jax.random.normal(keys[1], (8, 5))
    weight = jax.random.normal(keys[2], (*lead, 5))

    def loss(product):
        return lambda x, kernel: jnp.sum(product(x, kernel) * weight)

    expected = jax.grad(loss(jnp.matmul), (0, 1))(x, kernel)
    got = jax.grad(loss(bfloat16_product), (0, 1))(x, kernel)
    for a, b in zip((bfloat16_product(x, kernel), *got), (x @ kernel, *expected), strict=True):
        assert a.dtype == jnp.float32
        assert float(jnp.linalg.norm((a - b).ravel()) / jnp.linalg.norm(b.ravel())) < 0.01
    exact = jnp.round(8 * x) / 8, jnp.round(8 * kernel) / 8
    np.testing.assert_array_equal(bfloat16_product(*exact), exact[0] @ exact[1])


@pytest.mark.parametrize("lead", [(), (6,), (2, 3, 4)])
def test_plain_product_equals_an_einsum_in_value_and_gradient(keys, lead):
    x, kernel = jax.random.normal(keys[0], (*lead, 8)), jax.random.normal(keys[1], (8, 5))
    weight = jax.random.normal(keys[2], (*lead, 5))

    def loss(product):
        return jax.value_and_grad(lambda x, kernel: jnp.sum(product(x, kernel) * weight), (0, 1))

    expected = loss(lambda x, kernel: jnp.einsum("...i,io->...o", x, kernel))(x, kernel)
    got = loss(plain_product)(x, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), got, expected)
