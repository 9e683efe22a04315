"""Prompts to embeddings, and the command that caches them: the model's own rows, once each."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_text
from click.testing import CliRunner
from random_clips import SHAPE, random_clip

from mirage_jax.cli.main import cli
from mirage_jax.data.builder import SplitWriter
from mirage_jax.data.text_cache import open_texts
from mirage_jax.models import encode_text, functional

PROMPTS = ["a red door", "", "the camera turns left and walks back to the door of the cave", "sky"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return tiny_text.save_text_model(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def model(world):
    return encode_text.load_text_model(world)


def encode(*arguments):
    return CliRunner().invoke(cli, ["encode", "text", *map(str, arguments)])


def test_every_distinct_prompt_gets_the_rows_it_has_when_encoded_alone(model):
    encoded = dict(encode_text.encode_prompts(model, [*PROMPTS, "sky"], batch=3))
    assert encoded.keys() == set(PROMPTS)
    tokens = model.tokenizer(PROMPTS)
    for prompt, ids, mask in zip(PROMPTS, *tokens, strict=True):
        alone = functional.apply(model.config, model.params, ids[None, :48], mask[None, :48])[0]
        assert encoded[prompt].shape == (mask.sum(), tiny_text.CONFIG.width)
        np.testing.assert_allclose(encoded[prompt], alone[: mask.sum()], atol=1e-5)


def test_weights_keep_the_dtype_of_their_file(model):
    assert model.params["token_embedding"].dtype == jnp.bfloat16


def test_an_encoder_of_another_width_is_refused_before_its_weights_are_read(world):
    with pytest.raises(ValueError, match="width 16, expected 32"):
        encode_text.load_text_model(world, width=32)


def test_identity_follows_weights_and_tokenizer(model, world, tmp_path):
    other = tiny_text.save_text_model(tmp_path / "other", seed=1)
    (tmp_path / "spiece.model").write_bytes(tiny_text.sentencepiece_model())
    identities = {
        encode_text.load_text_model(*paths).identity
        for paths in ((world,), (other,), (world, tmp_path / "spiece.model"))
    }
    assert len(identities) == 3
    assert model.identity == encode_text.load_text_model(world).identity


def test_a_tokenizer_of_another_encoder_is_refused(model):
    class Foreign:
        length = 16

        def __call__(self, prompts):
            return encode_text.Tokens(np.full((1, 16), 64, np.int32), np.ones((1, 16), bool))

    wrong = encode_text.TextModel(model.config, model.params, Foreign(), "")
    with pytest.raises(ValueError, match="got token 64, expected ids below"):
        list(encode_text.encode_prompts(wrong, ["a"]))


@pytest.mark.parametrize("name", ["texts.safetensors", "texts"])
def test_the_command_fills_a_cache_and_skips_what_is_there(model, world, tmp_path, name):
    out, prompts = tmp_path / name, tmp_path / "prompts.txt"
    prompts.write_text(f"{PROMPTS[0]}\n{PROMPTS[2]}\n")
    always = ("--weights", world, "--out", out, "--store", "float32")
    first = encode(*always, "--prompt-file", prompts)
    assert first.exit_code == 0, first.output
    assert "3 prompts (3 new)" in first.output
    cache = open_texts(out, encoder=model.identity, width=16)
    expected = dict(encode_text.encode_prompts(model, PROMPTS))
    for prompt in PROMPTS[:3]:  # the empty one is always encoded
        np.testing.assert_allclose(cache.rows(prompt), expected[prompt], atol=1e-5)
    again = encode(*always, "--prompt", "sky", "--prompt", PROMPTS[0])
    assert "4 prompts (1 new)" in again.output
    np.testing.assert_allclose(open_texts(out).rows("sky"), expected["sky"], atol=1e-5)
    assert "4 prompts (0 new)" in encode(*always, "--prompt", "sky").output
    refused = encode(*always[:-1], "bfloat16", "--prompt", "lake")
    assert refused.exit_code == 2
    assert "dtype" in refused.output


def test_the_command_encodes_the_captions_of_a_data_set(world, tmp_path):
    writer = SplitWriter(tmp_path / "clips", "rooms", "train", 1, captions=True)
    writer.write_shard(0, [random_clip(n) | {"caption": PROMPTS[n]} for n in (0, 3)])
    writer.finish(SHAPE, "clips")
    out = tmp_path / "texts"
    done = encode("--weights", world, "--data", tmp_path / "clips", "--out", out)
    assert done.exit_code == 0, done.output
    assert set(open_texts(out)) == {"", PROMPTS[0], PROMPTS[3]}


def test_the_command_refuses_the_cache_of_another_encoder(world, tmp_path):
    other = tiny_text.save_text_model(tmp_path / "other", seed=1)
    out = tmp_path / "texts.safetensors"
    encode("--weights", world, "--prompt", "a", "--out", out)
    refused = encode("--weights", other, "--prompt", "b", "--out", out)
    assert refused.exit_code == 2
    assert "made by encoder" in refused.output


def test_the_command_names_what_is_missing(world, tmp_path):
    refused = encode("--weights", tmp_path, "--out", tmp_path / "t")
    assert refused.exit_code == 2
    assert "text_encoder.safetensors" in refused.output
    refused = encode("--weights", world, "--tokenizer", tmp_path / "no.json", "--out", tmp_path)
    assert refused.exit_code == 2
    assert "--tokenizer" in refused.output
