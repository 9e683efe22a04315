"""Speed of the models beside the same models of Diffusers in PyTorch, in one run on this CPU.

`python -m benchmarks.model_speed` times a denoiser (width 512, 8 blocks, 3,920 tokens) and an
autoencoder (17 frames of 128x192), forward and forward with backward, in float32 on the same
threads. Both sides hold the same weights and their outputs are compared before anything is timed;
calls take turns and medians are reported. A ratio is PyTorch's time over ours: above 1 ours is
faster. The last line is one JSON object. Without PyTorch ours is timed alone.

`--quick` is smaller, `--bfloat16` adds a denoiser in bfloat16, `--compile` adds `torch.compile`.

Read next: `benchmarks/README.md` for results, and what was tried.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import interleave
from mirage_jax.models import functional
from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.models.denoiser import DenoiserConfig, FrameLayout

MISSING = "PyTorch and Diffusers are not installed, ours is timed alone; for both: make parity"
TEXT_TOKENS = 64

Call = Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is timed."""

    denoiser: DenoiserConfig
    latents: tuple[int, ...]
    autoencoder: AutoencoderConfig
    video: tuple[int, ...]


def sizes(quick: bool) -> Sizes:
    """Return the mid size, or a small one; blocks are unrolled, which compiles longer."""
    layers = 2 if quick else 8
    denoiser = DenoiserConfig(
        width=256 if quick else 512,
        heads=4,
        layers=layers,
        mlp_width=1024 if quick else 2048,
        text_width=256,
        branch_layers=(),
        condition_channels=0,
        unroll=layers,
    )
    autoencoder = AutoencoderConfig(
        encoder_width=16 if quick else 32, decoder_width=16 if quick else 48
    )
    if quick:
        return Sizes(denoiser, (1, 5, 28, 28, 48), autoencoder, (1, 5, 64, 96, 3))
    return Sizes(denoiser, (1, 5, 56, 56, 48), autoencoder, (1, 17, 128, 192, 3))


def with_backward(forward: Callable[[Any], jax.Array], params: Any) -> Callable[[], Any]:
    """Return a call of the mean square of `forward` with its gradient by all parameters."""
    step = jax.jit(jax.value_and_grad(lambda params: jnp.mean(jnp.square(forward(params)))))
    return lambda: step(params)


def denoiser_inputs(config: DenoiserConfig, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Return latents, a timestep a frame, and text."""
    random = np.random.default_rng(0)
    timestep = random.uniform(0, 1000, shape[:2]).astype(np.float32)
    text = random.standard_normal((shape[0], TEXT_TOKENS, config.text_width), np.float32)
    return random.standard_normal(shape, np.float32), timestep, text


def our_denoiser(config: DenoiserConfig, params: Any, inputs: tuple[np.ndarray, ...]) -> list[Call]:
    """Return a forward call and one with its backward pass."""
    x, timestep, text = (jnp.asarray(part) for part in inputs)
    frames = FrameLayout(0, x.shape[1], 0)

    def forward(params: Any) -> jax.Array:
        return functional.apply(config, params, x, timestep, None, text, frames)

    run = jax.jit(forward)
    return [lambda: run(params), with_backward(forward, params)]


def our_autoencoder(config: AutoencoderConfig, params: Any, video: np.ndarray) -> list[Call]:
    """Return a reconstruction, cut to [-1, 1] as theirs is, and one with its backward pass."""
    pixels = jnp.asarray(video)

    def forward(params: Any) -> jax.Array:
        return jnp.clip(functional.apply(config, params, pixels), -1, 1)

    run = jax.jit(forward)
    return [lambda: run(params), with_backward(forward, params)]


def main(arguments: list[str] | None = None) -> None:
    """Print a line a measurement, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller sizes")
    parser.add_argument("--bfloat16", action="store_true", help="also a denoiser in bfloat16")
    parser.add_argument("--compile", action="store_true", help="also torch.compile")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds of all calls")
    options = parser.parse_args(arguments)
    chosen = sizes(options.quick)
    inputs = denoiser_inputs(chosen.denoiser, chosen.latents)
    video = np.random.default_rng(1).uniform(-1, 1, chosen.video).astype(np.float32)
    if all(importlib.util.find_spec(name) for name in ("torch", "diffusers")):
        from benchmarks import model_speed_torch

        pairs = model_speed_torch.paired_calls(chosen, inputs, video, options)
    else:
        print(MISSING)
        denoiser, autoencoder = chosen.denoiser, chosen.autoencoder
        calls = our_denoiser(denoiser, functional.init(denoiser, 0), inputs)
        calls += our_autoencoder(autoencoder, functional.init(autoencoder, 0), video)
        names = [f"{m} {p}" for m in ("denoiser", "autoencoder") for p in ("forward", "backward")]
        pairs = {name: {"ours": call} for name, call in zip(names, calls, strict=True)}
    report(pairs, options.rounds)


def report(pairs: Mapping[str, Mapping[str, Call]], rounds: int) -> None:
    """Time all sides of all measurements and print them."""
    summary: dict[str, Any] = {"threads": len(os.sched_getaffinity(0)), "seconds": {}, "ratios": {}}
    for name, sides in pairs.items():
        seconds = {side: ms / 1e3 for side, ms in interleave(sides, rounds).items()}
        line = "  ".join(f"{side} {value:7.3f} s" for side, value in seconds.items())
        summary["seconds"][name] = {side: round(value, 4) for side, value in seconds.items()}
        for side in sides.keys() - {"ours"}:
            ratio = seconds[side] / seconds["ours"]
            line += f"  {side} / ours {ratio:.2f}"
            summary["ratios"].setdefault(name, {})[side] = round(ratio, 3)
        print(f"{name:28s} {line}", flush=True)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
