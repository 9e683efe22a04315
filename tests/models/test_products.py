"""Hand-written gradients against the derived ones of the plain formulas."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirage_jax.models import functional
from mirage_jax.models.denoiser import DenoiserConfig, FrameLayout
from mirage_jax.models.products import bfloat16_product, plain_product, quantized_product


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


@pytest.mark.parametrize("lead", [(), (6,), (2, 3, 4)])
@pytest.mark.parametrize(("kind", "error"), [("int8", 0.02), ("float8", 0.08)])
def test_products_of_8_bits_equal_the_plain_one_to_their_rounding(keys, lead, kind, error):
    pytest.importorskip("qwix")
    # Rows and columns of very different size: a scale for each of them keeps the small ones.
    x = jax.random.normal(keys[0], (*lead, 64)) * 10.0 ** jax.random.normal(keys[2], (*lead, 1))
    kernel = jax.random.normal(keys[1], (64, 32)) * 10.0 ** jax.random.normal(keys[3], (32,))
    weight = jax.random.normal(keys[3], (*lead, 32))

    def loss(product):
        return lambda x, kernel: jnp.sum(product(x, kernel) * weight)

    def eight_bits(x, kernel):
        return quantized_product(x, kernel, kind)

    assert apart(eight_bits(x, kernel), x @ kernel) < error
    to_x, to_kernel = jax.grad(loss(eight_bits), (0, 1))(x, kernel)
    expected = jax.grad(loss(jnp.matmul), (0, 1))(x, kernel)
    assert apart(to_x, expected[0]) < 2 * error
    np.testing.assert_allclose(to_kernel, expected[1], rtol=1e-4, atol=1e-4)


def apart(a, b):
    """Return the median relative distance of rows, or of columns if that is larger."""
    flat = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    norms = [
        jnp.linalg.norm(flat[0] - flat[1], axis=i) / jnp.linalg.norm(flat[1], axis=i)
        for i in (0, 1)
    ]
    return max(float(jnp.median(norm)) for norm in norms)


@pytest.mark.parametrize(("kind", "types"), [("int8", ["i8"]), ("float8", ["f8E4M3FN", "f8E5M2"])])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_denoiser_multiplies_in_8_bits_forwards_and_backwards(kind, types, dtype):
    pytest.importorskip("qwix")
    config = DenoiserConfig(
        latent_channels=8,
        out_channels=8,
        width=32,
        heads=2,
        layers=2,
        mlp_width=64,
        branch_layers=(),
        condition_channels=0,
        time_frequencies=16,
        remat="dots",
        dtype=dtype,
        products=kind,
    )

    def loss(params, x, timestep):
        out = functional.apply(config, params, x, timestep, None, None, FrameLayout(target=2))
        return jnp.sum(jnp.square(out.astype(jnp.float32)))

    shapes = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 2, 4, 4, 8), (1, 2)))
    text = jax.jit(jax.grad(loss)).lower(functional.abstract_params(config), *shapes).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    for name in types:
        # Every block's projections and feed-forward net, forwards; all of these again backwards.
        assert sum(f"x{name}>" in line for line in products) >= 6, name


def test_products_of_8_bits_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "qwix", None)
    with pytest.raises(ValueError, match=r"denoiser.products: got 'int8'.*mirage-jax\[quant\]"):
        quantized_product(jnp.ones((2, 3)), jnp.ones((3, 4)), "int8")
