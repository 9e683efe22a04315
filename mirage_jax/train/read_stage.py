"""Training of the learned read alone: codec and memory stay as they are, no denoiser is needed.

On the windows that the denoiser is trained on, memory is written and read as in a rollout, and the
learned read is to give the tokens that the target cameras really see. Loss of a cell: squared error
of its token, each channel weighed by what it costs in pixels, and for the small codec the mean
error of image gradients, which a mean of tokens that is sharp nowhere would pay for. Cells that
memory does not show count little: nothing can be known of them.

The stage goes on from a learned read that the denoiser's stage left. Linear maps between tokens
and patches, where the read keeps some, are fitted before the first update (`fit_patches.py`) and
trained with the rest. Read next: `mirage_jax/models/learned_read.py`,
`mirage_jax/train/windows/draw.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from mirage_jax import config as config_lib
from mirage_jax.distributed.processes import to_host
from mirage_jax.models import files, functional, patch_path, patch_read, pca
from mirage_jax.models.codec import CodecConfig
from mirage_jax.prng import Purpose, key_for
from mirage_jax.train.config import WorldConfig
from mirage_jax.train.latents import CodecWeights, LatentSource
from mirage_jax.train.stage_config import ReadStageConfig
from mirage_jax.train.windows import inputs as window_inputs
from mirage_jax.train.windows.scores import ValidationWindows, score_pictures
from mirage_jax.train.windows.stage import WindowStage


class ReadObjective(WindowStage):
    """Objective of the learned read."""

    name = "read"
    shared: tuple[str, ...] = ()

    def __init__(
        self,
        world: WorldConfig,
        codec: CodecWeights,
        latents: LatentSource,
        val: ValidationWindows,
        given: Callable[[], Any] | None = None,
    ) -> None:
        """Check the config.

        Args:
            world: the config.
            codec: frozen codec.
            latents: of the training clips.
            val: fixed windows.
            given: reads the parameters to start from; None draws them.

        Raises:
            ValueError: if the world has no learned read, or one that is left out.
        """
        if world.learned_read is None or not world.learned_read.corrects:
            raise ValueError(
                f"--stage read: the config's learned_read is {world.learned_read}, expected the "
                "sizes of one with corrects=True"
            )
        self.stage: ReadStageConfig = world.read_train
        self.read = world.learned_read
        self.model = config_lib.to_dict(self.read)
        self._world = window_inputs.with_memory_for(world, self.stage.windows.memory_frames)
        self._codec, self._latents, self._val = codec, latents, val
        self._linear = isinstance(world.codec, CodecConfig)
        self._weights = pca.channel_weights(codec.params) if self._linear else jnp.ones(())
        self._seed = world.seed
        self.draws = given is None
        self._given = given or self._draw
        self._predict = jax.jit(self._validation_latents)

    def init(self) -> tuple[Any, Any]:
        """Return the parameters before step 0, all of them trained."""
        return self._given(), {}

    def axes(self) -> tuple[Any, Any]:
        """Return the logical axes of the parameters."""
        return functional.logical_axes(self.read), {}

    def loss(
        self, params: Any, fixed: Any, batch: Any, keys: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the loss of each row [b] and metrics."""
        seen = self._look(params, batch, keys, self.stage.noise)
        # Frame 0 is given, and in first chunks coded as a picture is.
        frames = slice(1, seen.target.shape[1])
        visible = seen.observation.read.visibility[:, frames]
        read, filled = seen.observation.base[:, frames], seen.observation.filled[:, frames]
        target = seen.target[:, frames]
        error = self._token_error(read, target)
        share = jnp.where(visible, 1.0, self.stage.hidden_weight)
        metrics = {"visible": jnp.mean(visible.astype(jnp.float32))}
        for name, value in (("read", error), ("filled", self._token_error(filled, target))):
            for where, mask in (("visible", visible), ("hidden", ~visible)):
                metrics[f"{name}_{where}"] = jnp.sum(value * mask) / jnp.maximum(jnp.sum(mask), 1)
        if self._linear and self.stage.detail_weight:
            detail = self._detail_error(read, target)
            metrics["detail_visible"] = jnp.sum(detail * visible) / jnp.maximum(visible.sum(), 1)
            error = error + self.stage.detail_weight * detail
        cells = (1, 2, 3)
        return jnp.sum(share * error, cells) / jnp.maximum(jnp.sum(share, cells), 1.0), metrics

    def validate(
        self, params: Any, fixed: Any, step: int, directory: Path | None
    ) -> dict[str, float]:
        """Score the moving average on the fixed clips and write pictures."""
        predictions: dict[str, list[Any]] = {}
        for batch, _ in self._val.batches:
            for name, value in self._predict(params, batch).items():
                predictions.setdefault(name, []).append(to_host(value))
        path = None if directory is None else directory / f"{self.name}_{step:07d}.png"
        return score_pictures(self._codec, self._val, predictions, path)

    def export(self, params: Any, fixed: Any, step: int, workdir: Path) -> list[Path]:
        """Write the moving average; return the files."""
        path = workdir / "learned_read.safetensors"
        files.save_params(path, params, {"config": self.model, "step": step})
        return [path]

    def _draw(self) -> Any:
        return functional.init(self.read, key_for(self._seed, 0, Purpose.INIT_LEARNED_READ))

    def _look(self, params: Any, batch: Any, keys: jax.Array, noise: Any) -> window_inputs.Seen:
        models = {"learned_read": params, "codec": self._codec.params}
        return window_inputs.look(self._world, models, batch, keys, noise)

    def _token_error(self, latents: jax.Array, target: jax.Array) -> Float[jax.Array, "b t h w"]:
        return jnp.mean(self._weights * jnp.square(latents - target), axis=-1)

    def _detail_error(self, latents: jax.Array, target: jax.Array) -> Float[jax.Array, "b t h w"]:
        """Return the mean error of the gradients of the linear path's pictures, in each cell."""
        both = jnp.stack([latents, target])
        path = patch_path.of_codec(self._codec.config, self._codec.params)
        patches = patch_read.to_patches(self._codec.config.spatial_stride, path, both)
        across, down = (jnp.diff(patches, axis=axis) for axis in (-2, -3))
        error = [jnp.mean(jnp.abs(step[0] - step[1]), (-1, -2, -3)) for step in (across, down)]
        return error[0] + error[1]

    def _validation_latents(self, params: Any, batch: Any) -> dict[str, jax.Array]:
        """Return the target latents [b, T, h, w, c] of the read, of what it corrects and true."""
        seen = self._look(params, batch, jax.random.key(0), None)
        frames, start = seen.target.shape[1], seen.first[:, None]
        shown = {"read": seen.observation.base, "filled": seen.observation.filled}
        made = {name: jnp.concatenate([start, x[:, 1:frames]], 1) for name, x in shown.items()}
        return {"ceiling": seen.target} | made
