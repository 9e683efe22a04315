"""Exports our parameter files to the layouts that others read, each with its `config.json`.

Conventions: `diffusers` is what `from_pretrained` loads: `transformer/`, `vae/`, `text_encoder/`
and `pytorch_lora_weights.safetensors`. `release` has the same models under the release's names:
`backbone/`, `branch/`, `vae/`, `text_encoder/`, `lora/`. Files above a size are cut into shards
with an index. Values keep their dtype.

Read next: `plan.py` for the way in, `stream.py` for the moving.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mirage_jax.config import from_dict
from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.models.convert.autoencoder import STATISTICS_PATHS, autoencoder_entries
from mirage_jax.models.convert.denoiser import denoiser_entries
from mirage_jax.models.convert.export_configs import (
    autoencoder_json,
    denoiser_json,
    text_encoder_json,
)
from mirage_jax.models.convert.layout import Entry, Layout
from mirage_jax.models.convert.lora import lora_export_entries
from mirage_jax.models.convert.stream import Progress, export_files
from mirage_jax.models.convert.text_encoder import text_encoder_entries
from mirage_jax.models.denoiser import DenoiserConfig
from mirage_jax.models.functional import Path as TreePath
from mirage_jax.models.functional import abstract_params, check_against, flatten
from mirage_jax.models.lora import LoraConfig
from mirage_jax.models.tensor_file import StoredTensor, stored_metadata, stored_tensors
from mirage_jax.models.text_encoder import TextEncoderConfig

_CONFIGS = {
    "denoiser": DenoiserConfig,
    "lora": DenoiserConfig,  # of the denoiser that it adapts
    "codec": AutoencoderConfig,
    "text_encoder": TextEncoderConfig,
}


class Target(NamedTuple):
    """One set of files to write: their stem, their tensors, and the config beside them."""

    stem: str
    entries: list[Entry]
    config: Mapping[str, Any] | None


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """How files are written.

    Attributes:
      layout: "release" or "diffusers".
      shard_bytes: largest size of a file; a LoRA is one file in any case.
      dtype: of floating tensors; None keeps them.
    """

    layout: Layout
    shard_bytes: int = 5 * 10**9
    dtype: str | None = None


def stored_model(path: Path) -> tuple[str, Any]:
    """Return kind and config that a file written by `mirage convert` has in its header.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it says neither, being of another origin.
    """
    header = stored_metadata(path)
    try:
        kind = header["kind"]
        return kind, from_dict(_CONFIGS[kind], json.loads(header["config"]))
    except (KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path}: its header does not say of what model it is ({error}), expected a file of "
            "mirage convert"
        ) from error


def export_model(
    source: Path, kind: str, config: Any, folder: Path, options: ExportOptions, progress: Progress
) -> list[Path]:
    """Export one file of ours.

    Args:
      source: our file.
      kind: "denoiser", "lora", "codec" or "text_encoder".
      config: of the model; for a LoRA, of the denoiser that it adapts.
      folder: to write into.
      options: layout, size of shards, dtype.
      progress: called with the number of bytes read, after each tensor.

    Returns:
      The files with weights.

    Raises:
      ValueError: if the file does not fit the config, or the model has no such layout.
    """
    stored = {tuple(name.split("/")): t for name, t in stored_tensors(source).items()}
    if kind != "lora":
        check_against(flatten(abstract_params(config)), stored, what=f"parameters in {source}")
    written: list[Path] = []
    for target in _targets(kind, config, options.layout, stored):
        stem = folder / target.stem
        written += export_files(
            stem,
            target.entries,
            source,
            shard_bytes=sys.maxsize if kind == "lora" else options.shard_bytes,  # loaders want one
            dtype=options.dtype,
            scale=_lora_scale(source) if kind == "lora" else 1.0,
            progress=progress,
        )
        if target.config is not None:
            text = json.dumps(target.config, indent=2)
            stem.with_name("config.json").write_text(text + "\n")
    return written


def _lora_scale(source: Path) -> float:
    """Return the scale of a LoRA: what training says in the header, 1 for a converted one."""
    stated = json.loads(stored_metadata(source).get("lora", "{}"))
    return from_dict(LoraConfig, stated).scale


def export_bytes(source: Path) -> int:
    """Return the bytes that exporting a file of ours reads."""
    return sum(tensor.nbytes for tensor in stored_tensors(source).values())


def _targets(
    kind: str, config: Any, layout: Layout, stored: Mapping[TreePath, StoredTensor]
) -> list[Target]:
    release = layout == "release"
    if kind == "denoiser":
        return _denoiser_targets(config, layout)
    if kind == "lora":
        stem = "lora/model" if release else "pytorch_lora_weights"
        return [Target(stem, lora_export_entries(stored, layout), None)]
    if kind == "text_encoder":
        entries = text_encoder_entries(config, layout)
        values = None if release else text_encoder_json(config)
        return [Target("text_encoder/model", entries, values)]
    mean, std = (stored[path].read().astype(float).tolist() for path in STATISTICS_PATHS)
    stem = "vae/model" if release else "vae/diffusion_pytorch_model"
    values = {"latents_mean": mean, "latents_std": std}
    if not release:
        values = autoencoder_json(config, mean, std)
    return [Target(stem, autoencoder_entries(config, layout), values)]


def _denoiser_targets(config: DenoiserConfig, layout: Layout) -> list[Target]:
    entries, values = denoiser_entries(config, layout), denoiser_json(config, layout)
    if layout == "diffusers":
        return [Target("transformer/diffusion_pytorch_model", entries, values)]
    backbone = [entry for entry in entries if entry.ours[0] != "branch"]
    branch = [entry for entry in entries if entry.ours[0] == "branch"]
    targets = [Target("backbone/diffusion_pytorch_model", backbone, values)]
    return targets + ([Target("branch/model", branch, None)] if branch else [])
