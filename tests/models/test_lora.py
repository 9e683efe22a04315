"""LoRA: nothing at init, the merged kernel equals the two factors applied in turn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirage_jax.models import functional
from mirage_jax.models.adapted import adapted
from mirage_jax.models.denoiser import DenoiserConfig, FrameLayout
from mirage_jax.models.lora import LoraConfig, apply_lora, init_lora, remove_lora

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


ANY = [
    LoraConfig(rank=2, alpha=1.0),
    LoraConfig(rank=3, targets=r"branch/blocks/block/self_attn/[qv]|branch/before_proj"),
    LoraConfig(rank=2, targets=r".*(patch_embedding|head/linear|time_projection|inner)"),
]


@pytest.mark.parametrize("config", ANY, ids=["release", "branch", "outside"])
def test_a_lora_beside_the_kernels_of_any_module_equals_a_merged_one(params, config):
    rng = np.random.default_rng(0)
    # Zero projections would hide the branch and the head.
    lora, drawn = (
        jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), tree)
        for tree in (init_lora(config, params, jax.random.key(1)), params)
    )
    keys = jax.random.split(jax.random.key(2), 3)
    frames = FrameLayout(references=0, target=2, preceding=1)
    x = jax.random.normal(keys[0], (1, 3, 4, 4, 48))
    condition = jax.random.normal(keys[1], (1, 3, 4, 4, CONFIG.condition_channels))
    inputs = (x, jnp.full((1, 3), 300.0), condition, None, frames)
    merged = functional.apply(CONFIG, apply_lora(drawn, lora, config.scale), *inputs)
    beside = functional.unflatten(functional.flatten(drawn) | functional.flatten(lora))
    unmerged = functional.apply(adapted(CONFIG, config), beside, *inputs)
    plain = functional.apply(CONFIG, drawn, *inputs)
    np.testing.assert_allclose(unmerged, merged, rtol=1e-3, atol=1e-4)
    assert float(jnp.abs(merged - plain).max()) > 1e-2


@pytest.mark.parametrize(("dtype", "bits"), [("float32", 23), ("bfloat16", 7)])
def test_merge_and_unmerge_come_back_as_nearly_as_the_type_allows(params, lora, dtype, bits):
    before = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    merged = apply_lora(before, lora, 0.5)
    after = remove_lora(merged, lora, 0.5)
    moved = 0.0
    for a, m, b in zip(*(jax.tree.leaves(t) for t in (before, merged, after)), strict=True):
        a, m, b = (np.asarray(leaf, np.float64) for leaf in (a, m, b))
        bound = 2.0**-bits * np.maximum(np.abs(a), np.abs(m))
        assert np.all(np.abs(a - b) <= bound + 1e-9)
        moved = max(moved, float(np.abs(a - m).max()))
    assert moved > 0.1


def test_the_scale_is_alpha_over_rank_and_one_as_released():
    assert LoraConfig(rank=32).scale == 1.0
    assert LoraConfig(rank=64, alpha=64.0).scale == 1.0
    assert LoraConfig(rank=8, alpha=4.0).scale == 0.5
