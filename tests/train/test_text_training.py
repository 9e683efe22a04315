"""A denoiser that reads text trains from a text cache: captions reach its loss and validation."""

import functools
from pathlib import Path

import jax
import numpy as np
import pytest

from mirage_jax.data.captions import clip_captions
from mirage_jax.data.text_cache import TextSpec, add_texts
from mirage_jax.models import functional
from mirage_jax.prng import Purpose, key_for
from mirage_jax.train import config as config_lib
from mirage_jax.train import latent_files, stages
from mirage_jax.train import latents as latents_lib
from mirage_jax.train.denoiser_stage import DenoiserObjective
from mirage_jax.train.windows.scores import validation_windows

CONFIG = Path(__file__).parents[2] / "configs" / "procedural.py"
SPEC = TextSpec("encoder", 8, 6, "float32")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts")
    rng = np.random.default_rng(0)
    prompts = ("", "a red room", "a blue room")
    add_texts(path, SPEC, {p: rng.normal(size=(3, 6)).astype(np.float32) for p in prompts})
    return path


@pytest.fixture(scope="module")
def world(cache):
    overrides = {"data.num_clips": 2, "data.clip_frames": 17, "data.texts": str(cache)}
    overrides |= {"codec.width": 0, "chunk.latent_frames": 3, "chunk.preceding": 1}
    overrides |= {"denoiser.layers": 1, "denoiser.text_width": 6, "denoiser_train.batch": 2}
    overrides |= {"denoiser_train.windows.text_dropout": 0.0}
    # One kind of window is compiled, and the depth head and learned read are of no concern.
    overrides |= {"denoiser_train.windows.first_fraction": 1.0, "learned_read": None}
    return config_lib.replace(config_lib.load(str(CONFIG)), overrides)


@pytest.fixture(scope="module")
def clips(world):
    captions = ("a red room", "a blue room")
    return [
        clip | {"caption": caption}
        for clip, caption in zip(stages.open_split(world.data, "train"), captions, strict=True)
    ]


@pytest.fixture(scope="module")
def objective(world, clips, tmp_path_factory):
    params = functional.init(world.codec, key_for(0, 0, Purpose.INIT_CODEC))
    codec = latents_lib.CodecWeights(world.codec, params, "digest")
    latents = latent_files.encode_split(codec, clips, tmp_path_factory.mktemp("latents"))
    texts = stages.clip_texts(world, clip_captions(clips))
    windows = validation_windows(latents, clips, world.chunk, 2, texts)
    return DenoiserObjective(world, codec, latents, windows, texts=texts)


def test_captions_reach_the_loss(objective):
    params, fixed = objective.init()
    keys = jax.random.split(jax.random.key(0), 2)
    # The head starts at zero, which would hide everything before it.
    params["denoiser"]["head"]["linear"]["kernel"] += 0.1
    quick = {"xla_backend_optimization_level": 0}  # it is run twice: compiling is all it takes
    loss = jax.jit(functools.partial(objective.loss, params), compiler_options=quick)
    batch = objective.batch(0)
    assert batch["text"].shape == (2, 8, 6)
    losses, metrics = loss(fixed, batch, keys)
    swapped, other = loss(fixed, batch | {"text": batch["text"][::-1]}, keys)
    assert np.all(np.abs(swapped - losses) > 1e-4 * np.abs(losses))
    assert other["filled_visible"] == metrics["filled_visible"]


def test_validation_shows_every_clip_with_its_own_caption(objective, clips, world):
    texts = stages.clip_texts(world, clip_captions(clips))
    (first, is_first), (second, _) = objective._val.batches
    assert is_first
    np.testing.assert_array_equal(first["text"], texts.embed([0]))
    np.testing.assert_array_equal(second["text"], texts.embed([1]))


def test_a_checkpoint_belongs_to_the_encoder_of_its_texts(objective):
    assert objective.model["text"] == {"encoder": "encoder"}


def test_what_is_missing_for_text_is_named_before_training(world, clips):
    bare = config_lib.replace(world, {"data.texts": ""})
    with pytest.raises(ValueError, match=r"data\.texts.*mirage encode text"):
        stages.clip_texts(bare, [])
    with pytest.raises(ValueError, match="'a lake'"):
        stages.clip_texts(world, ["a red room", "a lake"])
    wide = config_lib.replace(world, {"denoiser.text_width": 12})
    with pytest.raises(ValueError, match="width 6, expected 12"):
        stages.clip_texts(wide, [])
    silent = config_lib.replace(world, {"denoiser.text_width": 0})
    assert stages.clip_texts(silent, []) is None
