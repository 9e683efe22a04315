"""What a stage of training optimises: the interface that the loop knows, and what the stages share.

A stage is an object with parameters that it trains and others that it holds fixed, a pure loss, a
batch that is a pure function of the step, and a validation on fixed clips. Stages:
`codec_stage.py`, `depth_stage.py`, `denoiser_stage.py`.
Read next: `mirage_jax/train/loop.py` (who calls this), `mirage_jax/train/codec_stage.py` (the
simplest stage).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import cv2
import jax
import numpy as np

from mirage_jax.train.feed import Batch, Rows
from mirage_jax.train.stage_config import StageConfig


class Objective(Protocol):
    """One stage of training.

    Attributes:
        name: of the stage; names its folder in the workdir.
        model: plain values of what shapes the parameters; a checkpoint of another model is refused.
        draws: whether `init` draws all it returns and may be traced; else it reads or fits some.
        shared: names of arrays of a batch that have no rows.
    """

    name: str
    model: dict[str, Any]
    draws: bool
    shared: tuple[str, ...]

    @property
    def stage(self) -> StageConfig:
        """Schedule and sizes."""
        ...

    def init(self) -> tuple[Any, Any]:
        """Return the trained parameters before step 0 and those held fixed (nested dicts)."""
        ...

    def axes(self) -> tuple[Any, Any]:
        """Return the logical axes of what `init` returns, or of more (nested dicts of tuples)."""
        ...

    def loss(
        self, params: Any, fixed: Any, batch: Any, keys: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the loss of each row [b] and scalar metrics; pure, traced once.

        What a step minimises is the mean over the rows. A row's loss depends on that row of
        `batch` and `keys` [b] alone, so it is the same in whatever micro-batch the row comes.
        """
        ...

    def batch(self, step: int, rows: Rows = None) -> Batch:
        """Return the host arrays of `step`, all rows or those named; pure in (seed, step)."""
        ...

    def clips(self, step: int) -> np.ndarray:
        """Return the index of each row's clip among the training clips [b], for who looks them up.

        Pure in (seed, step).
        """
        ...

    def validate(
        self, params: Any, fixed: Any, step: int, directory: Path | None
    ) -> dict[str, float]:
        """Score the average `params`, beside the fixed ones, on the fixed validation clips.

        Pictures are written into `directory`, if there is one. All processes of a run call this;
        `params` may lie on devices of all of them, the scores are the same in each.
        """
        ...

    def export(self, params: Any, fixed: Any, step: int, workdir: Path) -> list[Path]:
        """Write the average `params` as safetensors into `workdir`; return the files."""
        ...


def split_rows(keys: jax.Array, count: int) -> tuple[jax.Array, ...]:
    """Split the key of each row [b] into `count` independent ones; return that many arrays [b]."""
    split = jax.vmap(lambda key: jax.random.split(key, count))(keys)
    return tuple(split[:, index] for index in range(count))


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the peak signal-to-noise ratio in dB of each picture [..., H, W, 3].

    Pictures are in [-1, 1]; `a` is clipped to it.
    """
    error = np.mean(np.square((np.clip(a, -1.0, 1.0) - b) / 2.0), axis=(-3, -2, -1))
    return -10.0 * np.log10(np.maximum(error, 1e-10))


def to_uint8(picture: np.ndarray) -> np.ndarray:
    """Turn values in [-1, 1] into uint8, rounding to nearest."""
    return np.clip(np.round((np.asarray(picture) + 1.0) * 127.5), 0, 255).astype(np.uint8)


def write_sheet(path: Path, rows: list[np.ndarray]) -> None:
    """Write a PNG whose rows are sequences [n, H, W, 3] of pictures in [-1, 1], 2 pixels apart."""
    padded = [np.pad(to_uint8(row), ((0, 0), (0, 2), (0, 2), (0, 0))) for row in rows]
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in padded], axis=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), sheet[..., ::-1])
