"""Costs of a chunk from configs alone, beside closed forms and what a rollout really keeps."""

import jax
import jax.numpy as jnp
import pytest

from mirage_jax.memory.files import nbytes
from mirage_jax.memory.state import MemoryConfig, empty
from mirage_jax.plan.chunk_costs import chunk_costs, products, row_bytes
from mirage_jax.plan.operations import rollout_chunk
from mirage_jax.train import config as config_lib


def count(function, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return products(jax.make_jaxpr(function)(*arguments).jaxpr)


def test_products_are_counted_wherever_they_stand():
    assert count(jnp.matmul, (3, 4), (4, 5)) == 2 * 3 * 4 * 5

    def conv(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    assert count(conv, (1, 6, 7, 2), (3, 3, 2, 8)) == 2 * 6 * 7 * 8 * 3 * 3 * 2
    in_a_loop = jax.jit(lambda x, w: jax.lax.scan(lambda h, _: (h @ w, None), x, None, length=5)[0])
    assert count(in_a_loop, (3, 4), (4, 4)) == 5 * 2 * 3 * 4 * 4


def test_a_row_takes_what_a_memory_counts_for_it():
    config = MemoryConfig(capacity=256, channels=6, token_dtype="bfloat16")
    one = empty(config)
    one = one._replace(filled=one.filled + 10)
    assert nbytes(one).used == 10 * row_bytes(config)


def test_an_rgb_cache_of_the_paper_s_world_costs_an_encode_more_and_keeps_more():
    world = config_lib.load("configs/wan5b.py:paper")
    costs = chunk_costs(world)
    assert costs.denoise == rollout_chunk(world)
    # xyz and rgb of 16 x 16 pixels beside a row of 48 channels.
    assert costs.cache_ratio == pytest.approx(256 * 15 / row_bytes(world.memory))
    assert costs.operations_ratio == pytest.approx(
        1 + costs.encode / (costs.denoise + costs.decode)
    )
    assert costs.decode > costs.encode > 0
