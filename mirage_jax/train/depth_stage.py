"""Training of the latent depth head, on the same windows that the denoiser is trained on.

Loss of a window: absolute error of log depth where depth is known and not sky, plus cross-entropy
of sky.
The latents are made a little noisy, since in a rollout they are generated. Conventions: z-depth in
scene units. Read next: `mirage_jax/models/depth_head.py`, `mirage_jax/train/windows/draw.py`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mirage_jax import config as config_lib
from mirage_jax.distributed.processes import to_host
from mirage_jax.models import files, functional
from mirage_jax.prng import Purpose, key_for
from mirage_jax.train.config import WorldConfig
from mirage_jax.train.latents import LatentSource
from mirage_jax.train.objective import split_rows, write_sheet
from mirage_jax.train.stage_config import DepthStageConfig
from mirage_jax.train.windows import inputs as window_inputs
from mirage_jax.train.windows.scores import ValidationWindows
from mirage_jax.train.windows.stage import WindowStage

_SHOWN_WINDOWS = 4
_PIXELS_PER_CELL = 8


class DepthObjective(WindowStage):
    """Objective of the depth head."""

    name = "depth"
    draws = True
    shared: tuple[str, ...] = ()

    def __init__(self, world: WorldConfig, latents: LatentSource, val: ValidationWindows) -> None:
        if world.depth_head is None:
            raise ValueError(
                "--stage depth: the config's depth_head is None, expected the sizes of one; depth "
                "of such a world is given with its scenes"
            )
        self.stage: DepthStageConfig = world.depth_train
        self.head = world.depth_head
        self.model = config_lib.to_dict(self.head)
        sized = window_inputs.with_memory_for(world, self.stage.windows.memory_frames)
        # Depth does not depend on the learned read, which is trained later.
        self._world = dataclasses.replace(sized, learned_read=None)
        self._latents, self._val = latents, val
        self._seed = world.seed
        self._predict = jax.jit(self._validation_depth)

    def init(self) -> tuple[Any, Any]:
        """Return the parameters before step 0, all of them trained."""
        key = key_for(self._seed, 0, Purpose.INIT_DEPTH_HEAD)
        return functional.init(self.head, key), {}

    def axes(self) -> tuple[Any, Any]:
        """Return the logical axes of the parameters."""
        return functional.logical_axes(self.head), {}

    def loss(
        self, params: Any, fixed: Any, batch: Any, keys: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the loss of each row [b] and metrics."""
        look_keys, level_keys, noise_keys = split_rows(keys, 3)
        seen = window_inputs.look(self._world, {}, batch, look_keys, self.stage.noise)
        level = self.stage.latent_noise * jax.vmap(jax.random.uniform)(level_keys)
        shape = seen.target.shape[1:]
        noise = jax.vmap(lambda k: jax.random.normal(k, shape))(noise_keys)
        latents = seen.target + level[:, None, None, None, None] * noise
        log_depth, sky = self._apply(params, latents, seen)
        known, is_sky = batch["known"] & ~batch["sky"], batch["sky"]
        error = jnp.abs(log_depth - jnp.log(jnp.where(known, batch["depth"], 1.0)))
        cells = (1, 2, 3)
        depth_loss = jnp.sum(error * known, cells) / jnp.maximum(jnp.sum(known, cells), 1)
        entropy = optax.sigmoid_binary_cross_entropy(sky, is_sky.astype(sky.dtype))
        sky_loss = jnp.mean(entropy, cells)
        visible = seen.observation.read.visibility[:, : latents.shape[1]]
        hidden = known & ~visible
        metrics = {
            "log_error": jnp.mean(depth_loss),
            "log_error_hidden": jnp.sum(error * hidden) / jnp.maximum(jnp.sum(hidden), 1),
            "sky_loss": jnp.mean(sky_loss),
            "sky_accuracy": jnp.mean((sky > 0) == is_sky),
        }
        return depth_loss + self.stage.sky_weight * sky_loss, metrics

    def validate(
        self, params: Any, fixed: Any, step: int, directory: Path | None
    ) -> dict[str, float]:
        """Score the moving average on the fixed clips and write pictures."""
        errors, sky_right, rows = [], [], []
        for batch, _ in self._val.batches:
            log_depth, sky = to_host(self._predict(params, batch))
            known = batch["known"] & ~batch["sky"]
            truth = np.log(np.where(known, batch["depth"], 1.0))
            errors.append(np.abs(log_depth - truth)[known])
            sky_right.append(((sky > 0) == batch["sky"]).ravel())
            for i in range(min(_SHOWN_WINDOWS, len(truth))):
                rows += [_depth_picture(np.where(known, truth, 0.0)[i])]
                rows += [_depth_picture(np.where(sky > 0, 0.0, log_depth)[i])]
        if directory is not None:
            write_sheet(directory / f"depth_{step:07d}.png", rows)
        error = np.concatenate(errors)
        return {
            "log_error": float(error.mean()),
            "log_error_median": float(np.median(error)),
            "within_10_percent": float(np.mean(error < np.log(1.1))),
            "sky_accuracy": float(np.concatenate(sky_right).mean()),
        }

    def export(self, params: Any, fixed: Any, step: int, workdir: Path) -> list[Path]:
        """Write the moving average; return the files."""
        path = workdir / "depth.safetensors"
        files.save_params(path, params, {"config": self.model, "step": step})
        return [path]

    def _apply(self, params: Any, latents: jax.Array, seen: window_inputs.Seen) -> Any:
        targets = latents.shape[1]
        read = seen.observation.read
        return functional.apply(
            self.head,
            params,
            latents,
            read.depth[:, :targets],
            read.visibility[:, :targets],
            seen.observation.rays[:, :targets],
        )

    def _validation_depth(self, params: Any, batch: Any) -> Any:
        seen = window_inputs.look(self._world, {}, batch, jax.random.key(0), None)
        return self._apply(params, seen.target, seen)


def _depth_picture(log_depth: np.ndarray) -> np.ndarray:
    """Return [t, H, W, 3] pictures in [-1, 1]: 1 unit black, about 50 units white."""
    grey = np.clip(log_depth / 2.0 - 1.0, -1.0, 1.0)
    grey = grey.repeat(_PIXELS_PER_CELL, axis=1).repeat(_PIXELS_PER_CELL, axis=2)
    return np.repeat(grey[..., None], 3, axis=-1)
