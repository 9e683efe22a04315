"""Builds the objective of a stage from the config.

Opens the clips and, after the codec, the cached latents.

Read next: `mirage_jax/train/objective.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import jax
import numpy as np

from mirage_jax import estimate
from mirage_jax.data.captions import ClipTexts, clip_captions
from mirage_jax.data.mixture import MixedClips, order_of, parse_mixture
from mirage_jax.data.text_cache import open_texts
from mirage_jax.train import fit_patches, start, tuning
from mirage_jax.train.codec_stage import CodecObjective
from mirage_jax.train.config import DataConfig, WorldConfig
from mirage_jax.train.denoiser_stage import DenoiserObjective
from mirage_jax.train.depth_stage import DepthObjective
from mirage_jax.train.given_latents import split_latents
from mirage_jax.train.latent_files import stored_captions
from mirage_jax.train.latents import load_codec
from mirage_jax.train.objective import Objective
from mirage_jax.train.optimizer import make_optimizer
from mirage_jax.train.read_stage import ReadObjective
from mirage_jax.train.stage_config import (
    DenoiserStageConfig,
    DepthStageConfig,
    ReadStageConfig,
)
from mirage_jax.train.windows.scores import validation_windows

# Stages in the order in which they are run, and what they do.
STAGES = {
    "codec": "the codec",
    "depth": "the depth head",
    "denoiser": "all of the denoiser, from scratch",
    "read": "the learned read alone, beside a given codec",
    "branch": "the memory branch, beside a given backbone",
    "lora": "a low-rank change of a given denoiser",
    "full": "all of a given denoiser",
}


def make_objective(
    world: WorldConfig,
    stage: str,
    workdir: Path,
    report: Callable[[str], None],
    weights: Path | None = None,
) -> Objective:
    """Return the objective of a stage.

    Args:
        world: the config.
        stage: a key of `STAGES`.
        workdir: holds the weights of earlier stages and the cached latents.
        report: called with lines for the user.
        weights: folder of given weights, for what the workdir does not hold.

    Raises:
        FileNotFoundError: if weights that the stage starts from are in neither folder.
    """
    folders = [workdir, *([weights] if weights else [])]
    train, val = open_split(world.data, "train"), open_split(world.data, "val")
    report(f"clips train={len(train)} val={len(val)}")
    if stage == "codec":
        return CodecObjective(world, train, val)
    codec = load_codec(folders, world.codec)
    config = _windowed(world, stage)
    latents, folder = split_latents(world, codec, "train", train, workdir, report)
    places = fixed_places(val, config.validation_clips)
    val_latents, _ = split_latents(world, codec, "val", val, workdir, report, places)
    chosen = [val[place] for place in places]
    memory_frames = config.windows.memory_frames
    if stage in ("depth", "read"):
        shown = validation_windows(val_latents, chosen, world.chunk, memory_frames)
        objective: DepthObjective | ReadObjective
        if stage == "depth":
            objective = DepthObjective(world, latents, shown)
        else:
            given_read = start.given_read(world, folders)
            if given_read is None and world.learned_read is not None and world.learned_read.patch:
                given_read = functools.partial(fit_patches.draw_read, world, codec, train)
            objective = ReadObjective(world, codec, latents, shown, given_read)
        objective.order = order_of(train)
        return objective
    texts = clip_texts(world, stored_captions(folder))
    val_texts = clip_texts(world, clip_captions(chosen))
    shown = validation_windows(val_latents, chosen, world.chunk, memory_frames, val_texts)
    given = functools.partial(start.given_params, world, world.denoiser_stage(stage), folders)
    denoiser = DenoiserObjective(
        world,
        codec,
        latents,
        shown,
        name=stage,
        given=None if stage == "denoiser" else given,
        texts=texts,
    )
    denoiser.order = order_of(train)
    return denoiser


def fit_alone(
    world: WorldConfig,
    stage: str,
    workdir: Path,
    report: Callable[[str], None],
    weights: Path | None = None,
) -> bool:
    """Do what a stage has to do, and return True, where that is a fit in closed form alone."""
    if stage != "read" or not fit_patches.only_fits(world):
        return False
    codec = load_codec([workdir, *([weights] if weights else [])], world.codec)
    fit_patches.write_read(world, codec, open_split(world.data, "train"), workdir, report)
    return True


def _windowed(
    world: WorldConfig, stage: str
) -> DepthStageConfig | ReadStageConfig | DenoiserStageConfig:
    """Return the settings of a stage that trains on windows."""
    if stage == "depth":
        return world.depth_train
    return world.read_train if stage == "read" else world.denoiser_stage(stage)


def estimate_stage(world: WorldConfig, stage: str) -> estimate.Estimate | None:
    """Return the size of an update; None for codec, depth head and read, which are small."""
    if stage in ("codec", "depth", "read"):
        return None
    config = world.denoiser_stage(stage)
    trained, fixed = tuning.abstract_split(world, config)
    return estimate.estimate_training(
        world,
        trained,
        fixed,
        moments=jax.eval_shape(make_optimizer(config, trained).init, trained),
        batch=config.batch // config.accumulate,
        average=config.ema_decay > 0,
        memory_frames=config.windows.memory_frames,
    )


def clip_texts(world: WorldConfig, captions: Sequence[str]) -> ClipTexts | None:
    """Return the captions of clips with their embeddings; None if the denoiser reads no text.

    Raises:
        FileNotFoundError: if there is no text cache.
        ValueError: if it lacks a caption or the empty prompt, or is of another width.
    """
    width = world.denoiser.text_width
    if not width:
        return None
    if not world.data.texts:
        raise ValueError(
            f"data.texts: got nothing with denoiser.text_width {width}, expected a text cache with "
            "the captions of the clips; make one with mirage encode text"
        )
    return ClipTexts(open_texts(world.data.texts, width=width), tuple(captions))


def fixed_places(clips: Sequence[dict], count: int) -> list[int]:
    """Return the indices of `count` clips (all, if fewer) spread evenly over the source."""
    count = min(count, len(clips))
    return [int(place) for place in np.linspace(0, len(clips) - 1, count).round()]


def open_split(data: DataConfig, split: str) -> Sequence[dict]:
    """Return the clips of a split ("train" or "val"), random access."""
    if data.source == "procedural":
        from mirage_jax.data.procedural import ProceduralConfig, render_clip

        shape = ProceduralConfig(frames=data.clip_frames, height=data.height, width=data.width)
        first = 0 if split == "train" else data.num_clips
        return [render_clip(seed, shape) for seed in range(first, first + data.num_clips)]
    from mirage_jax.data.source import open_clips

    if data.mixture:
        return _open_mixture(data, split)
    return cast(Sequence[dict], open_clips(data.directory, split))


def _open_mixture(data: DataConfig, split: str) -> MixedClips:
    """Open those folders of a mixture that have the split, which one at least must."""
    from mirage_jax.data.source import open_clips, split_names

    parts = [(f, w) for f, w in parse_mixture(data.mixture) if split in split_names(f)]
    if not parts:
        raise ValueError(
            f"data.mixture: got {', '.join(data.mixture)}, but none of them has a split {split!r}; "
            "prepare or record one"
        )
    sources = [cast(Sequence[dict], open_clips(folder, split)) for folder, _ in parts]
    return MixedClips(sources, [weight for _, weight in parts])
