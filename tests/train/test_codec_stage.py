"""The codec stage trains an autoencoder of the Wan family and measures how its latents scale."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from mirage_jax.models import files, functional
from mirage_jax.train import config as config_lib
from mirage_jax.train.codec_stage import CodecObjective

CONFIG = Path(__file__).parents[2] / "configs/doom.py"


@pytest.fixture(scope="module")
def objective() -> CodecObjective:
    world = config_lib.load(f"{CONFIG}:wan21")
    sizes = {"encoder_width": 4, "decoder_width": 4, "multipliers": (1, 1, 1, 1)}
    codec = dataclasses.replace(world.codec, **sizes)
    small = {"crop_height": 16, "crop_width": 24, "batch": 2, "pca_clips": 24}
    stage = dataclasses.replace(world.codec_train, **small, validation_clips=1)
    rng = np.random.default_rng(0)
    clips = [{"rgb": rng.integers(0, 256, (17, 32, 48, 3), dtype=np.uint8)} for _ in range(3)]
    return CodecObjective(
        dataclasses.replace(world, codec=codec, codec_train=stage), clips, clips[:1]
    )


def test_every_part_of_an_autoencoder_learns_but_the_scale_of_its_latents(objective):
    params, fixed = objective.init()
    batch = objective.batch(0)
    losses, _ = objective.loss(params, fixed, batch, None)
    assert losses.shape == (2,)
    slope = jax.jit(jax.grad(lambda p: objective.loss(p, fixed, batch, None)[0].mean()))(params)
    still = {"/".join(k) for k, v in functional.flatten(slope).items() if not np.any(v)}
    assert not any(name.startswith(("decoder", "encoder/stages")) for name in still)
    assert set(objective.stage.frozen) == {"latent_mean", "latent_std"}


def test_the_exported_latents_have_mean_0_and_deviation_1_and_decode_as_before(objective, tmp_path):
    params, fixed = objective.init()
    (path,) = objective.export(params, fixed, 7, tmp_path)
    exported = files.load_params(path, objective.codec)
    crops = objective._pca_crops().astype(np.float32) / 127.5 - 1.0
    run = lambda p, method: functional.apply(objective.codec, p, crops, method=method)  # noqa: E731
    latents = np.asarray(run(exported, "encode")).reshape(-1, objective.codec.latent_channels)
    np.testing.assert_allclose(latents.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(latents.std(0), 1, atol=1e-3)
    # Drawn weights enlarge the rounding of the change of scale.
    np.testing.assert_allclose(run(exported, "__call__"), run(params, "__call__"), atol=3e-3)


def test_validation_prints_the_linear_codec_of_the_same_sizes_beside_it(objective):
    params, fixed = objective.init()
    scores = objective.validate(params, fixed, 0, None)
    assert set(scores) == {"psnr_first", "psnr_later", "pca_first", "pca_later"}
    # Fitted to these very frames, which drawn weights know nothing of.
    assert scores["pca_first"] > scores["psnr_first"]
