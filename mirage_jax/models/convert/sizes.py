"""Reads a model's config off the shapes of its released tensors.

Conventions: shapes say nearly everything. What they cannot say comes from the `config.json` beside
the weights (number of heads, blocks with hints) or is what all released models have: heads of 128
channels, hints after evenly spaced blocks.

Read next: `layout.py` for how the tensors are then checked against the config.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.models.convert.autoencoder import (
    AUTOENCODER_MARKERS,
    WAN21_STATISTICS,
    WAN22_STATISTICS,
    LatentStatistics,
)
from mirage_jax.models.convert.denoiser import (
    BACKBONE_MARKERS,
    BRANCH_MARKERS,
    count_layers,
    their_pattern,
)
from mirage_jax.models.convert.layout import layout_of
from mirage_jax.models.denoiser import DenoiserConfig

_HEAD_WIDTH = 128


def denoiser_config(
    tensors: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    heads: int | None = None,
    branch_layers: Sequence[int] | None = None,
) -> DenoiserConfig:
    """Return the sizes of backbone and, if there is one, memory branch.

    Args:
      tensors: name without wrappers -> anything with `.shape`.
      given: contents of a `config.json`, of Diffusers or of the release; may be empty.
      heads: attention heads; None takes them from `given` or assumes heads of 128 channels.
      branch_layers: blocks with hints; None takes them from `given` or spaces them evenly.

    Raises:
      ValueError: if a tensor that tells a size is missing, or the sizes fit no model.
    """
    layout = layout_of(tensors, BACKBONE_MARKERS, what="denoiser weights")
    branch = any(name.startswith("vace_") for name in tensors)

    def shape(path: str) -> tuple[int, ...]:
        return _shape(tensors, their_pattern(tuple(path.split("/")), layout).format(0))

    width, latent_channels, *patch = shape("patch_embedding/kernel")
    layers = count_layers(tensors, "blocks")
    hints = count_layers(tensors, "vace_blocks") if branch else 0
    given_layers = branch_layers if branch_layers is not None else given.get("vace_layers")
    has_text = any(re.search(r"^(condition_embedder\.)?text_embedd", name) for name in tensors)
    return DenoiserConfig(
        latent_channels=latent_channels,
        out_channels=shape("head/linear/kernel")[0] // math.prod(patch),
        width=width,
        heads=heads or _heads(width, given),
        layers=layers,
        mlp_width=shape("blocks/ffn/up/kernel")[0],
        text_width=shape("text_embedding/inner/kernel")[1] if has_text else 0,
        time_frequencies=shape("time_embedding/inner/kernel")[1],
        patch=tuple(patch),  # type: ignore[arg-type]
        branch_layers=_branch_layers(layers, hints, given_layers) if branch else (),
        condition_channels=_shape(tensors, "vace_patch_embedding.weight")[1] if branch else 0,
        eps=float(given.get("eps", 1e-6)),
    )


def has_branch(tensors: Mapping[str, Any]) -> bool:
    """Tell whether tensors hold a memory branch in a known layout."""
    return any(re.search(marker, n) for marker in BRANCH_MARKERS.values() for n in tensors)


class _Unit(NamedTuple):
    """One layer of a stage of the encoder: where it stands and how it ends."""

    place: tuple[float, float]
    kind: str
    channels: int


def autoencoder_config(tensors: Mapping[str, Any]) -> AutoencoderConfig:
    """Return the sizes of an autoencoder in either layout.

    Args:
      tensors: name without wrappers -> anything with `.shape`.

    Raises:
      ValueError: if a tensor that tells a size is missing, or the sizes fit no model.
    """
    layout = layout_of(tensors, AUTOENCODER_MARKERS, what="autoencoder weights")
    ends = ("conv1", "head.2", "conv2") if layout == "release" else ()
    first, last, latents = ends or ("conv_in", "conv_out", "post_quant_conv")
    encoder_width, pixels, *_ = _shape(tensors, f"encoder.{first}.weight")
    stages = _encoder_stages(tensors)
    multipliers = tuple(max(1, round(width / encoder_width)) for width, _, _ in stages)
    decoder_width = _shape(tensors, f"decoder.{last}.weight")[1] // multipliers[0]
    return AutoencoderConfig(
        latent_channels=_shape(tensors, f"{latents}.weight")[0],
        encoder_width=encoder_width,
        decoder_width=decoder_width,
        multipliers=multipliers,
        blocks=stages[0][1],
        temporal_downsample=tuple(time for _, _, time in stages[:-1]),
        patch=math.isqrt(pixels // 3),
        shortcuts=any(re.search(_NESTED, name) for name in tensors),
    )


def latent_statistics(channels: int, given: Mapping[str, Any]) -> LatentStatistics | None:
    """Return what latents of an autoencoder are normalised with, or None if that is not known.

    Args:
      channels: of a latent cell; 16 and 48 are those of Wan2.1 and Wan2.2.
      given: contents of a `config.json` of Diffusers; may be empty.
    """
    mean, std = given.get("latents_mean"), given.get("latents_std")
    if mean and std and len(mean) == len(std) == channels:
        return LatentStatistics(tuple(mean), tuple(std))
    return {16: WAN21_STATISTICS, 48: WAN22_STATISTICS}.get(channels)


# Stages that hold their own lists of layers: those of Wan2.2, which have shortcuts.
_NESTED = r"^encoder\.(downsamples\.\d+\.downsamples|down_blocks\.\d+\.resnets)\."
_UNIT = re.compile(
    r"encoder\.(?:downsamples|down_blocks)\.(\d+)"
    r"(?:\.(?:downsamples|resnets)\.(\d+)|(\.downsampler))?"
    r"\.(residual\.2|conv1|resample\.1|time_conv)\.weight"
)


def _encoder_stages(tensors: Mapping[str, Any]) -> list[tuple[int, int, bool]]:
    """Return (width, residual blocks, whether time is halved) of each stage, finest first."""
    units = []
    for name, tensor in tensors.items():
        if match := _UNIT.fullmatch(name):
            stage, inner, sampler, kind = match.groups()
            place = (float(stage), math.inf if sampler else float(inner or -1))
            units.append(_Unit(place, kind, tensor.shape[0]))
    times = {unit.place for unit in units if unit.kind == "time_conv"}
    stages: list[tuple[int, int, bool]] = []
    width = blocks = 0
    for unit in sorted(unit for unit in units if unit.kind != "time_conv"):
        if unit.kind == "resample.1":
            stages.append((width, blocks, unit.place in times))
            blocks = 0
        else:
            width, blocks = unit.channels, blocks + 1
    if not blocks:
        raise ValueError(
            "autoencoder weights: got an encoder without residual blocks in its last stage, "
            "expected the tensors of a Wan autoencoder; give all of its files"
        )
    return [*stages, (width, blocks, False)]


def _shape(tensors: Mapping[str, Any], name: str) -> tuple[int, ...]:
    if name not in tensors or len(tensors[name].shape) < 2:
        raise ValueError(
            f"cannot tell the sizes of the model: {name} is missing or has one axis, expected "
            "all tensors of the model; give all of its files"
        )
    return tuple(tensors[name].shape)


def _heads(width: int, given: Mapping[str, Any]) -> int:
    heads = given.get("num_attention_heads", given.get("num_heads"))
    if heads is None and width % _HEAD_WIDTH == 0:
        heads = width // _HEAD_WIDTH
    if not isinstance(heads, int):
        raise ValueError(
            f"heads: cannot tell the number of attention heads of a model of width {width}, which "
            f"is no multiple of {_HEAD_WIDTH}; give --heads, or the config.json of the weights"
        )
    return heads


def _branch_layers(layers: int, hints: int, given: Sequence[int] | None) -> tuple[int, ...]:
    if given is not None:
        if len(given) != hints:
            raise ValueError(
                f"branch_layers: got {len(given)} blocks {tuple(given)}, expected {hints}, one for "
                "each block of the memory branch; change --branch-layers"
            )
        return tuple(given)
    for step in range(1, layers + 1):
        spaced = tuple(range(0, layers, step))
        if len(spaced) == hints:
            return spaced
    raise ValueError(
        f"branch_layers: got a memory branch of {hints} blocks beside {layers}, expected a number "
        "that can be spaced evenly; give --branch-layers"
    )
