"""The smallest stage of training: a linear map of rows, which compiles in a moment.

For what the loop does around a stage; `toy_stage.py` is a real stage made small.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mirage_jax.train.stage_config import StageConfig

CLIPS = 50


class LinearObjective:
    """Finds the map that made the rows; rows named in `bad` (step -> rows) have no finite loss."""

    name, draws, shared = "linear", True, ()
    model = {"kind": "linear"}

    def __init__(self, bad=None, **stage):
        settings = {"steps": 24, "batch": 2, "log_steps": 6, "validate_steps": 12}
        self.stage = StageConfig(**settings | {"checkpoint_steps": 5} | stage)
        self.bad = bad or {}

    def init(self):
        return {"kernel": jax.random.normal(jax.random.key(0), (8, 8))}, {}

    def axes(self):
        return {"kernel": ("embed", None)}, {}

    def clips(self, step):
        return np.random.default_rng(step).integers(CLIPS, size=self.stage.batch)

    def batch(self, step, rows=None):
        rows = np.arange(self.stage.batch) if rows is None else np.asarray(rows)
        x = np.stack([np.random.default_rng(clip).normal(size=8) for clip in self.clips(step)])
        x[self.bad.get(step, [])] = np.nan
        return {"x": x[rows].astype(np.float32)}

    def loss(self, params, fixed, batch, keys):
        error = batch["x"] @ (params["kernel"] - jnp.eye(8))
        return jnp.mean(jnp.square(error), axis=1), {"size": jnp.mean(jnp.abs(error))}

    def validate(self, params, fixed, step, directory):
        return {"distance": float(jnp.abs(params["kernel"] - jnp.eye(8)).max())}

    def export(self, params, fixed, step, workdir):
        path = workdir / "linear.npy"
        np.save(path, np.asarray(params["kernel"]))
        return [path]
