"""The causal video autoencoder against the release's outputs and its own promises."""

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file
from tiny_autoencoder import FAMILIES, TINY, clip, jit, random_params

from mirage_jax.models import autoencoder_blocks, functional
from mirage_jax.models.autoencoder import WAN21, WAN22, AutoencoderConfig, patchify, unpatchify
from mirage_jax.models.convert.autoencoder import LatentStatistics, params_from_release

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    """The release's clips and latents, channel-last."""
    with np.load(GOLDEN / "vae.npz") as archive:
        return {k: np.moveaxis(v, 1, -1) if v.ndim == 5 else v for k, v in archive.items()}


@pytest.fixture(scope="module")
def released(golden) -> tuple[AutoencoderConfig, functional.Params]:
    sizes = json.loads((GOLDEN / "vae.json").read_text())
    config = AutoencoderConfig(
        latent_channels=sizes["z_dim"],
        encoder_width=sizes["dim"],
        decoder_width=sizes["dec_dim"],
        multipliers=tuple(sizes["dim_mult"]),
        blocks=sizes["num_res_blocks"],
        temporal_downsample=tuple(sizes["temporal_downsample"]),
    )
    statistics = LatentStatistics(golden["mean"], golden["std"])
    tensors = load_file(GOLDEN / "vae.safetensors")
    return config, params_from_release(config, tensors, statistics)


@functools.cache
def compiled(config: AutoencoderConfig, method: str):
    return jit(lambda p, x: functional.apply(config, p, x, method=method))


def call(config, params, x, method):
    return compiled(config, method)(params, x)


def assert_near(got, expected):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(got, expected, atol=1e-4 * scale)


@pytest.mark.parametrize("frames", [1, 5, 17])
def test_encode_and_decode_match_the_release(golden, released, frames):
    config, params = released
    video, latents = golden[f"x{frames}"], golden[f"z{frames}"]

    @jit
    def both(params, video, latents):
        encoded = functional.apply(config, params, video, method="encode")
        return encoded, functional.apply(config, params, latents, method="decode")

    encoded, decoded = both(params, video, latents)
    assert_near(encoded, latents)
    assert_near(decoded, golden[f"y{frames}"])


