"""Weights of released Wan autoencoders to ours and back, by name.

Conventions: a released file is a flat mapping of names to arrays in PyTorch order (output channels
first), in one of two layouts: ``release`` (the names of Wan2.1/2.2 themselves) or ``diffusers``
(`AutoencoderKLWan`). Neither holds the statistics that latents are normalised with; they are
given beside, as `WAN21_STATISTICS` or `WAN22_STATISTICS`.

Read next: `layout.py` for how values are moved, `../autoencoder.py` for the model.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.models.convert.layout import (
    LAYOUTS,
    Entry,
    Form,
    Layout,
    check_entries,
    to_ours,
    to_theirs,
)
from mirage_jax.models.functional import Params, abstract_params, flatten

AUTOENCODER_MARKERS: Mapping[Layout, str] = {
    "release": r"^(encoder|decoder)\.conv1\.",
    "diffusers": r"^(encoder|decoder)\.conv_in\.",
}
STATISTICS_PATHS = (("latent_mean",), ("latent_std",))


class LatentStatistics(NamedTuple):
    """What latents are normalised with: mean and standard deviation of each channel [c]."""

    mean: Any
    std: Any


# fmt: off
WAN21_STATISTICS = LatentStatistics(
    mean=(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
          0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
    std=(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
         3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)
WAN22_STATISTICS = LatentStatistics(
    mean=(-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557,
          -0.1382, 0.0542, 0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825,
          -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
          -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230,
          -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748,
          0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667),
    std=(0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013,
         0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978,
         0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
         0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093,
         0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887,
         0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744),
)
# fmt: on


def params_from_release(
    config: AutoencoderConfig,
    tensors: Mapping[str, Any],
    statistics: LatentStatistics,
    *,
    layout: Layout = "release",
) -> Params:
    """Convert released weights.

    Args:
      config: Sizes of the released model, e.g. `autoencoder.WAN22`.
      tensors: Name -> array, as a safetensors file holds them.
      statistics: Mean and standard deviation of each latent channel.
      layout: ``release`` or ``diffusers``.

    Returns:
      Parameters of the autoencoder in float32.

    Raises:
      ValueError: Listing by name all arrays that are missing, unexpected or misshapen.
    """
    entries = autoencoder_entries(config, layout)
    shapes = flatten(abstract_params(config))
    check_entries(entries, shapes, tensors, what=f"autoencoder weights in {layout!r} layout")
    params = to_ours(entries, tensors, dtype=jnp.float32)
    return params | statistics_params(config, statistics)


def statistics_params(config: AutoencoderConfig, statistics: LatentStatistics) -> Params:
    """Return the parameters that the statistics of latents are with us, in float32.

    Raises:
      ValueError: if there is not one value a latent channel.
    """
    params = {"latent_mean": statistics.mean, "latent_std": statistics.std}
    params = {name: jnp.asarray(values, jnp.float32) for name, values in params.items()}
    for name, values in params.items():
        if values.shape != (config.latent_channels,):
            raise ValueError(
                f"{name} has the wrong shape - got {values.shape} - expected "
                f"({config.latent_channels},) - use the statistics of this autoencoder."
            )
    return params


def params_to_release(
    config: AutoencoderConfig, params: Params, *, layout: Layout = "release"
) -> dict[str, np.ndarray]:
    """Convert our weights to released names; the latent statistics are left out.

    Args:
      config: Sizes of the model.
      params: Its parameters.
      layout: ``release`` or ``diffusers``.

    Returns:
      Name -> array in PyTorch order.

    Raises:
      ValueError: If the layout is not known.
    """
    return to_theirs(autoencoder_entries(config, layout), flatten(params))


def autoencoder_entries(config: AutoencoderConfig, layout: Layout) -> list[Entry]:
    """Return an entry for every tensor of the autoencoder but the statistics of its latents.

    Raises:
      ValueError: if the layout is not known.
    """
    if layout not in LAYOUTS:
        raise ValueError(
            f"Weight layout is not known - got {layout!r} - expected one of {LAYOUTS} - "
            "pick one of them."
        )
    modules = dict(_modules(config, layout))
    leaves = flatten(abstract_params(config))
    return [_entry(p, modules[p[:-1]]) for p in leaves if p not in STATISTICS_PATHS]


def _entry(path: tuple[str, ...], module: str) -> Entry:
    """Name one parameter: arrays of one module differ by their last name and trailing ones."""
    kind, leaf = path[-2], path[-1]
    if leaf == "scale":
        # Norms of videos carry three axes of length 1, that of attention, on images, two.
        return Entry(f"{module}.gamma", path, None, Form(trailing=2 if kind == "norm" else 3))
    if leaf == "bias":
        return Entry(f"{module}.bias", path, None, Form())
    # Pointwise maps are 1x1x1 convolutions there, 1x1 in attention; time ones are 3x1x1.
    ones = {"moments_out": 3, "latents_in": 3, "shortcut": 3, "qkv": 2, "out": 2, "time": 2}
    form = Form(kernel=True, trailing=ones.get(kind, 0))
    return Entry(f"{module}.weight", path, None, form)


_RESIDUAL = {
    "release": {
        "norm1": "residual.0",
        "conv1": "residual.2",
        "norm2": "residual.3",
        "conv2": "residual.6",
        "shortcut": "shortcut",
    },
    "diffusers": {
        "norm1": "norm1",
        "conv1": "conv1",
        "norm2": "norm2",
        "conv2": "conv2",
        "shortcut": "conv_shortcut",
    },
}
_OUTSIDE = {
    "release": {"conv_in": "conv1", "norm_out": "head.0", "conv_out": "head.2"},
    "diffusers": {"conv_in": "conv_in", "norm_out": "norm_out", "conv_out": "conv_out"},
}
_MIDDLE = {
    "release": {"first": "middle.0", "attention": "middle.1", "last": "middle.2"},
    "diffusers": {
        "first": "mid_block.resnets.0",
        "attention": "mid_block.attentions.0",
        "last": "mid_block.resnets.1",
    },
}


def _modules(config: AutoencoderConfig, layout: Layout) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield (path of one of our modules, its name there), for all that hold arrays."""
    ends = ("conv1", "conv2") if layout == "release" else ("quant_conv", "post_quant_conv")
    yield from zip((("moments_out",), ("latents_in",)), ends, strict=True)
    for half in ("encoder", "decoder"):
        for ours, theirs in _OUTSIDE[layout].items():
            yield (half, ours), f"{half}.{theirs}"
        for ours, theirs in _MIDDLE[layout].items():
            path, name = (half, "middle", ours), f"{half}.{theirs}"
            if ours == "attention":
                for part, their_part in (("norm", "norm"), ("qkv", "to_qkv"), ("out", "proj")):
                    yield (*path, part), f"{name}.{their_part}"
            else:
                yield from _residual(path, name, layout)
        yield from _stages(config, half, layout)


