"""Released weights: exact round trips, any wrapping of names, mistakes named."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from mirage_jax.models import convert, functional
from mirage_jax.models.denoiser import DenoiserConfig

GOLDEN = Path(__file__).parents[1] / "golden"
CONFIG = DenoiserConfig(
    width=48,
    heads=2,
    layers=4,
    mlp_width=96,
    text_width=32,
    branch_layers=(0, 2),
    condition_channels=96,
)


@pytest.fixture(scope="module")
def backbone():
    return load_file(GOLDEN / "dit.safetensors")


@pytest.fixture(scope="module")
def branch():
    return load_file(GOLDEN / "vace.safetensors")


@pytest.fixture(scope="module")
def lora():
    return load_file(GOLDEN / "lora.safetensors")


@pytest.mark.parametrize("dtype", [None, jnp.float32])
def test_released_weights_survive_a_round_trip_bit_for_bit(backbone, branch, dtype):
    params = convert.denoiser_from_release(backbone | branch, CONFIG, dtype=dtype)
    back = convert.denoiser_to_release(params, CONFIG, dtype=jnp.float16)
    _assert_same(back, backbone | branch)


def test_our_weights_survive_a_round_trip_bit_for_bit():
    params = functional.init(CONFIG, 0)
    released = convert.denoiser_to_release(params, CONFIG)
    again = convert.denoiser_from_release(released, CONFIG)
    jax.tree.map(np.testing.assert_array_equal, params, again)


def test_a_lora_survives_a_round_trip_bit_for_bit(lora):
    _assert_same(convert.lora_to_release(convert.lora_from_release(lora, CONFIG)), lora)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: {f"vace.{k}": v for k, v in t.items()},
        lambda t: {f"module.model.pipe.vace.{k}": v for k, v in t.items()},
        lambda t: {f"model.module.{k}": v for k, v in t.items()},
        lambda t: {"vace": t},
        lambda t: {"generator.vace": {f"module.{k}": v for k, v in t.items()}},
        lambda t: {"generator": {"vace": t}},
    ],
)
def test_branch_weights_load_from_any_nesting_of_prefixes_and_dicts(backbone, branch, wrap):
    expected = convert.denoiser_from_release(backbone | branch, CONFIG)
    got = convert.denoiser_from_release(backbone | wrap(branch), CONFIG)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


@pytest.mark.parametrize(
    "rename",
    [
        lambda n: n.removeprefix("pipe.dit."),
        lambda n: n.replace("pipe.dit.", "base_model.model."),
        lambda n: n.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default."),
        lambda n: f"base_model.model.{n}".replace(".weight", ".default.weight"),
    ],
)
def test_lora_loads_under_every_published_spelling(lora, rename):
    expected = convert.lora_from_release(lora, CONFIG)
    got = convert.lora_from_release({rename(n): v for n, v in lora.items()}, CONFIG)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_missing_unexpected_and_misshapen_tensors_are_named(backbone, branch):
    tensors = backbone | branch
    name = "blocks.2.ffn.0.weight"
    with pytest.raises(ValueError, match=rf"missing \(1\): {name}"):
        convert.denoiser_from_release({k: v for k, v in tensors.items() if k != name}, CONFIG)
    with pytest.raises(ValueError, match=r"unexpected \(1\): blocks.9.stray"):
        convert.denoiser_from_release(tensors | {"blocks.9.stray": np.zeros(1)}, CONFIG)
    with pytest.raises(ValueError, match=rf"{name}: got \(48, 96\), expected \(96, 48\)"):
        convert.denoiser_from_release(tensors | {name: tensors[name].T}, CONFIG)
    with pytest.raises(ValueError, match=r"missing .* vace_blocks.\{0-1\}.after_proj.bias"):
        convert.denoiser_from_release(backbone, CONFIG)


def test_a_lora_that_lacks_a_block_or_is_for_another_model_is_named(lora):
    name = "pipe.dit.blocks.1.ffn.2.lora_B.weight"
    with pytest.raises(ValueError, match=r"missing \(1\): blocks.1.ffn.2.lora_B.weight"):
        convert.lora_from_release({k: v for k, v in lora.items() if k != name}, CONFIG)
    with pytest.raises(ValueError, match="unexpected .* blocks.7.ffn.2.lora_B.weight"):
        convert.lora_from_release(lora | {name.replace(".1.", ".7."): lora[name]}, CONFIG)


def test_two_models_in_one_mapping_are_refused(branch):
    with pytest.raises(ValueError, match="appears twice"):
        convert.strip_wrappers(branch | {f"module.{k}": v for k, v in branch.items()})


def _assert_same(got, expected):
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].dtype == value.dtype, name
        np.testing.assert_array_equal(got[name], value, err_msg=name)
