"""Latents that `mirage encode latents` made, for a training to use: checked, never encoded anew.

A folder of them has one for each split, see `mirage_jax/train/latent_files.py`. They are of a codec
and of a data set; those of another are refused, and so are those that are not complete. A copy of
either folder will do: what is compared are names and sizes of the data set's files and the frames
of a few clips.

Read next: `mirage_jax/train/stages.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mirage_jax.train.config import WorldConfig
from mirage_jax.train.latent_files import (
    COMPLETE,
    Encoding,
    clip_paths,
    encode_missing,
    missing_files,
    open_latents,
    origin_of_clip,
    read_state,
    state_of,
    stored_origin,
)
from mirage_jax.train.latents import CodecWeights, LatentSource

# Clips of which the frames are compared with what the latents were made of.
_LOOKED_AT = 8
# What a user knows the items of a state by.
_NAMES = {
    "codec": "codec weights (digest of codec.safetensors)",
    "mirror": "data.mirror",
    "depth": "chunk.write.depth",
    "clips": "number of clips",
    "arrays": "arrays",
    "sizes": "data set (digest of its files' names and sizes)",
}


def split_encoding(world: WorldConfig, codec: CodecWeights, split: str) -> Encoding:
    """Return how clips of a split become latents: only those of training are mirrored."""
    return Encoding(codec, world.data.mirror and split == "train", world.chunk.write.depth)


def split_latents(
    world: WorldConfig,
    codec: CodecWeights,
    split: str,
    clips: Sequence[dict],
    workdir: Path,
    report: Callable[[str], None],
    chosen: Sequence[int] | None = None,
) -> tuple[LatentSource, Path]:
    """Return the latents of a split, and the folder that they are in.

    Those of `data.latents`, if it is set, and otherwise encoded into the workdir; so are those of
    "val" where `data.latents` has none.

    Args:
        world: the config.
        codec: frozen codec.
        split: "train" or "val".
        clips: of the split.
        workdir: holds what is encoded here.
        report: called with lines for the user.
        chosen: which clips are wanted, by index; None for all.

    Raises:
        ValueError: if latents are given that are not complete, or of another codec or data set.
    """
    encoding, ram_bytes = split_encoding(world, codec, split), world.data.ram_bytes
    given = Path(world.data.latents) / split
    if world.data.latents and (split == "train" or given.is_dir()):
        check_latents(encoding, clips, given)
        return open_latents(given, len(clips), ram_bytes, report, chosen=chosen), given
    directory = workdir / "latents" / split
    some = clips if chosen is None else [clips[index] for index in chosen]
    encode_missing(encoding, some, directory, report)
    return open_latents(directory, len(some), ram_bytes, report), directory


def check_latents(encoding: Encoding, clips: Sequence[dict], directory: Path) -> None:
    """Check that `directory` has the latents of all `clips`, encoded so.

    Raises:
        ValueError: if it has not, or not all of them.
    """
    mend = (
        "run mirage encode latents with this config, data and weights and "
        f"--out {directory.parent}, or choose the folder that belongs to them"
    )
    said = read_state(directory)
    if said is None:
        raise ValueError(
            f"data.latents: {directory} has no {COMPLETE}, expected the latents of all "
            f"{len(clips)} clips; {mend}"
        )
    wanted = state_of(encoding, clips)
    wrong = [
        f"{_NAMES[name]} {said.get(name)}, expected {wanted[name]}"
        for name in _NAMES
        if said.get(name) != wanted[name]
    ]
    if wrong:
        raise ValueError(f"data.latents: {directory} is of {'; of '.join(wrong)}; {mend}")
    paths = clip_paths(directory, len(clips))
    if missing := missing_files(directory, paths):
        raise ValueError(
            f"data.latents: {directory} lacks {missing[0]} ({len(missing)} of {len(paths)} files), "
            f"expected all; {mend}"
        )
    # Without files to tell by, every clip is looked at: there are few, and they are in memory.
    count = len(clips) if wanted["sizes"] is None else min(_LOOKED_AT, len(clips))
    for index in np.linspace(0, len(clips) - 1, count).round().astype(int):
        if stored_origin(paths[index]) != origin_of_clip(encoding, clips[int(index)]):
            raise ValueError(
                f"data.latents: {paths[index]} is not of clip {index} of the data set, expected "
                f"latents of its frames and its caption; {mend}"
            )
