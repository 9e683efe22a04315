"""Settings of the stages of training: schedule, optimizer, windows, and what a stage trains.

Conventions: lengths in updates unless named otherwise; patterns of parameter names are shell-style,
as in "denoiser/branch/*". Read next: `mirage_jax/train/stages.py`, `mirage_jax/train/tuning.py`.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from mirage_jax.diffusion.flow import FlowConfig
from mirage_jax.models.lora import LoraConfig
from mirage_jax.train.windows.config import NoiseConfig, WindowConfig


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """What every stage of training needs.

    Attributes:
        steps: updates; the learning rate reaches its floor at the last one.
        batch: clips per update.
        accumulate: micro-batches that the clips of an update are taken in, one after the other.
        learning_rate: peak of the schedule.
        warmup_steps: linear rise from 0 to the peak.
        final_fraction: floor of the schedule as a fraction of the peak.
        optimizer: what turns gradients into updates, see `optimizer.py`.
        beta1, beta2: AdamW's averaging factors.
        weight_decay: of arrays with two or more axes.
        clip_norm: bound on the global gradient norm.
        ema_decay: of the exported moving average; 0 keeps none and exports the parameters.
        max_skipped: so many updates in a row that are not finite end the run.
        frozen: shell-style patterns of parameter names that do not move.
        log_steps, validate_steps, checkpoint_steps: every how many updates each happens.
        keep_last: so many of the newest checkpoints are kept.
        keep_every: also those at multiples of so many updates; 0 for none.
        validation_clips: clips of the fixed validation set.
    """

    steps: int = 1000
    batch: int = 4
    accumulate: int = 1
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    final_fraction: float = 0.02
    optimizer: Literal["adamw", "muon", "adafactor"] = "adamw"
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    max_skipped: int = 10
    frozen: tuple[str, ...] = ()
    log_steps: int = 50
    validate_steps: int = 500
    checkpoint_steps: int = 500
    keep_last: int = 2
    keep_every: int = 0
    validation_clips: int = 16

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "batch",
            "accumulate",
            "max_skipped",
            "log_steps",
            "validate_steps",
            "checkpoint_steps",
            "keep_last",
            "validation_clips",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1")
        if self.batch % self.accumulate:
            raise ValueError(
                f"accumulate: got {self.accumulate} micro-batches of a batch of {self.batch}, "
                "expected a divisor of it"
            )
        if self.keep_every < 0:
            raise ValueError(f"keep_every: got {self.keep_every}, expected 0 for none, or more")
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
        still_fraction: share of crops that repeat their first frame, as a camera at rest does.
    """

    crop_frames: int = 9
    crop_height: int = 64
    crop_width: int = 96
    gradient_weight: float = 0.01
    pca_clips: int = 256
    still_fraction: float = 0.0


@dataclasses.dataclass(frozen=True)
class DepthStageConfig(StageConfig):
    """Training of the depth head on windows.

    Attributes:
        windows: how they are drawn.
        noise: added to what memory is made of.
        latent_noise: most noise on the latents that depth is read from.
        sky_weight: weight of the sky's cross-entropy.
    """

    windows: WindowConfig = WindowConfig()
    noise: NoiseConfig = NoiseConfig()
    latent_noise: float = 0.3
    sky_weight: float = 0.2


@dataclasses.dataclass(frozen=True)
class ReadStageConfig(StageConfig):
    """Training of the learned read alone, on windows.

    Attributes:
        windows: how they are drawn.
        noise: added to what memory is made of.
        hidden_weight: weight of a cell that memory does not show, beside 1 of one that it does.
        detail_weight: weight of the error of image gradients; for the small codec only.
    """

    windows: WindowConfig = WindowConfig(memory_off=0.0)
    noise: NoiseConfig = NoiseConfig()
    hidden_weight: float = 0.1
    detail_weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class DenoiserStageConfig(StageConfig):
    """Training of the denoiser and the learned read on windows, or of parts of them.

    Attributes:
        windows: how they are drawn.
        noise: added to what the denoiser is given.
        flow: noise levels and their weights.
        read_weight: weight of the read's own error; of worlds with a learned read only.
        trainable: patterns of the names of trained parameters. All others are held fixed: they
            get no gradient, no moments and no average.
        lora: low-rank change that is trained beside them, or None.
        fixed_dtype: type that parameters held fixed are kept in.
        branch_start: a memory branch that the given weights lack starts "fresh" (drawn, as the
            release does) or as a "copy" of the backbone's blocks beside it (as the paper does);
            either way its hints start at zero.
    """

    windows: WindowConfig = WindowConfig()
    noise: NoiseConfig = NoiseConfig()
    flow: FlowConfig = FlowConfig(shared_fraction=1.0)
    read_weight: float = 0.5
    trainable: tuple[str, ...] = ("*",)
    lora: LoraConfig | None = None
    fixed_dtype: Literal["float32", "bfloat16"] = "float32"
    branch_start: Literal["fresh", "copy"] = "fresh"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.trainable and self.lora is None:
            raise ValueError(
                "trainable: got () without lora, expected something to train; give patterns such "
                "as 'denoiser/branch/*', or a lora"
            )
        first = self.windows.num_first(self.batch)
        if first != self.accumulate * self.windows.num_first(self.batch // self.accumulate):
            raise ValueError(
                f"accumulate: got {self.accumulate} micro-batches of a batch of {self.batch} with "
                f"{first} first chunks, expected a divisor of both, so that all are alike; change "
                "it, batch or windows.first_fraction"
            )


@dataclasses.dataclass(frozen=True)
class BranchStageConfig(DenoiserStageConfig):
    """Training of the memory branch alone, beside a backbone that is held fixed."""

    trainable: tuple[str, ...] = ("denoiser/branch/*",)


@dataclasses.dataclass(frozen=True)
class LoraStageConfig(DenoiserStageConfig):
    """Training of a low-rank change alone, of a denoiser that is held fixed."""

    trainable: tuple[str, ...] = ()
    lora: LoraConfig | None = LoraConfig()
