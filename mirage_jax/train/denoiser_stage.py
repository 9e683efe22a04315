"""Training of the denoiser and the learned read: memory written, read and used inside the step.

Loss: squared error of the predicted clean latents, channels weighted by what they cost in pixels,
over target frames 1 onwards; plus the same of the read alone, so that the learned read is taught
directly. First chunks (no preceding frames) and later ones share every batch, as rows of it, so the
step is compiled once. Read next: `mirage_jax/train/windows.py`,
`mirage_jax/train/window_inputs.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mirage_jax import config as config_lib
from mirage_jax import world_model
from mirage_jax.diffusion import flow
from mirage_jax.models import files, functional, pca
from mirage_jax.prng import Purpose, key_for
from mirage_jax.train import window_inputs, windows
from mirage_jax.train.config import WorldConfig
from mirage_jax.train.feed import Batch
from mirage_jax.train.latents import CodecWeights, Latents
from mirage_jax.train.stage_config import DenoiserStageConfig
from mirage_jax.train.window_scores import ValidationWindows, score_pictures


class DenoiserObjective:
    """Objective of the denoiser and, where the world has one, the learned read."""

    name = "denoiser"

    def __init__(
        self, world: WorldConfig, codec: CodecWeights, latents: Latents, val: ValidationWindows
    ) -> None:
        self.stage: DenoiserStageConfig = world.denoiser_train
        self.model = {
            name: config_lib.to_dict(value) if value is not None else None
            for name, value in (
                ("denoiser", world.denoiser),
                ("learned_read", world.learned_read),
                ("condition", world.condition),
            )
        }
        self._world = window_inputs.with_memory_for(world, self.stage.windows.memory_frames)
        self._codec, self._latents, self._val = codec, latents, val
        self._weights = pca.channel_weights(codec.params)
        self._seed = world.seed
        self._predict = jax.jit(self._validation_latents, static_argnames="first")

    def init(self) -> Any:
        """Return the parameters before step 0."""
        world = self._world
        params = {
            "denoiser": functional.init(
                world.denoiser, key_for(self._seed, 0, Purpose.INIT_DENOISER)
            )
        }
        if world.learned_read is not None:
            key = key_for(self._seed, 0, Purpose.INIT_LEARNED_READ)
            params["learned_read"] = functional.init(world.learned_read, key)
        return params

    def batch(self, step: int) -> Batch:
        """Return the host arrays of `step`."""
        return windows.draw_batch(
            self._latents,
            self.stage.windows,
            self._world.chunk,
            seed=self._seed,
            step=step,
            batch=self.stage.batch,
        )

    def loss(
        self, params: Any, batch: Any, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the scalar loss and metrics."""
        params = params | {"codec": self._codec.params}
        look_key, sigma_key, noise_key = jax.random.split(key, 3)
        seen = window_inputs.look(self._world, params, batch, look_key, self.stage.noise)
        sigma = flow.draw_sigma(sigma_key, *seen.target.shape[:2], config=self.stage.flow)
        noise = jax.random.normal(noise_key, seen.target.shape)
        noisy = flow.add_noise(seen.target, noise, sigma)
        clean = self._estimate(params, seen, noisy, sigma)
        weight = flow.loss_weight(sigma, self.stage.flow.weighting)[:, 1:, None, None]
        error = self._cell_error(clean, seen.target)
        base = self._cell_error(self._targets(seen.observation.base, seen), seen.target)
        loss = jnp.mean(weight * error) + self.stage.read_weight * jnp.mean(base)
        filled = self._cell_error(self._targets(seen.observation.filled, seen), seen.target)
        visible = self._targets(seen.observation.read.visibility, seen)[:, 1:]
        metrics = {"visible": jnp.mean(visible.astype(jnp.float32))}
        for name, value in (("error", error), ("base", base), ("filled", filled)):
            metrics[f"{name}_visible"] = _masked_mean(value, visible)
            metrics[f"{name}_hidden"] = _masked_mean(value, ~visible)
        return loss, metrics

    def validate(self, params: Any, step: int, directory: Path) -> dict[str, float]:
        """Score the moving average on the fixed clips and write pictures."""
        predictions: dict[str, list[Any]] = {}
        for index, (batch, first) in enumerate(self._val.batches):
            noise_key = key_for(self._seed, index, Purpose.VALIDATION)
            for name, value in self._predict(params, batch, noise_key, first=first).items():
                predictions.setdefault(name, []).append(value)
        path = directory / f"denoiser_{step:07d}.png"
        return score_pictures(self._codec, self._val, predictions, path)

    def export(self, params: Any, step: int, workdir: Path) -> list[Path]:
        """Write the moving average; return the files."""
        paths = []
        for name, tree in params.items():
            path = workdir / f"{name}.safetensors"
            files.save_params(path, tree, {"config": self.model[name], "step": step})
            paths.append(path)
        return paths

    def _estimate(self, params, seen, noisy, sigma) -> jax.Array:
        """Return the predicted clean latents of every row: first chunks, then later ones."""
        split = self.stage.windows.num_first(noisy.shape[0])
        parts = [
            self._estimate_rows(params, seen, noisy, sigma, rows, preceding)
            for rows, preceding in (
                (slice(0, split), 0),
                (slice(split, None), self._world.chunk.preceding),
            )
            if noisy[rows].shape[0]
        ]
        return jnp.concatenate(parts)

    def _estimate_rows(self, params, seen, noisy, sigma, rows: slice, preceding: int) -> jax.Array:
        inputs = window_inputs.chunk_rows(seen, rows, preceding)
        velocity = world_model.predict_velocity(
            self._world, params, noisy[rows], sigma[rows], inputs
        )
        return flow.clean_from_velocity(velocity, noisy[rows], sigma[rows])

    def _cell_error(self, latents: jax.Array, target: jax.Array) -> jax.Array:
        """Return the weighted squared error [b, T - 1, h, w] of target frames 1 onwards."""
        return jnp.mean(self._weights * jnp.square(latents - target)[:, 1:], axis=-1)

    @staticmethod
    def _targets(values: jax.Array, seen: window_inputs.Seen) -> jax.Array:
        return values[:, : seen.target.shape[1]]

    def _validation_latents(self, params, batch, key, *, first: bool) -> dict[str, jax.Array]:
        """Return the target latents [b, T, h, w, c] that each way of predicting gives."""
        params = params | {"codec": self._codec.params}
        seen = window_inputs.look(self._world, params, batch, key, None)
        preceding = 0 if first else self._world.chunk.preceding
        inputs = window_inputs.chunk_rows(seen, slice(None), preceding)
        noise = jax.random.normal(key, seen.target.shape)
        ones = jnp.ones(noise.shape[:2])
        velocity = world_model.predict_velocity(self._world, params, noise, ones, inputs)
        sample = world_model.sample_chunk(self._world, params, inputs, noise, self._world.sampling)
        start = seen.first[:, None]
        return {
            "ceiling": seen.target,
            "sample": sample,
            "one_step": jnp.concatenate([start, (noise - velocity)[:, 1:]], axis=1),
            "base": inputs.base,
            "filled": jnp.concatenate(
                [start, self._targets(seen.observation.filled, seen)[:, 1:]], axis=1
            ),
        }


def _masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Return the mean over True cells; NaN where there is none (left out of the log's means)."""
    count = jnp.sum(mask)
    return jnp.where(count > 0, jnp.sum(values * mask) / count, jnp.nan)
