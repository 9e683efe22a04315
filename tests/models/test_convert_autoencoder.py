"""Released autoencoder names and shapes, both ways."""

import json
import pathlib

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from mirage_jax.models import functional
from mirage_jax.models.autoencoder import WAN21, AutoencoderConfig
from mirage_jax.models.convert.autoencoder import (
    WAN21_STATISTICS,
    WAN22_STATISTICS,
    LatentStatistics,
    params_from_release,
    params_to_release,
)
from mirage_jax.models.convert.layout import LAYOUTS

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
SIZES = {"encoder_width": 4, "decoder_width": 4, "latent_channels": 3}
FAMILIES = {
    "wan22": AutoencoderConfig(**SIZES),
    "wan21": AutoencoderConfig(**SIZES, patch=1, shortcuts=False),
}


def numbered_params(config: AutoencoderConfig) -> functional.Params:
    """Fill every array with numbers of its own."""
    random = np.random.default_rng(0)
    shapes = functional.abstract_params(config)
    return jax.tree.map(lambda leaf: random.standard_normal(leaf.shape, np.float32), shapes)


def statistics(channels: int = 3) -> LatentStatistics:
    return LatentStatistics(np.arange(channels) / 10, np.arange(channels) + 1.0)


@pytest.fixture(scope="module")
def released() -> tuple[AutoencoderConfig, dict[str, np.ndarray]]:
    sizes = json.loads((GOLDEN / "vae.json").read_text())
    config = AutoencoderConfig(
        latent_channels=sizes["z_dim"],
        encoder_width=sizes["dim"],
        decoder_width=sizes["dec_dim"],
    )
    return config, load_file(GOLDEN / "vae.safetensors")


def test_release_weights_come_back_exactly(released):
    config, tensors = released
    params = params_from_release(config, tensors, statistics(48))
    back = params_to_release(config, params)
    assert back.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(back[name], array, err_msg=name)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_survives_export_and_import(family, layout):
    config = FAMILIES[family]
    params = numbered_params(config)
    params |= {"latent_mean": statistics().mean, "latent_std": statistics().std}
    exported = params_to_release(config, params, layout=layout)
    assert len(exported) == len(jax.tree.leaves(params)) - 2
    again = params_from_release(config, exported, statistics(), layout=layout)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), again, params)


@pytest.mark.parametrize(
    ("family", "layout", "names"),
    [
        (
            "wan21",
            "release",
            {
                "encoder.downsamples.5.time_conv.weight": (8, 8, 3, 1, 1),
                "decoder.upsamples.4.shortcut.weight": (16, 8, 1, 1, 1),
                "decoder.upsamples.11.resample.1.weight": (4, 8, 3, 3),
                "decoder.upsamples.14.residual.6.bias": (4,),
                "encoder.middle.1.norm.gamma": (16, 1, 1),
            },
        ),
        (
            "wan21",
            "diffusers",
            {
                "encoder.down_blocks.3.conv_shortcut.weight": (8, 4, 1, 1, 1),
                "decoder.up_blocks.0.upsamplers.0.time_conv.weight": (32, 16, 3, 1, 1),
                "decoder.mid_block.attentions.0.to_qkv.weight": (48, 16, 1, 1),
                "post_quant_conv.weight": (3, 3, 1, 1, 1),
            },
        ),
        (
            "wan22",
            "diffusers",
            {
                "encoder.down_blocks.1.downsampler.time_conv.weight": (8, 8, 3, 1, 1),
                "decoder.up_blocks.2.upsampler.resample.1.weight": (8, 8, 3, 3),
                "decoder.up_blocks.3.resnets.0.norm1.gamma": (8, 1, 1, 1),
                "encoder.conv_in.weight": (4, 12, 3, 3, 3),
            },
        ),
    ],
)
def test_names_and_shapes_are_those_of_the_layout(family, layout, names):
    config = FAMILIES[family]
    exported = params_to_release(config, numbered_params(config), layout=layout)
    assert {name: exported[name].shape for name in names} == names


def test_misfits_are_listed_by_name(released):
    config, tensors = released
    wrong = dict(tensors)
    del wrong["conv2.bias"]
    wrong["encoder.head.0.gamma"] = np.zeros((7, 1, 1, 1))
    wrong["decoder.extra"] = np.zeros(1)
    pattern = (
        r"missing \(1\): conv2\.bias; unexpected \(1\): decoder\.extra; "
        r"misshapen \(1\): encoder\.head\.0\.gamma"
    )
    with pytest.raises(ValueError, match=pattern):
        params_from_release(config, wrong, statistics(48))
    with pytest.raises(ValueError, match=r"latent_mean.*\(3,\).*\(48,\)"):
        params_from_release(config, tensors, statistics(3))
    with pytest.raises(ValueError, match=r"layout.*'torch'"):
        params_to_release(config, {}, layout="torch")


def test_released_statistics_have_one_positive_deviation_per_channel():
    for given, channels in ((WAN21_STATISTICS, WAN21.latent_channels), (WAN22_STATISTICS, 48)):
        assert len(given.mean) == len(given.std) == channels
        assert min(given.std) > 0
