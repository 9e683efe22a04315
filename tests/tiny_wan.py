"""A world with the parts of released weights, few and small: made from the preset itself."""

import functools
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from mirage_jax.models import functional
from mirage_jax.train import config as config_lib
from mirage_jax.train import latents as latents_lib
from mirage_jax.train import stages

CONFIG = Path(__file__).parents[1] / "configs" / "wan5b.py"
SIZES = {
    "data": {"source": "procedural", "height": 64, "width": 96, "num_clips": 2, "clip_frames": 21},
    "codec": {"encoder_width": 8, "decoder_width": 8, "blocks": 1, "latent_channels": 8},
    "denoiser": {
        "width": 32,
        "heads": 2,
        "layers": 4,
        "mlp_width": 64,
        "text_width": 0,
        "time_frequencies": 32,
        "latent_channels": 8,
        "out_channels": 8,
        "dtype": "float32",
    },
    "memory": {"channels": 8, "capacity": 2048},
    "chunk": {"latent_frames": 3, "preceding": 1},
    "sampling": {"steps": 1},
}
STAGE = {"steps": 40, "batch": 4, "learning_rate": 1e-2, "warmup_steps": 0, "beta1": 0.9}
STAGE |= {"log_steps": 40, "checkpoint_steps": 20, "validate_steps": 40, "validation_clips": 1}
# Windows of one kind: compiling the other takes longer than training on both.
STAGE |= {"fixed_dtype": "float32", "windows": {"memory_frames": 2, "first_fraction": 0.0}}


@functools.cache
def world(variant: str = "paper") -> config_lib.WorldConfig:
    """The preset with small sizes, its conventions and what its stages train left as they are."""
    module = config_lib.runpy.run_path(str(CONFIG))
    values = module["get_config"](variant)
    for part, sizes in SIZES.items():
        values[part].update(sizes)
    for stage in ("denoiser", "branch", "lora", "full"):
        values[f"{stage}_train"].update(STAGE)
    values.lora_train.lora = {"rank": 4}
    module["set_branch"](values, variant)
    return config_lib.from_dict(config_lib.WorldConfig, values)


@functools.cache
def clips() -> list[dict]:
    return list(stages.open_split(world().data, "train"))


@functools.cache
def codec() -> latents_lib.CodecWeights:
    """An autoencoder of random weights whose latents are normalised on a clip."""
    config, clip = world().codec, clips()[0]
    params = functional.init(config, 0)
    video = clip["rgb"][None].astype(np.float32) / 127.5 - 1.0
    z = np.asarray(latents_lib.apply_codec(config, params, video, method="encode_streamed"))
    params["latent_mean"] = jnp.asarray(z.mean((0, 1, 2, 3)))
    params["latent_std"] = jnp.asarray(z.std((0, 1, 2, 3)))
    return latents_lib.CodecWeights(config, params, "tiny")
