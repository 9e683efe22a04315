"""Compares forward passes of a world's models with those of Diffusers on the same weights.

Conventions: each model is exported to a temporary folder, run there by Diffusers in a process of
its own (`diffusers_forward.py`, the only file that imports torch), and here by ours, both in
float32 on a tiny random input. The error is the largest difference over the largest value. One
model is in memory at a time, in float32. Steps of the solver and memory are no part of this.

Read next: `mirage_jax/models/convert/exports.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mirage_jax.models import files, functional
from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.models.convert.exports import ExportOptions
from mirage_jax.models.denoiser import DenoiserConfig, FrameLayout
from mirage_jax.models.lora import apply_lora
from mirage_jax.models.text_encoder import TextEncoderConfig
from mirage_jax.rollout.released_export import StoredModel, export_folder, exportable_models

_SCRIPT = Path(__file__).with_name("diffusers_forward.py")
_FRAMES, _ROWS, _COLUMNS, _WORDS = 3, 4, 6, 7  # of the tiny input; rows and columns in tokens
Arrays = Mapping[str, Any]


class Comparison(NamedTuple):
    """What was compared, and by how much it differs."""

    name: str
    error: float


def compare_folder(folder: Path) -> Iterator[Comparison]:
    """Compare every model of a world that Diffusers has, one after the other.

    Args:
        folder: a world, or what `mirage convert` wrote.

    Yields:
        The worst relative error of each output.

    Raises:
        ValueError: torch, diffusers or transformers are not installed, or Diffusers fails.
    """
    models, _ = exportable_models(folder)
    for model in models:
        run, inputs = _OURS[model.kind], _INPUTS[model.kind](model.config)
        exported = [model]
        if model.kind == "lora":
            exported += [m for m in models if m.kind == "denoiser"]
        theirs = _run_diffusers(exported, inputs)
        with jax.default_matmul_precision("highest"):
            ours = run(exported, inputs)
        for name, value in ours.items():
            error = np.abs(value - theirs[name]).max() / np.abs(theirs[name]).max()
            yield Comparison(f"{model.kind} {name}", float(error))


def _run_diffusers(models: list[StoredModel], inputs: Arrays) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory(prefix="mirage-verify-") as name:
        folder = Path(name)
        export_folder(models, folder, ExportOptions("diffusers"), lambda _: None)
        np.savez(folder / "inputs.npz", **inputs)
        arguments = [sys.executable, str(_SCRIPT), models[0].kind, str(folder)]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(
                f"--verify: Diffusers did not run ({done.stderr.strip().splitlines()[-1:]}), "
                "expected torch, diffusers and transformers (and peft for a LoRA) in this "
                "environment; pip install torch diffusers transformers peft"
            )
        with np.load(folder / "outputs.npz") as outputs:
            return dict(outputs)


def _denoiser_inputs(config: DenoiserConfig) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    _, rows, columns = config.patch
    size = (1, _FRAMES, _ROWS * rows, _COLUMNS * columns)
    # Diffusers takes a timestep a frame without the branch, one for all with it.
    timestep = np.full((1, _FRAMES), 500.0) if config.branch_layers else [[0.0, 300.0, 900.0]]
    inputs = {
        "x": draw.standard_normal((*size, config.latent_channels)),
        "timestep": np.asarray(timestep),
        "text": draw.standard_normal((1, _WORDS, config.text_width)),
    }
    if config.branch_layers:
        inputs["condition"] = draw.standard_normal((*size, config.condition_channels))
    return {name: value.astype(np.float32) for name, value in inputs.items()}


def _autoencoder_inputs(config: AutoencoderConfig) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    side, frames = 4 * config.spatial_stride, 1 + 2 * config.temporal_stride
    shape = (1, frames, side, side // 2, 3)
    latents = (1, 3, 4, 2, config.latent_channels)
    return {
        "video": draw.uniform(-1, 1, shape).astype(np.float32),
        "latents": draw.standard_normal(latents).astype(np.float32),
    }


def _text_inputs(config: TextEncoderConfig) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(0).integers(2, config.vocabulary, (2, 24))
    mask = np.arange(24) < np.array([[24], [9]])
    return {"ids": np.where(mask, ids, 0), "mask": mask.astype(np.int64)}


def _denoiser_outputs(models: list[StoredModel], inputs: Arrays) -> dict[str, np.ndarray]:
    (denoiser,) = (model for model in models if model.kind == "denoiser")
    config = dataclasses.replace(denoiser.config, dtype="float32", products="plain")
    params = files.load_params(denoiser.file, config)
    if models[0].kind == "lora":
        lora = jax.tree.map(lambda a: a.astype(jnp.float32), files.load_tree(models[0].file))
        params = apply_lora(params, lora)
    frames = FrameLayout(references=0, target=_FRAMES, preceding=0)
    run = jax.jit(functools.partial(functional.apply, config, frames=frames))
    condition = inputs.get("condition")
    out = run(params, inputs["x"], inputs["timestep"], condition, inputs["text"])
    return {"velocity": np.asarray(out)}


def _autoencoder_outputs(models: list[StoredModel], inputs: Arrays) -> dict[str, np.ndarray]:
    (model,) = models
    params = files.load_params(model.file, model.config)
    call = functools.partial(functional.apply, model.config)
    encode = jax.jit(functools.partial(call, method="encode"))
    decode = jax.jit(functools.partial(call, method="decode"))
    video = np.asarray(decode(params, inputs["latents"]))
    return {
        "latents": np.asarray(encode(params, inputs["video"])),
        "video": np.clip(video, -1, 1),  # as Diffusers returns it
    }


def _text_outputs(models: list[StoredModel], inputs: Arrays) -> dict[str, np.ndarray]:
    (model,) = models
    config = dataclasses.replace(model.config, dtype="float32")
    params = files.load_params(model.file, config)
    run = jax.jit(functools.partial(functional.apply, config))
    return {"embedding": np.asarray(run(params, inputs["ids"], inputs["mask"] > 0))}


_INPUTS: Mapping[str, Callable[[Any], dict[str, np.ndarray]]] = {
    "denoiser": _denoiser_inputs,
    "lora": _denoiser_inputs,
    "codec": _autoencoder_inputs,
    "text_encoder": _text_inputs,
}
_OURS: Mapping[str, Callable[[list[StoredModel], Arrays], dict[str, np.ndarray]]] = {
    "denoiser": _denoiser_outputs,
    "lora": _denoiser_outputs,
    "codec": _autoencoder_outputs,
    "text_encoder": _text_outputs,
}
