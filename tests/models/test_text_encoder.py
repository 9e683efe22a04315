"""The text encoder against the public release, its sizes, its padding and its names."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from mirage_jax.models import functional
from mirage_jax.models.convert import text_encoder as convert
from mirage_jax.models.convert.layout import LAYOUTS
from mirage_jax.models.text_encoder import TextEncoderConfig, position_buckets

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def released():
    return load_file(GOLDEN / "text.safetensors")


@pytest.fixture(scope="module")
def config(released):
    return convert.text_encoder_config({name: value.shape for name, value in released.items()})


@pytest.fixture(scope="module")
def encode(config):
    return jax.jit(lambda params, ids, mask: functional.apply(config, params, ids, mask))


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "text.npz") as file:
        return dict(file)


def test_the_release_s_embeddings_come_out(released, config, encode, golden):
    params = convert.text_encoder_from_release(released, config, dtype=jnp.float32)
    got = np.asarray(encode(params, golden["ids"], golden["mask"]))
    error = np.abs(got - golden["emb"]).max() / np.abs(golden["emb"]).max()
    assert error < 1e-5
    assert not got[golden["mask"] == 0].any()


def test_half_precision_weights_give_nearly_the_same(released, config, golden):
    half = TextEncoderConfig(**{**vars(config), "dtype": "bfloat16"})
    params = convert.text_encoder_from_release(released, config, dtype=jnp.bfloat16)
    got = functional.apply(half, params, golden["ids"], golden["mask"])
    assert got.dtype == jnp.bfloat16
    difference = np.asarray(got, np.float32) - golden["emb"]
    assert np.sqrt(np.mean(difference**2) / np.mean(golden["emb"] ** 2)) < 0.03


def test_text_does_not_depend_on_what_stands_under_padding(released, config, encode, golden):
    params = convert.text_encoder_from_release(released, config, dtype=jnp.float32)
    ids, mask = golden["ids"], golden["mask"]
    plain = encode(params, ids, mask)
    np.testing.assert_array_equal(encode(params, np.where(mask, ids, 7), mask), plain)
    cut = ids[:1, :24], mask[:1, :24]
    np.testing.assert_allclose(encode(params, *cut), plain[:1, :24], atol=2e-5)


def test_sizes_are_read_off_the_shapes(config):
    expected = TextEncoderConfig(512, 64, 64, 128, heads=4, layers=3, buckets=32)
    assert config == expected


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_survive_a_round_trip_bit_for_bit(released, config, layout):
    params = convert.text_encoder_from_release(released, config)
    theirs = convert.text_encoder_to_release(params, config, layout=layout)
    shapes = {name: value.shape for name, value in theirs.items()}
    assert convert.text_encoder_config(shapes, layout=layout) == config
    again = convert.text_encoder_from_release(theirs, config, layout=layout)
    back = convert.text_encoder_to_release(again, config)
    assert back.keys() == released.keys()
    for name, value in released.items():
        np.testing.assert_array_equal(back[name], value, strict=True)


def test_a_token_table_under_its_second_name_is_taken(released, config):
    params = convert.text_encoder_from_release(released, config)
    theirs = convert.text_encoder_to_release(params, config, layout="diffusers")
    table = theirs["shared.weight"]
    for names in (
        {"encoder.embed_tokens.weight"},
        {"encoder.embed_tokens.weight", "shared.weight"},
    ):
        tensors = {k: v for k, v in theirs.items() if k != "shared.weight"}
        tensors |= dict.fromkeys(names, table)
        got = convert.text_encoder_from_release(tensors, config, layout="diffusers")
        np.testing.assert_array_equal(got["token_embedding"], table)


def test_wrong_tensors_are_all_named(released, config):
    tensors = dict(released)
    del tensors["norm.weight"]
    tensors["extra"] = tensors["blocks.0.norm1.weight"]
    tensors["blocks.1.attn.q.weight"] = tensors["blocks.1.attn.q.weight"][:3]
    with pytest.raises(ValueError, match=r"norm\.weight.*extra.*attn\.q\.weight: got \(3, 64\)"):
        convert.text_encoder_from_release(tensors, config)


def test_a_file_that_is_no_text_encoder_is_refused():
    with pytest.raises(ValueError, match=r"token_embedding\.weight is missing"):
        convert.text_encoder_config({"patch_embedding.weight": (4, 4)})


def test_position_buckets_follow_a_slow_count():
    """Buckets widen so that bucket 8 + j begins where 8 * 16 ** (j / 8) is passed."""
    got = position_buckets(200, 32, 128)
    for query, key in [
        (0, 0),
        (5, 3),
        (3, 5),
        (0, 7),
        (7, 0),
        (0, 8),
        (0, 199),
        (199, 0),
        (40, 61),
    ]:
        distance = abs(key - query)
        if distance < 8:
            expected = distance
        else:
            passed = [j for j in range(8) if distance >= 8 * 16 ** (j / 8) - 1e-9]
            expected = 8 + passed[-1]
        assert got[query, key] == expected + 16 * (key > query)


def test_the_default_is_umt5_xxl():
    """5.68 billion parameters, as published for the encoder of UMT5-XXL."""
    config = TextEncoderConfig()
    count = functional.count_params(functional.abstract_params(config))
    block = 4 * 4096 * 4096 + 3 * 4096 * 10240 + 2 * 4096 + 32 * 64
    assert count == 256384 * 4096 + 24 * block + 4096 == 5_680_910_336


def test_every_parameter_names_its_axes(config):
    axes = functional.flatten(functional.logical_axes(config))
    assert axes[("blocks", "attn", "q", "kernel")] == ("layers", "embed", "heads")
    assert axes[("blocks", "attn", "pos_embedding")] == ("layers", None, "heads")
    assert all(any(names) for names in axes.values())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"heads": 3}, "text_encoder.heads"),
        ({"buckets": 30}, "text_encoder.buckets"),
        ({"dtype": "float16"}, "text_encoder.dtype"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, match):
    with pytest.raises(ValueError, match=match):
        TextEncoderConfig(**change)
