"""The one config of a world: its models, memory, chunking, data and the three stages of training.

Config files return plain values from `get_config(variant)`; `load("configs/doom.py:tiny")` runs one
and turns the values into the frozen dataclasses of the components. Sizes in pixels, frames or
latent cells as named. Read next: `configs/doom.py`, `mirage_jax/config.py` (how mappings become
dataclasses).
"""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path
from typing import Any, Literal

from mirage_jax.config import from_dict, to_dict
from mirage_jax.models.codec import CodecConfig


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where clips come from and their frame size.

    Attributes:
        source: "recorded" reads ArrayRecord files of `directory`; "procedural" makes `num_clips`
            clips as it goes.
        directory: dataset folder, relative to the working folder.
        height: frame height in pixels.
        width: frame width in pixels.
        num_clips: clips per split of the procedural source.
        clip_frames: frames per clip.
    """

    source: Literal["recorded", "procedural"] = "recorded"
    directory: str = "data/doom"
    height: int = 96
    width: int = 128
    num_clips: int = 8
    clip_frames: int = 81


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """What every stage of training needs.

    Attributes:
        steps: updates; the learning rate reaches its floor at the last one.
        batch: clips per update.
        learning_rate: peak of the schedule.
        warmup_steps: linear rise from 0 to the peak.
        final_fraction: floor of the schedule as a fraction of the peak.
        beta1, beta2: AdamW's averaging factors.
        weight_decay: of arrays with two or more axes.
        clip_norm: bound on the global gradient norm.
        ema_decay: of the exported moving average.
        frozen: shell-style patterns of parameter names that do not move.
        log_steps, validate_steps, checkpoint_steps: every how many updates each happens.
        validation_clips: clips of the fixed validation set.
    """

    steps: int = 1000
    batch: int = 4
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    final_fraction: float = 0.02
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    frozen: tuple[str, ...] = ()
    log_steps: int = 50
    validate_steps: int = 500
    checkpoint_steps: int = 500
    validation_clips: int = 16

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "batch",
            "log_steps",
            "validate_steps",
            "checkpoint_steps",
            "validation_clips",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1")
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected a positive number")
        if not 0.0 <= self.ema_decay < 1.0:
            raise ValueError(
                f"ema_decay: got {self.ema_decay}, expected a number in [0, 1); set it to 0.999"
            )


@dataclasses.dataclass(frozen=True)
class CodecStageConfig(StageConfig):
    """Training of the codec on random crops.

    Attributes:
        crop_frames: frames of a crop, 1 + a multiple of the temporal stride.
        crop_height: pixels.
        crop_width: pixels.
        gradient_weight: weight of the L1 distance of image gradients beside the squared error.
        pca_clips: crops the linear path is fitted on before step 0.
    """

    crop_frames: int = 9
    crop_height: int = 64
    crop_width: int = 96
    gradient_weight: float = 0.01
    pca_clips: int = 256


@dataclasses.dataclass(frozen=True)
class WorldConfig:
    """Everything about one world; the same object trains and generates.

    Attributes:
        name: of the world; names the folder of its weights.
        seed: of parameters, batches and draws.
        data: clips.
        codec: video codec.
        codec_train: its training.
    """

    name: str
    seed: int = 0
    data: DataConfig = DataConfig()
    codec: CodecConfig = CodecConfig()
    codec_train: CodecStageConfig = CodecStageConfig()


def load(path: str) -> WorldConfig:
    """Load a config file.

    Args:
        path: "file.py" or "file.py:variant"; the file defines `get_config(variant: str)`.

    Raises:
        ValueError: for a missing file, a file without `get_config`, an unknown key or a value out
            of range.
    """
    return from_dict(WorldConfig, load_values(path))


def load_values(path: str) -> dict[str, Any]:
    """Return the plain values of a config file; see `load`."""
    file, _, variant = path.partition(":")
    if not Path(file).is_file():
        raise ValueError(
            f"--config: got {path!r}, expected an existing file, e.g. configs/doom.py:tiny"
        )
    get_config = runpy.run_path(file).get("get_config")
    if get_config is None:
        raise ValueError(
            f"--config: {file} defines no get_config(variant), expected one; see configs/doom.py"
        )
    values = get_config(variant) if variant else get_config()
    return values.to_dict() if hasattr(values, "to_dict") else values


def replace(world: WorldConfig, overrides: dict[str, Any]) -> WorldConfig:
    """Return the config with some values replaced; keys are dotted, e.g. {"codec_train.steps": 10}."""
    values = to_dict(world)
    for key, value in overrides.items():
        *parents, last = key.split(".")
        inner = values
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
    return from_dict(WorldConfig, values)
