"""Estimates against what they estimate: trees of parameters, and what XLA says it needs."""

import dataclasses
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from click.testing import CliRunner

from mirage_jax import estimate
from mirage_jax.cli.main import cli
from mirage_jax.memory import state
from mirage_jax.models import attention_blocks, functional
from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.models.denoiser import DenoiserConfig, FrameLayout
from mirage_jax.train import config as config_lib
from mirage_jax.train import stages

CONFIGS = Path(__file__).parents[1] / "configs"
FACTOR = 1.5


def load(preset):
    name, variant = preset.split(":")
    return config_lib.load(f"{CONFIGS / name}.py:{variant}")


def tree_bytes(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def test_a_release_chunk_has_880_tokens_a_frame_and_15_frames():
    size = estimate.estimate_generation(load("wan5b:release"))
    assert size.frame_tokens == 22 * 40
    assert size.frames == {"target": 9, "preceding": 2, "reference": 4}
    assert size.sequence == 15 * 880
    assert size.parameters["denoiser"] == 7_606_865_088
    assert size.bytes["denoiser parameters"] == 2 * 7_606_865_088
    assert estimate.estimate_generation(load("wan14b:paper")).frame_tokens == 30 * 52


def test_parameters_gradients_and_moments_are_those_of_the_abstract_trees():
    world = load("wan5b:release")
    size = stages.estimate_stage(world, "branch")
    denoiser = functional.abstract_params(world.denoiser)
    branch = denoiser.pop("branch")
    assert size.bytes["parameters trained"] == tree_bytes(branch)
    assert size.bytes["gradients"] == tree_bytes(branch)
    assert size.bytes["moments"] == 2 * tree_bytes(branch) + 4  # two of AdamW, and a count
    assert size.bytes["parameters held fixed"] == tree_bytes(denoiser) // 2  # bfloat16
    assert size.bytes["moving average"] == 0
    assert size.total == sum(size.bytes.values())


def test_other_optimizers_take_less_and_micro_batches_fewer_activations():
    world = load("wan5b:release")
    sizes = {
        name: stages.estimate_stage(config_lib.replace(world, changes), "full").bytes
        for name, changes in {
            "adamw": {},
            "muon": {"full_train.optimizer": "muon"},
            "adafactor": {"full_train.optimizer": "adafactor"},
            "parts": {"full_train.batch": 8, "full_train.accumulate": 2},
        }.items()
    }
    assert 0.5 < sizes["muon"]["moments"] / sizes["adamw"]["moments"] < 0.52
    assert sizes["adafactor"]["moments"] < 0.01 * sizes["adamw"]["moments"]
    assert sizes["parts"]["activations"] == sizes["adamw"]["activations"]  # four rows at once


def test_the_latent_memory_is_counted_to_the_byte():
    config = state.MemoryConfig(capacity=100, channels=48, page_rows=16, token_dtype="bfloat16")
    assert estimate.memory_bytes(config) == tree_bytes(state.empty(config))


def within(estimated, measured):
    return 1 / FACTOR < estimated / measured < FACTOR


BASE = DenoiserConfig(
    width=128, heads=2, layers=4, mlp_width=512, branch_layers=(0, 2), condition_channels=49
)
KINDS = [
    {"remat": "none"},
    {"remat": "none", "attention": "library"},
    {"remat": "dots"},
    {"remat": "full"},
    {"remat": "full", "dtype": "bfloat16", "heads": 4},
]


@pytest.mark.parametrize("change", KINDS, ids=lambda change: "-".join(map(str, change.values())))
def test_activations_are_within_a_factor_of_what_xla_allocates(change):
    config, frames = dataclasses.replace(BASE, **change), FrameLayout(0, 3, 1)
    shapes = [(1, 4, 16, 16, 48), (1, 4), (1, 4, 16, 16, 49)]
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]

    def loss(params, x, timestep, condition):
        out = functional.apply(config, params, x, timestep, condition, None, frames)
        return jnp.mean(jnp.square(out))

    params, tokens = functional.abstract_params(config), 4 * 8 * 8
    compiled = jax.jit(jax.grad(loss)).lower(params, *inputs).compile()
    estimated = estimate.backward_bytes(config, tokens)
    estimated += estimate.score_bytes(config, tokens, backward=True)
    assert within(estimated, compiled.memory_analysis().temp_size_in_bytes)
    if config.remat == "full":
        compiled = jax.jit(loss).lower(params, *inputs).compile()
        estimated = estimate.forward_bytes(config, tokens) + estimate.score_bytes(config, tokens)
        assert within(estimated, compiled.memory_analysis().temp_size_in_bytes)


def test_attention_of_a_long_sequence_is_bounded_by_a_block_but_the_librarys_is_not():
    block = 4 * attention_blocks.BLOCK_SCORES
    library = dataclasses.replace(BASE, attention="library")
    assert estimate.score_bytes(BASE, 10_000, batch=8) == block
    assert estimate.score_bytes(BASE, 10_000, backward=True) == 3 * block
    assert estimate.score_bytes(library, 10_000) == 4 * 2 * 10_000**2
    size = stages.estimate_stage(load("wan5b:release"), "full")
    assert size.bytes["attention weights, of one block"] == 3 * block


def test_a_streamed_piece_of_the_codec_is_within_a_factor_of_what_xla_allocates():
    config = AutoencoderConfig(
        latent_channels=8, encoder_width=16, decoder_width=16, patch=1, shortcuts=False
    )
    latents = jax.ShapeDtypeStruct((1, 3, 8, 8, 8), jnp.float32)
    decode = jax.jit(lambda p, z: functional.apply(config, p, z, method="decode_streamed"))
    compiled = decode.lower(functional.abstract_params(config), latents).compile()
    measured = compiled.memory_analysis().temp_size_in_bytes
    assert within(estimate.codec_bytes(config, (8, 8)), measured)


def test_the_text_says_whether_it_fits():
    size = estimate.estimate_generation(load("wan5b:release"))
    assert "does NOT fit the device's 1.00 GiB" in size.text(2**30)
    assert f"fits the device's {math.ceil(size.total / 2**30) + 1:.2f} GiB" in size.text(
        (math.ceil(size.total / 2**30) + 1) * 2**30
    )
    assert "880 a latent frame x (9 target + 2 preceding + 4 reference) = 13,200" in size.text()


def test_plan_prints_every_stage_of_a_config():
    result = CliRunner().invoke(cli, ["plan", "--config", f"{CONFIGS}/wan14b.py:paper"])
    assert result.exit_code == 0, result.output
    for title in ("generate", *(f"train --stage {name}" for name in ("branch", "lora", "full"))):
        assert f"wan14b_paper: {title}" in result.output
    assert "denoiser 18,091,202,624" in result.output
