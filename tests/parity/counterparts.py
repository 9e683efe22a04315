"""Modules of Diffusers and Transformers with our weights: what tests and benchmarks compare.

Conventions: a `Pair` is built from one of our configs; the weights are drawn on their side, so that
nothing stays at an initial zero or one which would hide a mistake, and are converted to ours. Their
tensors are channel-first, ours channel-last: `to_theirs` and `to_ours` move the axis.

Read next: `tests/parity/test_transformer.py`, `benchmarks/model_speed.py`.
"""

import dataclasses
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel, WanVACETransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.models.convert import denoiser_from_release
from mirage_jax.models.convert.autoencoder import LatentStatistics, params_from_release
from mirage_jax.models.convert.text_encoder import text_encoder_from_release
from mirage_jax.models.denoiser import DenoiserConfig
from mirage_jax.models.functional import Params
from mirage_jax.models.text_encoder import TextEncoderConfig


@dataclasses.dataclass(frozen=True)
class Pair:
    """One model twice: our config and parameters, and the module of the other library."""

    config: Any
    params: Params
    theirs: torch.nn.Module


def denoiser_pair(config: DenoiserConfig, seed: int = 0) -> Pair:
    """Return `WanTransformer3DModel`, or its VACE variant where the config has a branch."""
    sizes = dict(
        patch_size=config.patch,
        num_attention_heads=config.heads,
        attention_head_dim=config.width // config.heads,
        in_channels=config.latent_channels,
        out_channels=config.out_channels,
        text_dim=config.text_width,
        freq_dim=config.time_frequencies,
        ffn_dim=config.mlp_width,
        num_layers=config.layers,
        eps=config.eps,
    )
    if config.branch_layers:
        theirs = WanVACETransformer3DModel(
            **sizes,
            vace_layers=list(config.branch_layers),
            vace_in_channels=config.condition_channels,
        )
    else:
        theirs = WanTransformer3DModel(**sizes)
    return Pair(config, denoiser_from_release(_drawn(theirs, seed), config), theirs)


def autoencoder_pair(config: AutoencoderConfig, seed: int = 0) -> Pair:
    """Return `AutoencoderKLWan` as Wan2.2 (with shortcuts) or Wan2.1 (without) sets it up.

    Its latents are not normalised, hence ours have mean 0 and deviation 1 here.
    """
    channels = config.latent_channels
    theirs = AutoencoderKLWan(
        base_dim=config.encoder_width,
        decoder_base_dim=config.decoder_width,
        z_dim=channels,
        dim_mult=list(config.multipliers),
        num_res_blocks=config.blocks,
        temperal_downsample=list(config.temporal_downsample),
        is_residual=config.shortcuts,
        in_channels=config.pixel_channels,
        out_channels=config.pixel_channels,
        patch_size=config.patch if config.patch > 1 else None,
    )
    statistics = LatentStatistics(np.zeros(channels), np.ones(channels))
    tensors = _drawn(theirs, seed)
    return Pair(
        config, params_from_release(config, tensors, statistics, layout="diffusers"), theirs
    )


def text_encoder_pair(config: TextEncoderConfig, seed: int = 0) -> Pair:
    """Return `UMT5EncoderModel`."""
    theirs = UMT5EncoderModel(
        UMT5Config(
            vocab_size=config.vocabulary,
            d_model=config.width,
            d_kv=config.attention_width // config.heads,
            d_ff=config.mlp_width,
            num_layers=config.layers,
            num_heads=config.heads,
            relative_attention_num_buckets=config.buckets,
            relative_attention_max_distance=config.max_distance,
            layer_norm_epsilon=config.eps,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
        )
    )
    tensors = _drawn(theirs, seed)
    return Pair(config, text_encoder_from_release(tensors, config, layout="diffusers"), theirs)


def to_theirs(array: Any) -> torch.Tensor:
    """Move channels from last to second and hand the array over."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.asarray(array), -1, 1)))


def to_ours(tensor: torch.Tensor) -> np.ndarray:
    """Undo `to_theirs`."""
    return np.moveaxis(tensor.detach().numpy(), 1, -1)


def relative_error(got: Any, expected: Any) -> float:
    """Return the largest difference over the largest magnitude expected.

    Raises:
      ValueError: If the shapes differ or `got` is not finite.
    """
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    if got.shape != expected.shape or not np.isfinite(got).all():
        raise ValueError(f"got {got.shape}, expected finite numbers of shape {expected.shape}")
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def _drawn(module: torch.nn.Module, seed: int) -> dict[str, np.ndarray]:
    """Shake every weight of `module` in place and return them by name."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            scale = 0.1 if weight.ndim < 2 else max(1, weight[0].numel()) ** -0.5
            start = weight if weight.ndim < 2 else torch.zeros(())
            weight.copy_(start + scale * torch.randn(weight.shape, generator=generator))
    module.eval().requires_grad_(True)
    return {name: value.numpy().copy() for name, value in module.state_dict().items()}
