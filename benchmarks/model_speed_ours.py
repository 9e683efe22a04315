"""Our side of `model_speed.py`: what is timed, and the calls that do it.

Conventions: a measurement is a forward call and one of the mean square of its result with the
gradient by all parameters. Operations are those of the model itself, a backward pass counted as
two forward ones; what is computed anew in it is not counted.

Read next: `model_speed_torch.py`, the other side.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

from mirage_jax.models import attention, functional
from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.models.denoiser import DenoiserConfig, FrameLayout

TEXT_TOKENS = 64

Call = Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is timed."""

    denoiser: DenoiserConfig
    latents: tuple[int, ...]
    autoencoder: AutoencoderConfig
    video: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens of the denoiser."""
        return int(np.prod(self.latents[:-1])) // self.denoiser.patch_cells


def sizes(quick: bool, remat: str, unroll: int) -> Sizes:
    """Return the mid size, or a small one."""
    layers = 2 if quick else 8
    denoiser = DenoiserConfig(
        width=256 if quick else 512,
        heads=4,
        layers=layers,
        mlp_width=1024 if quick else 2048,
        text_width=256,
        branch_layers=(),
        condition_channels=0,
        remat=remat,
        unroll=min(unroll, layers),
    )
    autoencoder = AutoencoderConfig(
        encoder_width=16 if quick else 32, decoder_width=16 if quick else 48
    )
    if quick:
        return Sizes(denoiser, (1, 5, 28, 28, 48), autoencoder, (1, 5, 64, 96, 3))
    return Sizes(denoiser, (1, 5, 56, 56, 48), autoencoder, (1, 17, 128, 192, 3))


def operations(sizes: Sizes) -> dict[str, float]:
    """Return floating-point operations of one forward pass, where they are easily counted."""
    config, n = sizes.denoiser, sizes.tokens
    width = config.width
    weights = 6 * width**2 + 2 * width * config.mlp_width
    scores = 4 * n**2 * width
    block = 2 * n * weights + scores + 4 * n * TEXT_TOKENS * width
    return {
        "product": 2 * n * width * config.mlp_width,
        "attention": scores,
        "denoiser": config.layers * block,
    }


def mean_square(x: jax.Array) -> jax.Array:
    """Return the mean square, summed axis by axis: one long float32 sum is off by 1e-4."""
    square = x * x
    while square.ndim:
        square = square.mean(axis=-1)
    return square


def both_ways(forward: Callable[[Any], jax.Array], params: Any) -> list[Call]:
    """Return a call of `forward`, and one of its mean square with the gradient by `params`."""
    run = jax.jit(forward)
    step = jax.jit(jax.value_and_grad(lambda params: mean_square(forward(params))))
    return [lambda: run(params), lambda: step(params)]


def product_inputs(sizes: Sizes) -> tuple[np.ndarray, ...]:
    """Return the tokens and the kernel of the feed-forward net's first map."""
    random, config = np.random.default_rng(2), sizes.denoiser
    x = random.standard_normal((sizes.tokens, config.width), np.float32)
    return x, random.standard_normal((config.width, config.mlp_width), np.float32)


def product(inputs: tuple[np.ndarray, ...]) -> list[Call]:
    """Return the calls of one matrix product."""
    return both_ways(lambda both: both[0] @ both[1], tuple(jnp.asarray(part) for part in inputs))


def attention_inputs(sizes: Sizes) -> tuple[np.ndarray, ...]:
    """Return queries, keys and values [1, n, heads, d] of one self-attention."""
    random, config = np.random.default_rng(3), sizes.denoiser
    shape = (1, sizes.tokens, config.heads, config.width // config.heads)
    return tuple(random.standard_normal(shape, np.float32) for _ in range(3))


def attend(inputs: tuple[np.ndarray, ...], way: str = "auto") -> list[Call]:
    """Return the calls of one attention."""
    run = {"auto": attention.attend, "library": jax.nn.dot_product_attention}[way]
    return both_ways(lambda parts: run(*parts), tuple(jnp.asarray(part) for part in inputs))


def denoiser_inputs(sizes: Sizes) -> tuple[np.ndarray, ...]:
    """Return latents, a timestep a frame, and text."""
    random, shape = np.random.default_rng(0), sizes.latents
    timestep = random.uniform(0, 1000, shape[:2]).astype(np.float32)
    text = (shape[0], TEXT_TOKENS, sizes.denoiser.text_width)
    x = random.standard_normal(shape, np.float32)
    return x, timestep, random.standard_normal(text, np.float32)


def denoiser(config: DenoiserConfig, params: Any, inputs: tuple[np.ndarray, ...]) -> list[Call]:
    """Return the calls of the denoiser."""
    x, timestep, text = (jnp.asarray(part) for part in inputs)
    frames = FrameLayout(0, x.shape[1], 0)
    return both_ways(
        lambda params: functional.apply(config, params, x, timestep, None, text, frames), params
    )


def autoencoder_inputs(sizes: Sizes) -> np.ndarray:
    """Return a video in [-1, 1]."""
    return np.random.default_rng(1).uniform(-1, 1, sizes.video).astype(np.float32)


def autoencoder(config: AutoencoderConfig, params: Any, video: np.ndarray) -> list[Call]:
    """Return the calls of a reconstruction, cut to [-1, 1] as theirs is."""
    pixels = jnp.asarray(video)
    return both_ways(
        lambda params: jnp.clip(functional.apply(config, params, pixels), -1, 1), params
    )


def calls(sizes: Sizes, only: list[str]) -> dict[str, list[Call]]:
    """Return the calls of the parts named."""
    made = {
        "product": lambda: product(product_inputs(sizes)),
        "attention": lambda: attend(attention_inputs(sizes)),
        "denoiser": lambda: denoiser(
            sizes.denoiser, functional.init(sizes.denoiser, 0), denoiser_inputs(sizes)
        ),
        "autoencoder": lambda: autoencoder(
            sizes.autoencoder, functional.init(sizes.autoencoder, 0), autoencoder_inputs(sizes)
        ),
    }
    return {name: made[name]() for name in only}
