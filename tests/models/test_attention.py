"""Attention in blocks against the library's, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from mirage_jax.models import attention, attention_blocks, functional


def drawn(*shapes):
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return [3 * jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


# 1000 scores hold all heads together, one head, and 4 of 7 or 5 of 19 queries of one head.
@pytest.mark.parametrize(("n", "m"), [(7, 11), (19, 40), (7, 200), (19, 200)])
def test_blocks_equal_the_library_in_value_and_gradient(n, m, monkeypatch):
    monkeypatch.setattr(attention_blocks, "BLOCK_SCORES", 1000)
    q, k, v, weight = drawn((2, n, 3, 5), (2, m, 3, 5), (2, m, 3, 5), (2, n, 3, 5))

    def loss(attend):
        return jax.jit(
            jax.value_and_grad(lambda q, k, v: jnp.sum(attend(q, k, v) * weight), (0, 1, 2))
        )

    expected = loss(jax.nn.dot_product_attention)(q, k, v)
    got = loss(attention.blockwise_attention)(q, k, v)
    # Sharp softmaxes round: errors are measured by the largest entry, whatever the processor.
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5 * float(jnp.abs(b).max()))


def test_the_table_of_scores_is_never_held(monkeypatch):
    monkeypatch.setattr(attention_blocks, "BLOCK_SCORES", 2**12)
    x = jax.ShapeDtypeStruct((1, 512, 2, 4), jnp.float32)

    def working_bytes(attend):
        run = jax.jit(jax.grad(lambda q, k, v: attend(q, k, v).sum(), (0, 1, 2)))
        return run.lower(x, x, x).compile().memory_analysis().temp_size_in_bytes

    table = 4 * 2 * 512 * 512
    assert working_bytes(attention.blockwise_attention) < table / 4
    assert working_bytes(jax.nn.dot_product_attention) > table


def test_large_scores_stay_finite():
    q, k, v = drawn((1, 4, 1, 2), (1, 4, 1, 2), (1, 4, 1, 2))
    attend = attention.blockwise_attention
    gradient = jax.grad(lambda q: attend(1e4 * q, k, v).sum())(q)
    assert bool(jnp.isfinite(attend(1e4 * q, k, v)).all())
    assert bool(jnp.isfinite(gradient).all())


def test_half_precision_keeps_its_type():
    q, k, v = (
        part.astype(jnp.bfloat16) for part in drawn((1, 4, 1, 2), (1, 6, 1, 2), (1, 6, 1, 2))
    )
    assert attention.attend(q, k, v).dtype == jnp.bfloat16


def test_the_tpu_kernel_equals_plain_attention_where_lengths_need_padding(monkeypatch):
    monkeypatch.setattr(attention, "_TPU_BLOCK", 128)
    q, k, v, weight = drawn((1, 140, 1, 128), (1, 200, 1, 128), (1, 200, 1, 128), (1, 140, 1, 128))

    def both(attend):
        out, pull = jax.vjp(attend, q, k, v)
        return out, pull(weight)

    with pltpu.force_tpu_interpret_mode():
        got = both(attention._tpu_attention)
    expected = both(jax.nn.dot_product_attention)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), got, expected)


def test_a_program_lowered_for_a_tpu_takes_the_kernel_and_here_the_blocks(monkeypatch):
    monkeypatch.setattr(attention_blocks, "BLOCK_SCORES", 1000)
    x = jax.ShapeDtypeStruct((1, 512, 1, 128), jnp.bfloat16)
    traced = jax.jit(jax.grad(lambda q, k, v: attention.attend(q, k, v).sum())).trace(x, x, x)
    for platform, has_kernel in (("tpu", True), ("cpu", False), ("cuda", False)):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ("tpu_custom_call" in text) == has_kernel, platform


def test_a_mesh_that_is_set_takes_the_blocks_on_tpus_too(monkeypatch):
    monkeypatch.setattr(attention_blocks, "BLOCK_SCORES", 1000)
    q = jnp.zeros((1, 64, 1, 8))
    assert attention._fused_ways(q, q) == ("tpu",)
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((4,), ("data",))):
        assert attention._fused_ways(q, q) == ()


def test_what_dots_keeps_spares_the_backward_pass_a_second_forward_one():
    x = jax.ShapeDtypeStruct((1, 6, 2, 4), jnp.float32)

    def exponentials(remat):
        attend = functional.REMAT[remat](lambda x, _: attention.attend(x, x, x))
        return str(jax.make_jaxpr(jax.grad(lambda x: attend(x, 0).sum()))(x)).count(" exp ")

    assert exponentials("dots") == exponentials("none") == 2
    assert exponentials("full") == 3
