"""A video run in pieces gives what it gives whole, in memory that does not grow with it."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_autoencoder import FAMILIES, TINY, clip, jit, random_params

from mirage_jax.models import functional
from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.models.autoencoder_blocks import Stream
from mirage_jax.models.autoencoder_pieces import decode_pieces, encode_pieces
from mirage_jax.models.convert.autoencoder import LatentStatistics, params_from_release

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


@pytest.fixture(autouse=True)
def _quick_compilation(monkeypatch):
    """Compile quickly in `autoencoder_pieces` too: these sizes run faster than they compile."""
    monkeypatch.setattr(jax, "jit", jit)


def cut_at_random(array, seed: int) -> list[np.ndarray]:
    """Cut along time at random places, some of them the same, which leaves pieces empty."""
    places = np.random.default_rng(seed).integers(0, array.shape[1] + 1, 5)
    return np.split(np.asarray(array), np.sort(places), axis=1)


def whole(config, params, x, method) -> np.ndarray:
    return np.asarray(jit(lambda p, x: functional.apply(config, p, x, method=method))(params, x))


def joined(pieces) -> np.ndarray:
    return np.concatenate([np.asarray(piece) for piece in pieces], axis=1)


def assert_same(got, expected):
    """Rounding differs as products of other sizes are summed in another order."""
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 5e-6 * np.abs(expected).max()


@pytest.mark.parametrize(("family", "frames", "groups"), [("wan21", 13, 1), ("wan22", 21, 3)])
def test_pieces_cut_anywhere_put_end_to_end_are_the_whole(family, frames, groups):
    config, params = FAMILIES[family], random_params(FAMILIES[family])
    video = clip(frames, seed=frames)
    latents = whole(config, params, video, "encode")
    got = joined(encode_pieces(config, params, cut_at_random(video, frames), groups=groups))
    assert_same(got, latents)
    pixels = whole(config, params, latents, "decode")
    got = joined(decode_pieces(config, params, cut_at_random(latents, frames), groups=groups))
    assert_same(got, pixels)


def test_pieces_are_the_whole_with_weights_of_the_release():
    sizes = json.loads((GOLDEN / "vae.json").read_text())
    config = AutoencoderConfig(
        latent_channels=sizes["z_dim"],
        encoder_width=sizes["dim"],
        decoder_width=sizes["dec_dim"],
        multipliers=tuple(sizes["dim_mult"]),
        blocks=sizes["num_res_blocks"],
        temporal_downsample=tuple(sizes["temporal_downsample"]),
    )
    with np.load(GOLDEN / "vae.npz") as file:
        statistics = LatentStatistics(file["mean"], file["std"])
        video, latents, pixels = (np.moveaxis(file[f"{n}17"], 1, -1) for n in "xzy")
    params = params_from_release(config, load_file(GOLDEN / "vae.safetensors"), statistics)
    got = joined(encode_pieces(config, params, [video]))
    assert np.abs(got - latents).max() < 1e-5 * np.abs(latents).max()
    got = joined(decode_pieces(config, params, [latents]))
    assert np.abs(got - pixels).max() < 1e-5 * np.abs(pixels).max()


def test_each_chunk_is_decoded_before_the_next_is_asked_for():
    asked = []

    def chunks():
        for chunk in range(3):
            asked.append(chunk)
            yield np.zeros((1, 2, 2, 4, TINY.latent_channels), np.float32)

    frames = decode_pieces(TINY, random_params(TINY), chunks())
    seen = [(next(frames).shape[1], len(asked)) for _ in range(6)]
    assert seen == [(1, 1), (4, 1), (4, 2), (4, 2), (4, 3), (4, 3)]


@pytest.mark.parametrize(
    ("method", "first", "later", "all_of_it"),
    [("encode", (1, 8, 16, 3), (4, 8, 16, 3), (65, 8, 16, 3)),
     ("decode", (1, 2, 4, 3), (1, 2, 4, 3), (17, 2, 4, 3))],
)  # fmt: skip
def test_memory_of_a_piece_is_that_of_a_piece_whatever_went_before(method, first, later, all_of_it):
    params = functional.abstract_params(TINY)
    first, later, all_of_it = (
        jax.ShapeDtypeStruct((1, *shape), jnp.float32) for shape in (first, later, all_of_it)
    )

    def step(params, piece, past=None):
        return functional.apply(TINY, params, piece, past, method=f"{method}_piece")

    def working_bytes(*args) -> int:
        memory = jit(step).lower(*args).compile().memory_analysis()
        return memory.temp_size_in_bytes + memory.argument_size_in_bytes

    _, past = jax.eval_shape(step, params, first)
    _, after = jax.eval_shape(step, params, later, past)
    assert past == after
    assert working_bytes(params, all_of_it) > 3 * working_bytes(params, later, after)


@pytest.mark.parametrize("frames", [3, 8])
def test_a_video_that_does_not_fill_its_groups_is_refused(frames):
    with pytest.raises(ValueError, match="later piece of video.*4n"):
        joined(encode_pieces(TINY, random_params(TINY), [clip(frames)]))


@pytest.mark.parametrize("family", ["wan21", "wan22"])
def test_stages_that_run_frame_by_frame_give_those_of_all_frames_in_less_memory(
    family, monkeypatch
):
    config, params = FAMILIES[family], random_params(FAMILIES[family])
    rng = np.random.default_rng(3)
    latents = rng.normal(size=(1, 4, 8, 8, config.latent_channels)).astype(np.float32)

    def compiled():
        def step(params, x, past):
            return functional.apply(config, params, x, past, method="decode_piece")

        _, past = jit(step)(params, latents[:, :1], None)
        later = jit(step).lower(params, latents[:, 1:], past).compile()
        frames, left = later(params, latents[:, 1:], past)
        return frames, left, later.memory_analysis().temp_size_in_bytes

    frames, left, size = compiled()
    monkeypatch.setattr(Stream, "frame_by_frame", lambda self, layers, x: layers(x, self))
    expected, expected_left, at_once = compiled()
    assert_same(np.asarray(frames), np.asarray(expected))
    for mine, other in zip(left, expected_left, strict=True):
        assert_same(np.asarray(mine), np.asarray(other))
    assert size < 0.7 * at_once
