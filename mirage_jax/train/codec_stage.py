"""Training of the video codec on random crops of random clips.

Loss: squared error plus a little L1 distance of image gradients, in pixels. The linear path of the
small codec starts as the principal components of training crops (`models/pca.py`). An autoencoder
of the Wan family starts from drawn weights; its posterior is not sampled, and what is exported
carries the mean and the standard deviation of its latents of training crops, as the released ones
do, so the config holds both still while it trains. Validation prints the scores of the principal
components alone beside the codec's.
Conventions: clips are uint8 [f, H, W, 3]; crops start at any frame and any pixel, and are mirrored
half of the time.
Read next: `mirage_jax/models/codec.py`, `mirage_jax/train/latents.py` (what the trained codec is
used for).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from mirage_jax import config as config_lib
from mirage_jax.data.mixture import order_of
from mirage_jax.distributed.processes import to_host
from mirage_jax.models import files, functional, pca
from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.models.codec import CodecConfig
from mirage_jax.prng import Purpose, generator_for, key_for
from mirage_jax.train.config import WorldConfig
from mirage_jax.train.feed import Batch, Rows
from mirage_jax.train.objective import psnr, write_sheet
from mirage_jax.train.stage_config import CodecStageConfig

_VALIDATION_FRAMES = 17


class CodecObjective:
    """Objective of the codec; see `Objective`."""

    name = "codec"
    draws = False  # the linear path is fitted to clips
    shared: tuple[str, ...] = ()

    def __init__(
        self, world: WorldConfig, train_clips: Sequence[dict], val_clips: Sequence[dict]
    ) -> None:
        self.stage: CodecStageConfig = world.codec_train
        self.codec: CodecConfig | AutoencoderConfig = world.codec
        self.model = config_lib.to_dict(world.codec)
        self._seed = world.seed
        self._clips = RgbClips(train_clips, world.data.ram_bytes)
        self._order = order_of(train_clips)
        count = min(self.stage.validation_clips, len(val_clips))
        chosen = np.linspace(0, len(val_clips) - 1, count).astype(int)
        self._val = np.stack([val_clips[int(i)]["rgb"][:_VALIDATION_FRAMES] for i in chosen])
        self._apply = jax.jit(functools.partial(functional.apply, self.codec))

    def init(self) -> tuple[Any, Any]:
        """Return the parameters before step 0, all of them trained."""
        params = functional.init(self.codec, key_for(self._seed, 0, Purpose.INIT_CODEC))
        if isinstance(self.codec, CodecConfig):
            params = pca.fit(self.codec, params, self._pca_crops())
        return params, {}

    def axes(self) -> tuple[Any, Any]:
        """Return the logical axes of the parameters."""
        return functional.logical_axes(self.codec), {}

    def batch(self, step: int, rows: Rows = None) -> Batch:
        """Return the host arrays of `step`, all rows or those named."""
        rng = generator_for(self._seed, step, Purpose.CLIP_WINDOW)
        chosen = self.clips(step)
        crops = [draw_crop(rng, self._clips.shape(int(i)), self.stage) for i in chosen]
        own = range(self.stage.batch) if rows is None else rows
        return {"video": np.stack([cut(self._clips[int(chosen[i])], crops[i]) for i in own])}

    def loss(
        self, params: Any, fixed: Any, batch: Any, keys: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the loss of each row [b] and metrics."""
        del fixed, keys  # all is trained, and nothing is drawn
        video = batch["video"].astype(jnp.float32) / 127.5 - 1.0
        error = functional.apply(self.codec, params, video) - video
        squared = jnp.mean(jnp.square(error), axis=(0, 2, 3, 4))
        pixels = (1, 2, 3, 4)
        gradient = sum(jnp.mean(jnp.abs(jnp.diff(error, axis=axis)), pixels) for axis in (2, 3))
        losses = jnp.mean(jnp.square(error), pixels) + self.stage.gradient_weight * gradient
        return losses, {
            "psnr_first": _decibel(squared[0]),
            "psnr_later": _decibel(jnp.mean(squared[1:])),
        }

    def clips(self, step: int) -> np.ndarray:
        """Return the index of each row's clip among the training clips [b]."""
        return self._order.indices(self._seed, step, self.stage.batch)

    def validate(
        self, params: Any, fixed: Any, step: int, directory: Path | None
    ) -> dict[str, float]:
        """Score the moving average on the fixed clips and write pictures."""
        truth = self._val.astype(np.float32) / 127.5 - 1.0
        output = np.concatenate([to_host(self._apply(params, clip[None])) for clip in truth])
        scores = psnr(output, truth)
        linear = psnr(self._linear_output(truth), truth)
        shown = [
            x
            for i in range(min(4, len(truth)))
            for x in (truth[i, [0, 2, 4, 8, 16]], output[i, [0, 2, 4, 8, 16]])
        ]
        if directory is not None:
            write_sheet(directory / f"codec_{step:07d}.png", shown)
        return {
            "psnr_first": float(scores[:, 0].mean()),
            "psnr_later": float(scores[:, 1:].mean()),
            "pca_first": float(linear[:, 0].mean()),
            "pca_later": float(linear[:, 1:].mean()),
        }

    def export(self, params: Any, fixed: Any, step: int, workdir: Path) -> list[Path]:
        """Write the moving average; return the files."""
        path = workdir / "codec.safetensors"
        if isinstance(self.codec, AutoencoderConfig):
            params = normalised(self.codec, params, self._pca_crops())
        files.save_params(path, params, {"config": config_lib.to_dict(self.codec), "step": step})
        return [path]

    def _pca_crops(self) -> np.ndarray:
        rng = generator_for(self._seed, 0, Purpose.INIT_CODEC)
        order = rng.permutation(len(self._clips))
        chosen = [int(order[i % len(order)]) for i in range(self.stage.pca_clips)]
        clips = (self._clips[i] for i in chosen)
        return np.stack([cut(clip, draw_crop(rng, clip.shape, self.stage)) for clip in clips])

    @functools.cached_property
    def _linear(self) -> tuple[CodecConfig, Any]:
        c = self.codec
        sizes = (c.latent_channels, c.spatial_stride, c.temporal_stride)
        config = CodecConfig(*sizes, width=0)
        params = functional.init(config, key_for(self._seed, 0, Purpose.INIT_CODEC))
        return config, pca.fit(config, params, self._pca_crops())

    def _linear_output(self, truth: np.ndarray) -> np.ndarray:
        config, params = self._linear
        return np.concatenate(
            [np.asarray(functional.apply(config, params, clip[None])) for clip in truth]
        )


