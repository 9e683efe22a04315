"""Released weights to a world's folder.

Conventions: a conversion is planned whole, from headers, before a byte is written; then each model
streams into its own file, and `world.json` comes last. Models that are already in the folder stay,
so a LoRA or a text encoder can be added later.

Read next: `mirage_jax/models/convert/plan.py` for the models, `released_export.py` for the way
back.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.models.convert import plan as planning
from mirage_jax.models.convert.exports import stored_model
from mirage_jax.models.convert.sources import open_source
from mirage_jax.models.denoiser import DenoiserConfig
from mirage_jax.models.tensor_file import stored_metadata
from mirage_jax.models.tokenizer import FILES as TOKENIZER_FILES
from mirage_jax.rollout.released_spec import released_spec
from mirage_jax.rollout.world import CONFIG_FILE, WorldSpec, load_spec, save_spec

Progress = Callable[[int], None]


@dataclasses.dataclass(frozen=True)
class Released:
    """Where released weights are, and what their tensors do not tell.

    Attributes:
        backbone: denoiser without or with its memory branch.
        branch: memory branch, where it is apart.
        lora: low-rank change of the denoiser.
        vae: autoencoder.
        text: text encoder.
        tokenizer: file or folder; None looks beside the text encoder.
        spec: configs of the world; None reads sizes off the tensors and runs as the release does.
        heads: attention heads; None takes them from `config.json` or assumes 128 channels each.
        branch_layers: blocks with hints; None takes them from `config.json` or spaces them evenly.
    """

    backbone: Path | None = None
    branch: Path | None = None
    lora: Path | None = None
    vae: Path | None = None
    text: Path | None = None
    tokenizer: Path | None = None
    spec: WorldSpec | None = None
    heads: int | None = None
    branch_layers: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Import:
    """A conversion that was checked whole.

    Attributes:
        plans: one for every model.
        spec: configs of the world, or None while it lacks its denoiser or autoencoder.
        tokenizer: file to copy, or None.
    """

    plans: tuple[planning.Plan, ...]
    spec: WorldSpec | None
    tokenizer: Path | None

    @property
    def nbytes(self) -> int:
        """Bytes that writing reads."""
        return sum(plan.nbytes for plan in self.plans)

    def files(self, folder: Path) -> list[Path]:
        """Return the files with weights that writing makes."""
        return [folder / planning.FILES[plan.kind] for plan in self.plans]


def plan_import(
    released: Released, folder: Path, frame_hw: tuple[int, int] | None = None
) -> Import:
    """Check everything that is to be converted.

    Args:
        released: the weights.
        folder: of the world, new or with models that stay.
        frame_hw: height and width of a frame in pixels, where no config says so.

    Returns:
        What `write_import` needs.

    Raises:
        FileNotFoundError: weights are not where they should be.
        ValueError: they do not fit; tensors that are missing, unexpected or misshapen are named.
    """
    spec = released.spec
    plans = []
    if released.branch and not released.backbone:
        raise ValueError(
            "--branch: got a memory branch alone, expected its backbone too, since both are one "
            "model here; give --backbone"
        )
    if released.backbone:
        plan = planning.plan_denoiser(
            open_source(released.backbone),
            open_source(released.branch) if released.branch else None,
            config=spec.denoiser if spec else None,
            heads=released.heads,
            branch_layers=released.branch_layers,
        )
        plans.append(plan)
    if released.lora:
        config = plans[0].config if plans else _adapted_config(folder, spec)
        plans.append(planning.plan_lora(open_source(released.lora), config))
    if released.vae:
        plans.append(planning.plan_autoencoder(open_source(released.vae), _codec_config(spec)))
    if released.text:
        plans.append(planning.plan_text_encoder(open_source(released.text)))
    configs = {plan.kind: plan.config for plan in plans}
    spec = _world_spec(configs, released, folder, frame_hw)
    return Import(tuple(plans), spec, _tokenizer(released))


def write_import(
    checked: Import, folder: Path, *, dtype: str | None = None, progress: Progress
) -> list[Path]:
    """Write a world's folder, `world.json` last.

    Args:
        checked: from `plan_import`.
        folder: of the world.
        dtype: of floating weights; None keeps theirs.
        progress: called with the number of bytes read, after each tensor.

    Returns:
        The files written.
    """
    written = [plan.write(folder, dtype=dtype, progress=progress) for plan in checked.plans]
    if file := checked.tokenizer:
        written.append(Path(shutil.copyfile(file, folder / file.name)))
    if checked.spec:
        written.append(save_spec(folder, checked.spec))
    return written


def folder_configs(folder: Path) -> dict[str, Any]:
    """Return kind -> config of the models that a folder holds in files of `mirage convert`."""
    found = {}
    for name in planning.FILES.values():
        if (folder / name).is_file() and "kind" in stored_metadata(folder / name):
            kind, config = stored_model(folder / name)
            found[kind] = config
    return found


def _world_spec(
    configs: dict[str, Any], released: Released, folder: Path, frame_hw: tuple[int, int] | None
) -> WorldSpec | None:
    """Return configs of the world if denoiser or autoencoder are new and neither is missing."""
    both = folder_configs(folder) | configs
    if configs.keys().isdisjoint({"denoiser", "codec"}) or not {"denoiser", "codec"} <= both.keys():
        return None
    if released.spec is None:
        return released_spec(folder.resolve().name, both["denoiser"], both["codec"], frame_hw)
    return dataclasses.replace(released.spec, denoiser=both["denoiser"], codec=both["codec"])


def _codec_config(spec: WorldSpec | None) -> AutoencoderConfig | None:
    if spec is not None and not isinstance(spec.codec, AutoencoderConfig):
        raise ValueError(
            "--vae: got released weights for a world with our own codec, expected a config with a "
            "released autoencoder; use configs/wan5b.py or leave --config out"
        )
    return spec.codec if spec else None  # type: ignore[return-value]


def _adapted_config(folder: Path, spec: WorldSpec | None) -> DenoiserConfig:
    """Return the config of the denoiser that a LoRA given alone belongs to."""
    config = folder_configs(folder).get("denoiser")
    if config is None and (folder / CONFIG_FILE).is_file():
        config = load_spec(folder).denoiser
    if config is None and spec is None:
        raise ValueError(
            "--lora: got a LoRA alone, expected the denoiser that it adapts; give --backbone or "
            "--config, or as --out a folder with a denoiser"
        )
    return config or spec.denoiser  # type: ignore[union-attr]


def _tokenizer(released: Released) -> Path | None:
    """Return the tokenizer's file: the one given, or one beside the text encoder."""
    places = [released.tokenizer] if released.tokenizer else []
    if not places and released.text:
        root = released.text if released.text.is_dir() else released.text.parent
        places = [root, root.parent / "tokenizer", root / "google" / "umt5-xxl"]
    files = [f for place in places for f in (place, *(place / name for name in TOKENIZER_FILES))]
    found = next((file for file in files if file.is_file()), None)
    if released.tokenizer and found is None:
        raise FileNotFoundError(
            f"--tokenizer: got {released.tokenizer}, expected one of {', '.join(TOKENIZER_FILES)} "
            "or a folder with one"
        )
    return found
