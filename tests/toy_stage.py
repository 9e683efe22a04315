"""A stage that is real in every part but small: the codec on clips of smooth noise.

Run as a program (`python toy_stage.py WORKDIR`) it trains the stage, slowly enough to be killed.
"""

import sys
import time
from pathlib import Path

import numpy as np

from mirage_jax.train import config as config_lib
from mirage_jax.train.codec_stage import CodecObjective

VALUES = {
    "name": "toy",
    "seed": 3,
    "data": {"height": 16, "width": 16},
    "codec": {"latent_channels": 6, "width": 8, "encoder_blocks": 1, "decoder_blocks": 1},
    "depth_head": {"latent_channels": 6},
    "denoiser": {"latent_channels": 6, "out_channels": 6, "condition_channels": 18},
    "memory": {"capacity": 64, "channels": 6},
    "codec_train": {
        "steps": 24,
        "batch": 2,
        "learning_rate": 3e-3,
        "warmup_steps": 4,
        "log_steps": 6,
        "checkpoint_steps": 5,
        "validate_steps": 100,
        "validation_clips": 1,
        "crop_frames": 5,
        "crop_height": 16,
        "crop_width": 16,
        "pca_clips": 16,
    },
}


def clips(count: int = 4) -> list[dict]:
    rng = np.random.default_rng(0)
    y, x, f = np.mgrid[:16, :24, :17] / 8.0
    made = []
    for _ in range(count):
        a, b, c = rng.uniform(0.5, 3.0, (3, 3))
        waves = [np.sin(a[i] * x + b[i] * y + c[i] * f) for i in range(3)]
        video = np.moveaxis(np.stack(waves, -1), 2, 0)[:, :, :16]
        noise = rng.normal(0, 10, video.shape)
        made.append({"rgb": np.clip(video * 90 + 128 + noise, 0, 255).astype(np.uint8)})
    return made


class SlowObjective(CodecObjective):
    """The codec's objective with batches that take a moment."""

    pause = 0.0

    def batch(self, step, rows=None):
        time.sleep(self.pause)
        return super().batch(step, rows)


def objective(**codec_train) -> SlowObjective:
    values = {**VALUES, "codec_train": {**VALUES["codec_train"], **codec_train}}
    world = config_lib.from_dict(config_lib.WorldConfig, values)
    return SlowObjective(world, clips(), clips(1))


if __name__ == "__main__":
    from mirage_jax.train import loop

    slow = objective()
    slow.pause = 0.15
    loop.train(slow, 3, loop.RunOptions(Path(sys.argv[1])))
