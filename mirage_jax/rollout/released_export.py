"""A world's folder to the layouts of others.

Conventions: what a file of `mirage convert` is, its header says; files of `mirage export` take
their config from `world.json`. Models that exist with us alone (codec, depth head, learned read)
have no other layout and are named.

Read next: `mirage_jax/models/convert/exports.py`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.models.convert.exports import ExportOptions, export_model, stored_model
from mirage_jax.models.convert.plan import FILES
from mirage_jax.models.denoiser import DenoiserConfig
from mirage_jax.models.tensor_file import stored_metadata
from mirage_jax.models.text_encoder import TextEncoderConfig
from mirage_jax.models.tokenizer import FILES as TOKENIZER_FILES
from mirage_jax.rollout.released import Progress
from mirage_jax.rollout.world import CONFIG_FILE, load_spec

_KNOWN = (DenoiserConfig, AutoencoderConfig, TextEncoderConfig)
_KINDS = {name: kind for kind, name in FILES.items()}


class StoredModel(NamedTuple):
    """A model in a folder: its file, what it is, and its config."""

    file: Path
    kind: str
    config: Any


def exportable_models(folder: Path) -> tuple[list[StoredModel], list[str]]:
    """Return the models of a folder that have a layout elsewhere, and notes about all others.

    Args:
        folder: a world, or what `mirage convert` wrote.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: a file is broken.
    """
    models, notes = [], []
    for file in sorted(folder.glob("*.safetensors")):
        kind, config = _described(file)
        if isinstance(config, _KNOWN):
            models.append(StoredModel(file, kind, config))
        else:
            notes.append(f"{file.name}: left out, no other layout knows such a model")
    if not models:
        raise FileNotFoundError(
            f"--from: {folder} has no models to export, expected a world's folder, or one that "
            "mirage convert wrote"
        )
    return models, notes


def export_folder(
    models: list[StoredModel], folder: Path, options: ExportOptions, progress: Progress
) -> list[Path]:
    """Export models, and the tokenizer beside them; returns the files with weights."""
    written: list[Path] = []
    for model in models:
        written += export_model(*model, folder, options, progress)
    for file in (models[0].file.parent / name for name in TOKENIZER_FILES):
        if file.is_file():
            (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / "tokenizer" / file.name)
    return written


def _described(file: Path) -> tuple[str, Any]:
    """Return kind and config of a file, from its header or the world's configs."""
    if "kind" in stored_metadata(file):
        return stored_model(file)
    kind = _KINDS.get(file.name, "")
    known = (file.parent / CONFIG_FILE).is_file()
    spec = load_spec(file.parent) if known else None
    return kind, getattr(spec, "denoiser" if kind == "lora" else kind, None)
