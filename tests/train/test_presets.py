"""The presets of released weights: sizes as published, conventions and recipes as stated."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from blank_latents import blank_latents

from mirage_jax.diffusion.config import SamplingConfig
from mirage_jax.models import functional
from mirage_jax.models.autoencoder import WAN21, WAN22
from mirage_jax.models.condition import RELEASE
from mirage_jax.models.config import release_chunk
from mirage_jax.models.text_encoder import TextEncoderConfig
from mirage_jax.train import config as config_lib
from mirage_jax.train import tuning
from mirage_jax.train.denoiser_stage import DenoiserObjective
from mirage_jax.train.latents import CodecWeights
from mirage_jax.train.optimizer import make_optimizer
from mirage_jax.train.state import new_state
from mirage_jax.train.step import make_step
from mirage_jax.train.windows.scores import ValidationWindows

CONFIGS = Path(__file__).parents[2] / "configs"
PRESETS = [f"{size}:{variant}" for size in ("wan5b", "wan14b") for variant in ("release", "paper")]

# Sums of `numel` over the parameters of Diffusers 0.42 modules on the meta device.
# WanTransformer3DModel with the sizes of Wan2.2-TI2V-5B, and with its defaults (Wan2.1-T2V-14B):
BACKBONE = {"wan5b": 4_999_787_712, "wan14b": 14_288_491_584}
# WanVACETransformer3DModel of the same sizes, the parameters whose names begin with "vace", with
# vace_layers and vace_in_channels of the variant (blocks 0, 2, 4 ... and 2 c channels; blocks 0, 4,
# 8 ... and c + 1):
BRANCH = {
    "wan5b:release": 2_607_077_376,
    "wan5b:paper": 1_394_821_120,
    "wan14b:release": 7_579_156_480,
    "wan14b:paper": 3_802_711_040,
}
# AutoencoderKLWan with its defaults (Wan2.1) and with the sizes of Wan2.2-TI2V-5B:
AUTOENCODER = {"wan5b": 704_688_668, "wan14b": 126_892_531}
# UMT5EncoderModel of Transformers 5.24 with the sizes of google/umt5-xxl:
TEXT_ENCODER = 5_680_910_336


def load(preset: str) -> config_lib.WorldConfig:
    name, variant = preset.split(":")
    return config_lib.load(f"{CONFIGS / name}.py:{variant}")


def count(params) -> int:
    return functional.count_params(params)


@pytest.mark.parametrize("preset", PRESETS)
def test_parameter_counts_are_the_public_ones(preset):
    world, size = load(preset), preset.split(":")[0]
    denoiser = functional.abstract_params(world.denoiser)
    branch = denoiser.pop("branch")
    assert count(denoiser) == BACKBONE[size]
    assert count(branch) == BRANCH[preset]
    codec = functional.abstract_params(world.codec)
    # The mean and deviation of latents are parameters here, and configuration over there.
    assert count(codec) - 2 * world.codec.latent_channels == AUTOENCODER[size]


def test_the_text_encoder_has_the_public_size():
    assert count(functional.abstract_params(TextEncoderConfig())) == TEXT_ENCODER


def test_codecs_are_the_released_autoencoders():
    assert load("wan5b:release").codec == WAN22
    assert load("wan14b:paper").codec == WAN21
    assert load("wan5b:paper").grid_hw == (44, 80)
    assert load("wan14b:paper").grid_hw == (60, 104)


def test_variants_differ_in_conventions_and_recipe():
    release, paper = load("wan5b:release"), load("wan5b:paper")
    assert release.denoiser.branch_layers == tuple(range(0, 30, 2))
    assert paper.denoiser.branch_layers == (0, 4, 8, 12, 16, 20, 24, 28)
    assert (release.condition.score, release.condition.visibility) == (48, False)
    assert (paper.condition.score, paper.condition.visibility) == (0, True)
    assert (release.memory.half_cell, paper.memory.half_cell) == (False, True)
    assert (release.sampling.steps, paper.sampling.steps) == (20, 40)
    assert release.chunk == release_chunk()
    assert release.condition == RELEASE
    assert release.sampling == SamplingConfig(steps=20, integer_timesteps=True)
    rates = {
        name: (world.branch_train.learning_rate, world.lora_train.learning_rate)
        for name, world in (("release", release), ("paper", paper))
    }
    assert rates == {"release": (1e-5, 1e-5), "paper": (1e-5, 1e-4)}
    for world, decay, betas, batch in (
        (release, 1e-2, (0.9, 0.999), 4),
        (paper, 1e-3, (0, 0.999), 64),
    ):
        for stage in (world.branch_train, world.lora_train, world.full_train):
            assert (stage.weight_decay, stage.beta1, stage.beta2) == (decay, *betas)
            assert stage.batch == batch
            assert (stage.flow.shift, stage.flow.shared_fraction) == (5.0, 0.0)
            assert stage.windows.text_dropout == (0.1 if world is release else 0.2)
        assert world.lora_train.lora.rank == 32
        assert world.lora_train.lora.scale == 1.0
        assert world.lora_train.trainable == ()


def test_an_unknown_variant_is_refused_by_name():
    with pytest.raises(ValueError, match="got variant 'relase', expected one of"):
        load("wan5b:relase")


def abstract_step(world, name):
    """Trace a whole update of a stage; return the split parameters, both states and the metrics."""
    nothing = ValidationWindows([], [], [], 1)
    codec = CodecWeights(world.codec, {}, "")
    objective = DenoiserObjective(world, codec, blank_latents(world), nothing, name=name)
    stage = objective.stage = dataclasses.replace(objective.stage, batch=4)
    frames = world.chunk.latent_frames + world.chunk.preceding
    score = (frames, *world.grid_hw, world.condition.score)
    objective.constants = {"score": jnp.zeros(score)} if world.condition.score else {}
    batch = objective.batch(0)
    batch["text"] = jax.ShapeDtypeStruct((4, 512, world.denoiser.text_width), jnp.bfloat16)
    params = {"denoiser": functional.abstract_params(world.denoiser)}
    parts = jax.eval_shape(lambda p: tuning.split(p, stage, jax.random.key(0)), params)
    optimizer = make_optimizer(stage, parts.trained)
    average = stage.ema_decay > 0
    before = jax.eval_shape(lambda p: new_state(p, optimizer, average=average), parts.trained)
    step = make_step(objective.loss, optimizer, stage, 0)
    after, metrics = jax.eval_shape(step, before, parts.fixed, batch)
    return parts, before, after, metrics


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ["branch", "lora", "full"])
def test_an_update_of_every_stage_is_traced_at_full_size(preset, name):
    world, size = load(preset), preset.split(":")[0]
    parts, before, after, metrics = abstract_step(world, name)
    # Rank 32 on the projections of both attentions [d, d] and the feed-forward net [d, m].
    d, m = world.denoiser.width, world.denoiser.mlp_width
    lora = world.denoiser.layers * 32 * (8 * 2 * d + 2 * (d + m))
    whole = BACKBONE[size] + BRANCH[preset]
    trained = {"branch": BRANCH[preset], "lora": lora, "full": whole}[name]
    fixed = {"branch": BACKBONE[size], "lora": whole, "full": 0}[name]
    assert count(parts.trained) == trained
    assert count(parts.fixed) == fixed
    assert {leaf.dtype.name for leaf in jax.tree.leaves(parts.fixed)} <= {"bfloat16"}
    assert count(before.opt_state) == 2 * trained + 1
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), before) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), after
    )
    assert metrics["loss"].shape == ()