def _stages(
    config: AutoencoderConfig, half: str, layout: Layout
) -> Iterator[tuple[tuple[str, ...], str]]:
    plans = config.encoder_plans if half == "encoder" else config.decoder_plans
    flat = 0  # running number of layers, where a layout does not nest them in stages
    for i, plan in enumerate(plans):
        stage = (half, "stages", str(i))
        block, resample = _stage_names(config, half, layout, i, flat)
        for j in range(plan.blocks):
            yield from _residual((*stage, "blocks", str(j)), block(j), layout)
        if plan.space > 1:
            name = resample(plan.blocks)
            yield (*stage, "resample", "space"), f"{name}.resample.1"
            yield (*stage, "resample", "time"), f"{name}.time_conv"
        flat += plan.blocks + (plan.space > 1)


def _stage_names(
    config: AutoencoderConfig, half: str, layout: Layout, stage: int, flat: int
) -> tuple[Any, Any]:
    """Names of block j and of the resampling of a stage, each as a function of its number."""
    down = half == "encoder"
    if layout == "release":
        part = "downsamples" if down else "upsamples"
        if config.shortcuts:
            nested = f"{half}.{part}.{stage}.{part}"
            return (lambda j: f"{nested}.{j}",) * 2
        return (lambda j: f"{half}.{part}.{flat + j}",) * 2
    if down and not config.shortcuts:
        return (lambda j: f"{half}.down_blocks.{flat + j}",) * 2
    name = f"{half}.{'down' if down else 'up'}_blocks.{stage}"
    sampler = "downsampler" if down else "upsampler" if config.shortcuts else "upsamplers.0"
    return lambda j: f"{name}.resnets.{j}", lambda j: f"{name}.{sampler}"


def _residual(
    path: tuple[str, ...], name: str, layout: str
) -> Iterator[tuple[tuple[str, ...], str]]:
    for ours, theirs in _RESIDUAL[layout].items():
        yield (*path, ours), f"{name}.{theirs}"
