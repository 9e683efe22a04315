"""Reads a directory of release outputs: weights, sizes and arrays, in our layouts.

Conventions: nothing about sizes is assumed; they come from the JSON files or from the tensors.
Clips and latents become channel-last, weights float32.

Read next: `check.py` for who compares what.
"""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from mirage_jax.geometry.camera import Camera, rescale_intrinsics
from mirage_jax.models import convert, functional
from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.models.convert.autoencoder import LatentStatistics, params_from_release
from mirage_jax.models.convert.text_encoder import (
    text_encoder_config,
    text_encoder_from_release,
)
from mirage_jax.models.denoiser import DenoiserConfig
from mirage_jax.models.text_encoder import TextEncoderConfig


def arrays(directory: Path, name: str) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file as they are."""
    with np.load(directory / name) as archive:
        return dict(archive)


def channel_last(values: np.ndarray) -> np.ndarray:
    """Turn [b, c, t, h, w] into [b, t, h, w, c]."""
    return np.moveaxis(values, 1, -1)


def sizes(directory: Path, name: str) -> Any:
    """Return the contents of a JSON file."""
    return json.loads((directory / name).read_text())


@functools.lru_cache(maxsize=2)
def denoiser(directory: Path) -> tuple[DenoiserConfig, functional.Params]:
    """Return the denoiser with its memory branch: config and parameters."""
    given = sizes(directory, "denoiser.json")
    config = DenoiserConfig(
        latent_channels=given["in_dim"],
        out_channels=given["out_dim"],
        width=given["dim"],
        heads=given["num_heads"],
        layers=given["num_layers"],
        mlp_width=given["ffn_dim"],
        text_width=given["text_dim"],
        time_frequencies=given["freq_dim"],
        patch=tuple(given["patch_size"]),
        branch_layers=tuple(given["vace_layers"]),
        condition_channels=given["vace_in_dim"],
        eps=given["eps"],
    )
    weights = load_file(directory / "dit.safetensors") | load_file(directory / "vace.safetensors")
    return config, convert.denoiser_from_release(weights, config)


def lora(directory: Path) -> functional.Params:
    """Return the LoRA of the denoiser."""
    tensors = load_file(directory / "lora.safetensors")
    return convert.lora_from_release(tensors, denoiser(directory)[0])


@functools.lru_cache(maxsize=2)
def autoencoder(directory: Path) -> tuple[AutoencoderConfig, functional.Params]:
    """Return the autoencoder, with the latent statistics that the arrays come with."""
    given, stored = sizes(directory, "vae.json"), arrays(directory, "vae.npz")
    config = AutoencoderConfig(
        latent_channels=given["z_dim"],
        encoder_width=given["dim"],
        decoder_width=given["dec_dim"],
        multipliers=tuple(given["dim_mult"]),
        blocks=given["num_res_blocks"],
        temporal_downsample=tuple(given["temporal_downsample"]),
    )
    statistics = LatentStatistics(stored["mean"], stored["std"])
    return config, params_from_release(config, load_file(directory / "vae.safetensors"), statistics)


def text_encoder(directory: Path) -> tuple[TextEncoderConfig, functional.Params]:
    """Return the text encoder; its sizes are read off its tensors."""
    tensors = load_file(directory / "text.safetensors")
    shapes = {name: value.shape for name, value in tensors.items()}
    config = text_encoder_config(shapes)
    return config, text_encoder_from_release(tensors, config, dtype=np.float32)


def grid_cameras(directory: Path, frames: Any, hw: tuple[int, int]) -> Camera:
    """Return the cameras of some frames of `geometry.npz`, intrinsics in cells of an h x w grid."""
    clip = arrays(directory, "geometry.npz")
    picked = np.asarray(frames, int)
    matrix = rescale_intrinsics(clip["intrinsics"][picked], clip["depths"].shape[1:], hw)
    return Camera(clip["poses_c2w"][picked], matrix)
