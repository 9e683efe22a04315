"""Trains the same tiny denoiser with each choice of products and of optimizer, side by side.

    python -m benchmarks.update_choices                    # minutes on two cores
    python -m benchmarks.update_choices --updates 300 --choices plain int8

The world of textured boxes, its latents by principal components, one batch over and over: how well
each choice lets the denoiser learn it by heart. All see the same rows and draws. What the speed of
8 bits is only hardware that has them can say. The last line is JSON: for each choice the error of
the denoiser at cells that memory shows and at those it does not, at the last update.
"""

import argparse
import json
import tempfile
from pathlib import Path

import jax
import numpy as np

from mirage_jax.models import functional, pca
from mirage_jax.prng import Purpose, key_for
from mirage_jax.train import config as config_lib
from mirage_jax.train import latent_files, stages
from mirage_jax.train import latents as latents_lib
from mirage_jax.train.denoiser_stage import DenoiserObjective
from mirage_jax.train.optimizer import make_optimizer
from mirage_jax.train.state import new_state
from mirage_jax.train.step import make_step
from mirage_jax.train.windows.scores import ValidationWindows

_CONFIG = Path(__file__).parents[1] / "configs" / "procedural.py"
_WORLD = {
    "data.num_clips": 2,
    "data.clip_frames": 25,
    "codec.width": 0,
    "chunk.latent_frames": 3,
    "chunk.preceding": 1,
    "denoiser.layers": 1,
    "denoiser_train.learning_rate": 1e-2,
    "denoiser_train.warmup_steps": 1,
}
_CHOICES = {
    "plain": {},
    "int8": {"denoiser.products": "int8"},
    "float8": {"denoiser.products": "float8"},
    "muon": {"denoiser_train.optimizer": "muon"},
    "adafactor": {"denoiser_train.optimizer": "adafactor"},
}


def main() -> None:
    """Train with each choice, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--choices", nargs="+", choices=_CHOICES, default=list(_CHOICES))
    options = parser.parse_args()
    world = config_lib.replace(config_lib.load(str(_CONFIG)), _WORLD)
    clips = stages.open_split(world.data, "train")
    params = functional.init(world.codec, key_for(0, 0, Purpose.INIT_CODEC))
    frames = np.stack([clip["rgb"] for clip in clips])
    codec = latents_lib.CodecWeights(world.codec, pca.fit(world.codec, params, frames), "pca")
    with tempfile.TemporaryDirectory() as folder:
        latents = latent_files.encode_split(codec, clips, Path(folder))
    result = {}
    for name in options.choices:
        chosen = config_lib.replace(world, _CHOICES[name])
        nothing = ValidationWindows([], [], [], 1)
        objective = DenoiserObjective(chosen, codec, latents, nothing)
        result[name] = last_errors(objective, options.updates)
        print(name, result[name], flush=True)
    print(json.dumps(result))


def last_errors(objective: DenoiserObjective, updates: int) -> dict[str, float]:
    """Train on one batch; return the errors at the last update."""
    params, fixed = objective.init()
    optimizer = make_optimizer(objective.stage, params)
    state = jax.device_put(new_state(params, optimizer), jax.devices()[0])
    step = make_step(objective.loss, optimizer, objective.stage, seed=0)
    batch = objective.batch(0)
    for _ in range(updates):
        state, metrics = step(state, fixed, batch)
    names = ("error_visible", "error_hidden", "filled_visible", "filled_hidden")
    return {name: round(float(metrics[name]), 5) for name in names}


if __name__ == "__main__":
    main()
