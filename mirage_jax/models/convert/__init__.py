"""Weights of other people to our parameter trees and back, in memory and as files.

`layout.py` says what it means for a tensor to be ours or theirs; `denoiser.py`, `lora.py`,
`autoencoder.py` and `text_encoder.py` name every tensor of their model in both layouts; `sizes.py`
reads a model's config off its tensors; `sources.py` opens files of any kind without reading them,
and `stream.py` moves them tensor by tensor.
"""

from mirage_jax.models.convert.denoiser import denoiser_from_release, denoiser_to_release
from mirage_jax.models.convert.lora import lora_from_release, lora_to_release
from mirage_jax.models.convert.wrappers import strip_wrappers

__all__ = [
    "denoiser_from_release",
    "denoiser_to_release",
    "lora_from_release",
    "lora_to_release",
    "strip_wrappers",
]
