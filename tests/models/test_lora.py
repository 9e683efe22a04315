"""LoRA: nothing at init, the merged kernel equals the two factors applied in turn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirage_jax.models import functional
from mirage_jax.models.denoiser import DenoiserConfig
from mirage_jax.models.lora import LoraConfig, apply_lora, init_lora

CONFIG = DenoiserConfig(width=16, heads=2, layers=3, mlp_width=32, branch_layers=(0,))


@pytest.fixture(scope="module")
def params():
    return functional.init(CONFIG, 0)


@pytest.fixture(scope="module")
def lora(params):
    drawn = init_lora(LoraConfig(rank=2), params, jax.random.key(1))
    return jax.tree.map(lambda leaf: leaf + 0.3, drawn)


def test_a_fresh_lora_changes_nothing_and_spares_the_branch(params):
    fresh = init_lora(LoraConfig(rank=2), functional.abstract_params(CONFIG), jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, apply_lora(params, fresh), params)
    modules = {"/".join(path[:-1]) for path in functional.flatten(fresh)}
    assert modules == {f"blocks/self_attn/{p}" for p in "qkvo"} | {
        "blocks/ffn/up",
        "blocks/ffn/down",
    }


def test_merged_equals_unmerged_in_every_layer(params, lora):
    x = jax.random.normal(jax.random.key(2), (5, 16))
    merged = apply_lora(params, lora, 0.5)["blocks"]["ffn"]["up"]
    kernel, bias = (params["blocks"]["ffn"]["up"][name] for name in ("kernel", "bias"))
    factors = lora["blocks"]["ffn"]["up"]
    for layer in range(3):
        unmerged = (
            x @ kernel[layer] + bias[layer] + 0.5 * (x @ factors["a"][layer]) @ factors["b"][layer]
        )
        np.testing.assert_allclose(
            x @ merged["kernel"][layer] + merged["bias"][layer], unmerged, rtol=1e-4, atol=1e-5
        )


def test_scale_zero_switches_it_off_and_minus_one_undoes_it(params, lora):
    jax.tree.map(np.testing.assert_array_equal, apply_lora(params, lora, 0.0), params)
    undone = apply_lora(apply_lora(params, lora), lora, -1.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), undone, params)


def test_gradients_reach_both_factors(params, lora):
    def loss(lora):
        return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(apply_lora(params, lora)))

    assert all(float(jnp.abs(g).max()) > 0 for g in jax.tree.leaves(jax.grad(loss)(lora)))


def test_targets_that_match_nothing_and_foreign_modules_are_named(params, lora):
    with pytest.raises(ValueError, match="lora.targets: got 'blocks/nothing'"):
        init_lora(LoraConfig(targets="blocks/nothing"), params, jax.random.key(0))
    with pytest.raises(ValueError, match="LoRA module stranger"):
        apply_lora(params, {"stranger": lora["blocks"]["ffn"]["up"]})
    with pytest.raises(ValueError, match="LoRA module blocks/ffn/down: got a"):
        apply_lora(params, {"blocks": {"ffn": {"down": lora["blocks"]["ffn"]["up"]}}})