def normalised(
    config: AutoencoderConfig, params: Any, clips: UInt8[np.ndarray, "n f H W 3"]
) -> Any:
    """Return `params` under which the latents of `clips` have mean 0 and deviation 1 per channel.

    What is decoded stays the same: only the scale between latents and network changes.
    """
    encode = jax.jit(functools.partial(functional.apply, config, method="encode"))
    found = [np.asarray(encode(params, c[None].astype(np.float32) / 127.5 - 1.0)) for c in clips]
    latents = np.concatenate(found).reshape(-1, config.latent_channels).astype(np.float64)
    old_mean, old_std = (np.asarray(params[f"latent_{k}"], np.float64) for k in ("mean", "std"))
    mean = old_mean + old_std * latents.mean(0)
    std = old_std * np.maximum(latents.std(0), 1e-6)
    scale = {"latent_mean": mean, "latent_std": std}
    return {**params, **{name: jnp.asarray(value, jnp.float32) for name, value in scale.items()}}


class RgbClips:
    """The frames of a source's clips as uint8 [f, H, W, 3].

    Those read first are kept in memory, as many as take no more than `ram_bytes`.
    """

    def __init__(self, clips: Sequence[dict], ram_bytes: int) -> None:
        self._clips, self._left = clips, ram_bytes
        self._frames: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> np.ndarray:
        if index in self._frames:
            return self._frames[index]
        # A copy frees the rest of the record, of which this is a view.
        frames = np.array(self._clips[index]["rgb"], np.uint8)
        if frames.nbytes <= self._left:
            self._left -= frames.nbytes
            self._frames[index] = frames
        return frames

    def shape(self, index: int) -> tuple[int, ...]:
        """Return the shape of a clip's frames, without reading them where the source knows it."""
        known = getattr(self._clips, "shape", None)
        return self[index].shape if known is None else (*known[:3], 3)


class Crop(NamedTuple):
    """A crop of a clip: where it begins (frame, row, column), its size, and how it is played."""

    start: tuple[int, ...]
    size: tuple[int, ...]
    still: bool
    mirrored: bool


def draw_crop(rng: np.random.Generator, shape: tuple[int, ...], stage: CodecStageConfig) -> Crop:
    """Draw a crop of a clip of `shape` (f, H, W, 3), mirrored half of the time.

    Raises:
        ValueError: if the frames are fewer or smaller than the crop.
    """
    size = (stage.crop_frames, stage.crop_height, stage.crop_width)
    spare = [have - want for have, want in zip(shape[:3], size, strict=True)]
    if min(spare) < 0:
        raise ValueError(
            f"codec_train crop: got {size}, expected at most the clip's {shape[:3]}; make it "
            "smaller"
        )
    start = tuple(int(rng.integers(n + 1)) for n in spare)
    still = rng.random() < stage.still_fraction
    return Crop(start, size, still, rng.random() < 0.5)


def cut(frames: np.ndarray, crop: Crop) -> np.ndarray:
    """Return a crop [crop_frames, crop_height, crop_width, 3] of frames [f, H, W, 3]."""
    part = frames[tuple(slice(a, a + n) for a, n in zip(crop.start, crop.size, strict=True))]
    if crop.still:
        part = np.broadcast_to(part[:1], part.shape)
    return part[:, :, ::-1] if crop.mirrored else part


def _decibel(squared_error: jax.Array) -> jax.Array:
    return -10.0 * jnp.log10(squared_error / 4.0)