def test_streamed_equals_whole():
    config, params = TINY, random_params(TINY)
    video = clip(9)
    latents = call(config, params, video, "encode")
    assert_near(call(config, params, video, "encode_streamed"), latents)
    whole = call(config, params, latents, "decode")
    assert_near(call(config, params, latents, "decode_streamed"), whole)
    stride = config.spatial_stride
    assert latents.shape == (1, 3, 8 // stride, 16 // stride, 3)
    assert whole.shape == video.shape


@pytest.mark.parametrize("family", FAMILIES)
def test_later_frames_never_change_earlier_ones(family):
    config = FAMILIES[family]
    params = random_params(config)
    video = clip(9)
    changed = video.at[:, 5:].set(clip(4, seed=1))
    before, after = (call(config, params, v, "encode") for v in (video, changed))
    np.testing.assert_array_equal(before[:, :2], after[:, :2])
    assert jnp.abs(before[:, 2] - after[:, 2]).min() > 0
    shown = [call(config, params, z, "decode") for z in (before, after)]
    np.testing.assert_array_equal(shown[0][:, :5], shown[1][:, :5])


def test_first_frame_is_coded_as_a_picture_alone():
    params = random_params(TINY)
    video = clip(9)
    latents = call(TINY, params, video, "encode")
    assert_near(call(TINY, params, video[:, :1], "encode"), latents[:, :1])
    still = call(TINY, params, latents[:, :1], "decode")
    assert_near(still, call(TINY, params, latents, "decode")[:, :1])


def test_latents_are_normalised_by_the_stored_statistics():
    params = random_params(TINY)
    video = clip(9)
    mean, log_variance = call(TINY, params, video, "moments")
    assert log_variance.shape == mean.shape
    np.testing.assert_allclose(call(TINY, params, video, "encode"), mean, atol=1e-6)
    shifted = params | {"latent_mean": jnp.full(3, 2.0), "latent_std": jnp.full(3, 4.0)}
    latents = call(TINY, shifted, video, "encode")
    np.testing.assert_allclose(latents, (mean - 2) / 4, atol=1e-6)
    assert_near(call(TINY, shifted, latents, "decode"), call(TINY, params, mean, "decode"))


def test_gradient_reaches_every_weight():
    params = random_params(TINY)
    video = clip(9)

    def loss(params):
        mean, log_variance = functional.apply(TINY, params, video, method="moments")
        return jnp.square(functional.apply(TINY, params, video) - video).mean() + (
            jnp.square(mean).mean() + jnp.square(log_variance).mean()
        )

    slopes = functional.flatten(jit(jax.grad(loss))(params))
    idle = {path for path, slope in slopes.items() if not jnp.abs(slope).max() > 0}
    assert idle == {("latent_mean",), ("latent_std",)}  # they cancel in a reconstruction


def test_half_precision_keeps_its_type_and_stays_close():
    params = random_params(TINY)
    full = call(TINY, params, clip(9), "encode")
    half = call(TINY, params, clip(9).astype(jnp.bfloat16), "encode")
    assert half.dtype == jnp.bfloat16
    assert jnp.abs(half.astype(jnp.float32) - full).mean() < 0.1 * jnp.abs(full).mean()


def test_patches_are_ordered_by_colour_then_column_then_row():
    video = np.random.default_rng(0).standard_normal((1, 2, 4, 6, 3))
    patched = patchify(video, 2)
    assert patched.shape == (1, 2, 2, 3, 12)
    for colour, column, row in np.ndindex(3, 2, 2):
        expected = video[:, :, row::2, column::2, colour]
        np.testing.assert_array_equal(patched[..., 4 * colour + 2 * column + row], expected)
    np.testing.assert_array_equal(unpatchify(patched, 2), video)


def test_average_down_is_the_mean_over_blocks_when_all_fold_into_one_channel():
    x = np.random.default_rng(0).standard_normal((1, 4, 4, 6, 2)).astype(np.float32)
    small = autoencoder_blocks.average_down(x, 1, time=2, space=2, starts=False)
    blocks = x.reshape(1, 2, 2, 2, 2, 3, 2, 2)
    np.testing.assert_allclose(small[..., 0], blocks.mean(axis=(2, 4, 6, 7)), atol=1e-6)
    start = autoencoder_blocks.average_down(x[:, :3], 1, time=2, space=2, starts=True)
    alone = x[:, 0].reshape(1, 2, 2, 3, 2, 2).mean(axis=(2, 4, 5)) / 2
    np.testing.assert_allclose(start[:, 0, ..., 0], alone, atol=1e-6)


def test_duplicate_up_repeats_places_when_channels_stay():
    x = np.random.default_rng(0).standard_normal((1, 2, 2, 3, 2)).astype(np.float32)
    big = autoencoder_blocks.duplicate_up(x, 2, time=2, space=2, starts=False)
    np.testing.assert_array_equal(big, x.repeat(2, 1).repeat(2, 2).repeat(2, 3))
    start = autoencoder_blocks.duplicate_up(x, 2, time=2, space=2, starts=True)
    np.testing.assert_array_equal(start, big[:, 1:])


def test_causal_convolution_equals_a_padded_3d_convolution():
    conv = autoencoder_blocks.CausalConv(2, 3, rngs=nnx.Rngs(params=0))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 4, 5, 6, 2)), jnp.float32)
    expected = jax.lax.conv_general_dilated(
        x,
        conv.kernel[...],
        (1, 1, 1),
        ((2, 0), (1, 1), (1, 1)),
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    )
    got = conv(x, autoencoder_blocks.Stream(None))
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "strides", "count"),
    [(WAN22, (16, 4), 704_688_668), (WAN21, (8, 4), 126_892_531)],
)
def test_full_sizes_have_the_strides_and_parameters_of_the_released_models(config, strides, count):
    assert (config.spatial_stride, config.temporal_stride) == strides
    params = functional.abstract_params(config)
    statistics = 2 * config.latent_channels  # kept beside the released files, not in them
    assert functional.count_params(params) == count + statistics


@pytest.mark.parametrize("frames", [2, 4, 6, 0])
def test_wrong_frame_counts_are_named_with_the_cure(frames):
    with pytest.raises(ValueError, match=rf"video.*{frames} frames.*1 \+ 4n.*cut it to"):
        functional.apply(TINY, random_params(TINY), clip(frames), method="encode")


def test_wrong_sizes_are_named_before_anything_runs():
    params = random_params(TINY)
    with pytest.raises(ValueError, match=r"16x20.*multiples of 8"):
        functional.apply(TINY, params, clip(1, 16, 20), method="encode_streamed")
    with pytest.raises(ValueError, match=r"video.*\[b, f, H, W, 3\]"):
        functional.apply(TINY, params, clip(1)[0], method="moments")
    with pytest.raises(ValueError, match=r"latents.*, 3\] with t >= 1"):
        functional.apply(TINY, params, jnp.zeros((1, 1, 2, 2, 5)), method="decode")


@pytest.mark.parametrize(
    ("field", "value"),
    [("temporal_downsample", (True,)), ("multipliers", (1, 3, 5)), ("blocks", 0), ("patch", 0)],
)
def test_config_names_the_wrong_field(field, value):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(TINY, **{field: value})
