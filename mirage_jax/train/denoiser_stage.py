"""Training of the denoiser and the learned read: memory written, read and used inside the step.

Stages: "denoiser" draws all parameters, "branch", "lora" and "full" start from given ones; what
each of them trains is said by its settings. Loss over target frames 1 onwards: squared error of the
velocity, as the release trains, or, of a denoiser that predicts clean latents, of those, channels
weighted by what they cost in pixels; plus the latter of the read alone where it is learned. First
chunks (no preceding frames) and later ones share every batch, as rows of it, so the step is
compiled once. Read next: `mirage_jax/train/tuning.py`, `mirage_jax/train/windows/draw.py`,
`mirage_jax/train/windows/inputs.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mirage_jax import config as config_lib
from mirage_jax import world_model
from mirage_jax.data.captions import ClipTexts
from mirage_jax.diffusion import flow
from mirage_jax.distributed.constrain import constrain
from mirage_jax.distributed.processes import to_host
from mirage_jax.models import files, pca
from mirage_jax.models.codec import CodecConfig
from mirage_jax.models.functional import Params
from mirage_jax.prng import Purpose, key_for
from mirage_jax.train import start, tuning
from mirage_jax.train.config import WorldConfig
from mirage_jax.train.feed import Batch, Rows
from mirage_jax.train.latents import CodecWeights, LatentSource
from mirage_jax.train.objective import split_rows
from mirage_jax.train.stage_config import DenoiserStageConfig
from mirage_jax.train.windows import inputs as window_inputs
from mirage_jax.train.windows.scores import ValidationWindows, score_pictures
from mirage_jax.train.windows.stage import WindowStage


class DenoiserObjective(WindowStage):
    """Objective of the denoiser and, where the world has one, the learned read."""

    shared: tuple[str, ...] = ("score",)

    def __init__(
        self,
        world: WorldConfig,
        codec: CodecWeights,
        latents: LatentSource,
        val: ValidationWindows,
        *,
        name: str = "denoiser",
        given: Callable[[], Params] | None = None,
        texts: ClipTexts | None = None,
    ) -> None:
        """Prepare a stage.

        Args:
            world: the config.
            codec: frozen codec.
            latents: of the training clips.
            val: fixed windows.
            name: of the stage: "denoiser", "branch", "lora" or "full".
            given: reads the parameters to start from; None draws them.
            texts: captions of the training clips, for denoisers that read text.
        """
        self.name = name
        self.stage: DenoiserStageConfig = world.denoiser_stage(name)
        self.model = {
            name: config_lib.to_dict(value) if value is not None else None
            for name, value in (
                ("denoiser", world.denoiser),
                ("learned_read", world.learned_read),
                ("condition", world.condition),
            )
        }
        if self.stage.lora is not None:
            self.model["lora"] = config_lib.to_dict(self.stage.lora)
        if texts is not None:
            self.model["text"] = {"encoder": texts.cache.spec.encoder}
        sized = window_inputs.with_memory_for(world, self.stage.windows.memory_frames)
        self._world = tuning.tuned_world(sized, self.stage)
        self._codec, self._latents, self._val, self._texts = codec, latents, val, texts
        linear = isinstance(world.codec, CodecConfig)
        self._weights = pca.channel_weights(codec.params) if linear else jnp.ones(())
        self._seed = world.seed
        self.draws = given is None
        self._axes = tuning.logical_axes(world, self.stage)
        self._given = given or functools.partial(start.drawn_params, world)
        self._predict = jax.jit(self._validation_latents, static_argnames="first")

    def init(self) -> tuple[Any, Any]:
        """Return the trained parameters before step 0 and those held fixed."""
        return tuning.split(self._given(), self.stage, key_for(self._seed, 0, Purpose.INIT_LORA))

    def axes(self) -> tuple[Any, Any]:
        """Return the logical axes of all parameters, for those trained and those held fixed."""
        return self._axes, self._axes

    def batch(self, step: int, rows: Rows = None) -> Batch:
        """Return the host arrays of `step`, all rows or those named."""
        return super().batch(step, rows) | self.constants

    @functools.cached_property
    def constants(self) -> Batch:
        """Arrays that every batch has: the constant channels of a release's condition."""
        world = self._world
        if not world.condition.score:
            return {}
        frames = world.chunk.latent_frames + world.chunk.preceding
        white = jax.jit(
            lambda codec: world_model.white_score(world, {"codec": codec}, frames, world.grid_hw)
        )
        return {"score": np.asarray(white(self._codec.params))}

    def loss(
        self, params: Any, fixed: Any, batch: Any, keys: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the loss of each row [b] and metrics."""
        params = tuning.join(params, fixed) | {"codec": self._codec.params}
        look_keys, sigma_keys, noise_keys = split_rows(keys, 3)
        seen = window_inputs.look(self._world, params, batch, look_keys, self.stage.noise)
        frames, *cells = seen.target.shape[1:]
        sigma = jax.vmap(lambda k: flow.draw_sigma(k, 1, frames, config=self.stage.flow)[0])(
            sigma_keys
        )
        noise = jax.vmap(lambda k: jax.random.normal(k, (frames, *cells)))(noise_keys)
        noisy = flow.add_noise(seen.target, noise, sigma)
        velocity = self._velocity(params, seen, noisy, sigma)
        error = self._cell_error(flow.clean_from_velocity(velocity, noisy, sigma), seen.target)
        base = self._cell_error(self._targets(seen.observation.base, seen), seen.target)
        weight = flow.loss_weight(sigma, self.stage.flow.weighting)
        if self._world.denoiser.prediction == "velocity":
            target = flow.velocity_target(seen.target, noise)
            mask = flow.noised_frames(*sigma.shape, config=self.stage.flow)
            losses = flow.row_losses(velocity, target, mask, weight=weight)
        else:
            losses = jnp.mean(weight[:, 1:, None, None] * error, axis=(1, 2, 3))
        if self._world.learned_read is not None:
            losses += self.stage.read_weight * jnp.mean(base, axis=(1, 2, 3))
        filled = self._cell_error(self._targets(seen.observation.filled, seen), seen.target)
        visible = self._targets(seen.observation.read.visibility, seen)[:, 1:]
        metrics = {"visible": jnp.mean(visible.astype(jnp.float32))}
        for name, value in (("error", error), ("base", base), ("filled", filled)):
            metrics[f"{name}_visible"] = _masked_mean(value, visible)
            metrics[f"{name}_hidden"] = _masked_mean(value, ~visible)
        return losses, metrics

    def validate(
        self, params: Any, fixed: Any, step: int, directory: Path | None
    ) -> dict[str, float]:
        """Score the average on the fixed clips and write pictures."""
        predictions: dict[str, list[Any]] = {}
        for index, (batch, first) in enumerate(self._val.batches):
            noise_key = key_for(self._seed, index, Purpose.VALIDATION)
            for name, value in self._predict(
                params, fixed, batch | self.constants, noise_key, first=first
            ).items():
                predictions.setdefault(name, []).append(to_host(value))
        path = None if directory is None else directory / f"{self.name}_{step:07d}.png"
        return score_pictures(self._codec, self._val, predictions, path)

    def export(self, params: Any, fixed: Any, step: int, workdir: Path) -> list[Path]:
        """Write every model of which a part was trained, whole; return the files.

        A LoRA is a file of its own, and the denoiser stays as it was given.
        """
        whole = tuning.whole_models(params, fixed)
        paths = []
        for name, tree in whole.items():
            path = workdir / f"{name}.safetensors"
            kind = "lora" if name == "lora" else "config"
            files.save_params(path, tree, {kind: self.model[name], "step": step})
            paths.append(path)
        return paths

    def _velocity(self, params, seen, noisy, sigma) -> jax.Array:
        """Return the predicted velocity of every row: first chunks, then later ones."""
        split = self.stage.windows.num_first(noisy.shape[0])
        parts = [
            self._velocity_rows(params, seen, noisy, sigma, rows, preceding)
            for rows, preceding in (
                (slice(0, split), 0),
                (slice(split, None), self._world.chunk.preceding),
            )
            if noisy[rows].shape[0]
        ]
        return jnp.concatenate(parts)

    def _velocity_rows(self, params, seen, noisy, sigma, rows: slice, preceding: int) -> jax.Array:
        inputs = window_inputs.chunk_rows(seen, rows, preceding)
        kind = "later" if preceding else "first"
        noisy = constrain(
            noisy[rows],
            *("batch", *(None,) * (noisy.ndim - 1)),
            what=f"{kind} chunks of a batch of {noisy.shape[0]} (windows.first_fraction)",
        )
        return world_model.predict_velocity(self._world, params, noisy, sigma[rows], inputs)

    def _cell_error(self, latents: jax.Array, target: jax.Array) -> jax.Array:
        """Return the weighted squared error [b, T - 1, h, w] of target frames 1 onwards."""
        return jnp.mean(self._weights * jnp.square(latents - target)[:, 1:], axis=-1)

    @staticmethod
    def _targets(values: jax.Array, seen: window_inputs.Seen) -> jax.Array:
        return values[:, : seen.target.shape[1]]

    def _validation_latents(
        self, params, fixed, batch, key, *, first: bool
    ) -> dict[str, jax.Array]:
        """Return the target latents [b, T, h, w, c] that each way of predicting gives."""
        params = tuning.join(params, fixed) | {"codec": self._codec.params}
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
