"""Floating-point operations of a training step and of a rollout's chunk, from the config alone.

Counted are the products of the denoiser, two operations for a multiplication and an addition;
norms, activations, memory and codec are not. Compiled programs cannot be asked: their cost analysis
counts the body of a loop once, whatever its length.

Read next: `report.py`.
"""

from __future__ import annotations

import dataclasses

from mirage_jax.estimate import TEXT_TOKENS
from mirage_jax.models.denoiser import DenoiserConfig
from mirage_jax.train.config import WorldConfig
from mirage_jax.train.stage_config import DenoiserStageConfig


@dataclasses.dataclass(frozen=True)
class Pass:
    """Operations of one forward pass for one clip.

    Attributes:
        backbone: products with the backbone's weights.
        branch: products with the weights of the memory branch.
        attention: products of queries, keys and values, in both.
    """

    backbone: float
    branch: float
    attention: float

    @property
    def total(self) -> float:
        """All together."""
        return self.backbone + self.branch + self.attention


@dataclasses.dataclass(frozen=True)
class StepOperations:
    """Operations of a training step, of all devices together.

    Attributes:
        model: forward and backward pass: what utilisation is measured by.
        executed: with what the backward pass computes again.
        tokens: that pass through the backbone, references included.
    """

    model: float
    executed: float
    tokens: float


def forward_pass(config: DenoiserConfig, frame_tokens: int, frames: int, references: int) -> Pass:
    """Count a forward pass.

    Args:
        config: of the denoiser.
        frame_tokens: tokens of a latent frame.
        frames: target and preceding frames, which the branch sees too.
        references: further frames.
    """
    seen, every = frame_tokens * frames, frame_tokens * (frames + references)
    d, layers, hints = config.width, config.layers, len(config.branch_layers)
    patch = config.patch_cells
    ends = 2 * every * d * patch * (config.latent_channels + config.out_channels)
    times = 2 * (frames + references) * d * (config.time_frequencies + 7 * d)
    text = TEXT_TOKENS if config.text_width else 0
    ends += times + 2 * text * d * (config.text_width + d)
    branch_ends = 2 * seen * d * (patch * config.condition_channels + d) if hints else 0
    return Pass(
        backbone=ends + layers * _block(config, every, text),
        branch=branch_ends + hints * (_block(config, seen, text) + 2 * seen * d * d),
        attention=4 * d * (layers * every * (every + text) + hints * seen * (seen + text)),
    )


def _block(config: DenoiserConfig, tokens: int, text: int) -> float:
    """Count the products of a block with its weights."""
    d = config.width
    cross = 4 * (tokens + text) * d * d if text else 0
    return 8 * tokens * d * d + cross + 4 * tokens * d * config.mlp_width


def training_step(world: WorldConfig, stage: DenoiserStageConfig) -> StepOperations:
    """Count the update of a stage.

    Gradients of activations cost as much as a forward pass, those of weights as much again where
    the weights are trained; attention costs twice its forward pass. Rematerialisation "full" adds
    a forward pass, "dots" one of attention.
    """
    tokens = world.grid_hw[0] * world.grid_hw[1] // world.denoiser.patch_cells
    chunk, windows = world.chunk, stage.windows
    first = windows.num_first(stage.batch)
    references = chunk.references.most if windows.references else 0
    groups = (
        (first, chunk.latent_frames, 0),
        (stage.batch - first, chunk.latent_frames + chunk.preceding, references),
    )
    model = executed = seen = 0.0
    for rows, frames, references in groups:
        one = forward_pass(world.denoiser, tokens, frames, references)
        weights = one.backbone + one.branch
        backward = weights + 2 * one.attention + _trained_products(one, stage)
        again = {"none": 0.0, "dots": one.attention, "full": one.total}[world.denoiser.remat]
        model += rows * (one.total + backward)
        executed += rows * (one.total + backward + again)
        seen += rows * tokens * (frames + references)
    return StepOperations(model, executed, seen)


def _trained_products(one: Pass, stage: DenoiserStageConfig) -> float:
    """Return the operations of the gradients of weights; those of low-rank factors are left out."""
    if stage.lora is not None and not stage.trainable:
        return 0.0
    if stage.trainable == ("denoiser/branch/*",):
        return one.branch
    return one.backbone + one.branch


def rollout_chunk(world: WorldConfig) -> float:
    """Count the making of one chunk with the most reference frames, all solver steps."""
    tokens = world.grid_hw[0] * world.grid_hw[1] // world.denoiser.patch_cells
    frames = world.chunk.latent_frames + world.chunk.preceding
    one = forward_pass(world.denoiser, tokens, frames, world.chunk.references.most)
    calls = world.sampling.steps * (2 if world.sampling.guidance != 1.0 else 1)
    return calls * one.total
