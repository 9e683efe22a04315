"""Builds the objective of a stage from the config: opens the clips and, after the codec, the cached latents.

Read next: `mirage_jax/train/objective.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mirage_jax.train.codec_stage import CodecObjective
from mirage_jax.train.config import DataConfig, WorldConfig
from mirage_jax.train.objective import Objective


def make_objective(
    world: WorldConfig, stage: str, workdir: Path, report: Callable[[str], None]
) -> Objective:
    """Return the objective of `stage` ("codec", "depth" or "denoiser").

    Args:
        world: the config.
        stage: which one.
        workdir: holds the weights of earlier stages and the cached latents.
        report: called with lines for the user.
    """
    train, val = open_split(world.data, "train"), open_split(world.data, "val")
    report(f"clips train={len(train)} val={len(val)}")
    return CodecObjective(world, train, val)


def open_split(data: DataConfig, split: str) -> Sequence[dict]:
    """Return the clips of a split, random access."""
    if data.source == "procedural":
        from mirage_jax.data import procedural

        return procedural.clips(data, split)
    from mirage_jax.data.source import open_clips

    return open_clips(data.directory, split)
