"""A very small autoencoder of each family, its weights and clips for it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from mirage_jax.models import functional
from mirage_jax.models.autoencoder import AutoencoderConfig

TINY = AutoencoderConfig(
    latent_channels=3,
    encoder_width=4,
    decoder_width=4,
    multipliers=(1, 2, 2),
    blocks=1,
    temporal_downsample=(True, True),
)
FAMILIES = {"wan22": TINY, "wan21": dataclasses.replace(TINY, patch=1, shortcuts=False)}
# Small sizes: compiling well takes longer than running.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def clip(frames: int, height: int = 8, width: int = 16, seed: int = 0) -> jax.Array:
    video = np.random.default_rng(seed).uniform(-1, 1, (1, frames, height, width, 3))
    return jnp.asarray(video, jnp.float32)


@functools.cache
def random_params(config: AutoencoderConfig) -> functional.Params:
    """Draw weights with NumPy: one compilation for each new shape makes `init` slow here."""
    random = np.random.default_rng(0)

    def draw(path, leaf):
        if leaf.ndim == 1:
            center = float(path[-1] in ("scale", "latent_std"))
            spread = 0.0 if path[0].startswith("latent_") else 0.1
            return jnp.asarray(center + spread * random.standard_normal(leaf.shape), jnp.float32)
        fan_in = np.prod(leaf.shape[:-1])
        return jnp.asarray(random.standard_normal(leaf.shape) / np.sqrt(fan_in), jnp.float32)

    flat = functional.flatten(functional.abstract_params(config))
    return functional.unflatten({path: draw(path, leaf) for path, leaf in flat.items()})
