"""The `config.json` that others want beside the weights of each model.

Conventions: plain JSON; those of Diffusers and Transformers have what their `from_pretrained`
needs to rebuild the module. The release's say the sizes in its words.

Read next: `exports.py`.
"""

from collections.abc import Mapping
from typing import Any

from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.models.convert.layout import Layout
from mirage_jax.models.denoiser import DenoiserConfig
from mirage_jax.models.text_encoder import TextEncoderConfig


def denoiser_json(config: DenoiserConfig, layout: Layout) -> dict[str, Any]:
    """Return the config of a backbone, or of backbone and branch together.

    Raises:
      ValueError: if Diffusers has no class for such a model.
    """
    return _wan_model(config) if layout == "release" else _wan_transformer(config)


def autoencoder_json(
    config: AutoencoderConfig, mean: list[float], std: list[float]
) -> dict[str, Any]:
    """Return the config of `AutoencoderKLWan`, with the statistics of its latents."""
    return {
        "_class_name": "AutoencoderKLWan",
        "base_dim": config.encoder_width,
        "decoder_base_dim": config.decoder_width,
        "z_dim": config.latent_channels,
        "dim_mult": list(config.multipliers),
        "num_res_blocks": config.blocks,
        "attn_scales": [],
        "temperal_downsample": list(config.temporal_downsample),
        "dropout": 0.0,
        "latents_mean": mean,
        "latents_std": std,
        "is_residual": config.shortcuts,
        "in_channels": config.pixel_channels,
        "out_channels": config.pixel_channels,
        "patch_size": config.patch if config.patch > 1 else None,
        "scale_factor_temporal": config.temporal_stride,
        "scale_factor_spatial": config.spatial_stride,
    }


def text_encoder_json(config: TextEncoderConfig) -> dict[str, Any]:
    """Return the config of `UMT5EncoderModel`."""
    return {
        "architectures": ["UMT5EncoderModel"],
        "model_type": "umt5",
        "vocab_size": config.vocabulary,
        "d_model": config.width,
        "d_kv": config.attention_width // config.heads,
        "d_ff": config.mlp_width,
        "num_layers": config.layers,
        "num_heads": config.heads,
        "relative_attention_num_buckets": config.buckets,
        "relative_attention_max_distance": config.max_distance,
        "layer_norm_epsilon": config.eps,
        "feed_forward_proj": "gated-gelu",
        "dense_act_fn": "gelu_new",
        "is_gated_act": True,
    }


def _wan_model(config: DenoiserConfig) -> dict[str, Any]:
    branch: Mapping[str, Any] = {
        "vace_layers": list(config.branch_layers),
        "vace_in_dim": config.condition_channels,
    }
    return {
        "_class_name": "WanModel",
        "dim": config.width,
        "eps": config.eps,
        "ffn_dim": config.mlp_width,
        "freq_dim": config.time_frequencies,
        "in_dim": config.latent_channels,
        "num_heads": config.heads,
        "num_layers": config.layers,
        "out_dim": config.out_channels,
        "text_dim": config.text_width,
        **(branch if config.branch_layers else {}),
    }


def _wan_transformer(config: DenoiserConfig) -> dict[str, Any]:
    if not config.text_width or (config.branch_layers and config.branch_layers[0] != 0):
        raise ValueError(
            f"diffusers layout: got text_width {config.text_width} and branch_layers "
            f"{config.branch_layers}, expected a model with text whose branch, if any, begins at "
            "block 0, since Diffusers has no other; export it with --to release"
        )
    branch: Mapping[str, Any] = {
        "vace_layers": list(config.branch_layers),
        "vace_in_channels": config.condition_channels,
    }
    return {
        "_class_name": f"Wan{'VACE' if config.branch_layers else ''}Transformer3DModel",
        "patch_size": list(config.patch),
        "num_attention_heads": config.heads,
        "attention_head_dim": config.width // config.heads,
        "in_channels": config.latent_channels,
        "out_channels": config.out_channels,
        "text_dim": config.text_width,
        "freq_dim": config.time_frequencies,
        "ffn_dim": config.mlp_width,
        "num_layers": config.layers,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "eps": config.eps,
        "rope_max_seq_len": 1024,
        **(branch if config.branch_layers else {}),
    }
