"""Fits the linear maps between tokens and patches to a frozen codec that has none of its own.

Done before the first update of `mirage train --stage read`; where the learned read has no network
(`corrects=False`) that is all there is to do, and no clip is encoded beyond the pictures it is
fitted on. Tokens are those of a camera at rest, as memory stores start pictures.
Read next: `mirage_jax/models/patch_path.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from mirage_jax import config as config_lib
from mirage_jax import world_model
from mirage_jax.distributed import processes
from mirage_jax.models import files, functional, patch_path
from mirage_jax.prng import Purpose, key_for
from mirage_jax.train.config import WorldConfig
from mirage_jax.train.latents import CodecWeights, apply_codec

# Pictures that the maps are fitted on: each gives as many patches as it has cells.
PICTURES = 192
_BATCH = 8


def only_fits(world: WorldConfig) -> bool:
    """Return True where the read stage has maps to fit and no network to train."""
    read = world.learned_read
    return read is not None and read.patch > 0 and not read.corrects


def draw_read(world: WorldConfig, codec: CodecWeights, clips: Sequence[dict]) -> Any:
    """Return a freshly drawn learned read, with maps fitted to the codec where it keeps some."""
    read = world.learned_read
    if read is None:
        raise ValueError("learned_read: got None, expected the sizes of one; set it in the config")
    params = functional.init(read, key_for(world.seed, 0, Purpose.INIT_LEARNED_READ))
    if not read.patch:
        return params
    return patch_path.with_path(params, fit_path(codec, pictures_of(clips, PICTURES)))


def write_read(
    world: WorldConfig,
    codec: CodecWeights,
    clips: Sequence[dict],
    workdir: Path,
    report: Callable[[str], None],
) -> Path:
    """Fit the maps and write `learned_read.safetensors`; return the file."""
    path, params = workdir / "learned_read.safetensors", draw_read(world, codec, clips)
    if processes.is_first():
        header = {"config": config_lib.to_dict(world.learned_read), "step": 0}
        files.save_params(path, params, header)
    report(f"patch maps fitted on {PICTURES} pictures, written to {path}")
    return path


def fit_path(codec: CodecWeights, pictures: UInt8[np.ndarray, "n H W 3"]) -> patch_path.PatchPath:
    """Return the maps that fit what a codec makes of pictures at rest.

    Args:
        codec: the frozen codec.
        pictures: sides are multiples of its stride.
    """
    fit, side = patch_path.PatchFit(), codec.config.spatial_stride
    for i in range(0, len(pictures), _BATCH):
        shown = pictures[i : i + _BATCH].astype(np.float32) / 127.5 - 1.0
        fit.add(_held(codec, shown), patch_path.planes_of(shown, side))
    return fit.solve()


def pictures_of(clips: Sequence[dict], count: int) -> UInt8[np.ndarray, "n H W 3"]:
    """Return `count` frames spread evenly over the clips, and over the frames of each."""
    places = (np.arange(count) + 0.5) / count * len(clips)
    shown: list[np.ndarray] = []
    for place in places:
        frames = clips[int(place)]["rgb"]
        # The golden ratio spreads any number of places evenly, in whatever order.
        shown.append(np.asarray(frames[int(len(frames) * (0.618034 * len(shown) % 1.0))]))
    return np.stack(shown)


def _held(codec: CodecWeights, pictures: Float[np.ndarray, "n H W 3"]) -> np.ndarray:
    length = 1 + world_model.HELD_LATENTS * codec.config.temporal_stride
    clips = np.repeat(pictures[:, None], length, axis=1)
    return np.asarray(apply_codec(codec.config, codec.params, clips, method="encode_streamed"))[
        :, -1
    ]
