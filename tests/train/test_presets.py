"""The presets of released weights: sizes as published, conventions and recipes as stated."""

from pathlib import Path

import pytest

from mirage_jax.diffusion.config import SamplingConfig
from mirage_jax.models import functional
from mirage_jax.models.autoencoder import WAN21, WAN22
from mirage_jax.models.condition import RELEASE
from mirage_jax.models.config import release_chunk
from mirage_jax.train import config as config_lib

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
