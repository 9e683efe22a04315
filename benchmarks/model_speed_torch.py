"""The PyTorch side of `model_speed.py`: the same models and weights, compared, then timed.

Read next: `tests/parity/counterparts.py`, which makes the pairs.
"""

import argparse
import dataclasses
import os
from typing import Any

import jax
import numpy as np
import torch

from benchmarks import model_speed
from benchmarks.model_speed import Call, Sizes
from tests.parity.counterparts import (
    Pair,
    autoencoder_pair,
    denoiser_pair,
    relative_error,
    to_ours,
    to_theirs,
)

# What float32 may differ by before a timing means nothing. A loss is a mean over a million squares;
# it was seen to differ by 1e-4 where outputs differ by 4e-6, so rounding of the sum is allowed for.
ALLOWED, ALLOWED_LOSS = 1e-4, 1e-3


def paired_calls(
    sizes: Sizes, inputs: tuple[np.ndarray, ...], video: np.ndarray, options: argparse.Namespace
) -> dict[str, dict[str, Call]]:
    """Return, for each measurement, the calls of both sides, after comparing their results.

    Raises:
      ValueError: If the two sides do not compute the same.
    """
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    pairs: dict[str, dict[str, Call]] = {}
    pair = denoiser_pair(sizes.denoiser)
    theirs = _denoiser(pair.theirs, inputs)
    ours = model_speed.our_denoiser(pair.config, pair.params, inputs)
    _add(pairs, "denoiser", ours, {"torch": _calls(pair.theirs, theirs)})
    if options.compile:
        compiled = _denoiser(torch.compile(pair.theirs), inputs)
        for name, call in zip(("forward", "backward"), _calls(pair.theirs, compiled), strict=True):
            pairs[f"denoiser {name}"]["torch.compile"] = call
    if options.bfloat16:
        pairs["denoiser forward bfloat16"] = _bfloat16(pair, inputs)
    pair = autoencoder_pair(sizes.autoencoder)
    theirs = _autoencoder(pair.theirs, video)
    ours = model_speed.our_autoencoder(pair.config, pair.params, video)
    _add(pairs, "autoencoder", ours, {"torch": _calls(pair.theirs, theirs)})
    return pairs


def _add(pairs: dict, name: str, ours: list[Call], theirs: dict[str, list[Call]]) -> None:
    """Compare outputs and losses, then note the calls."""
    forward, backward = theirs["torch"]
    error = relative_error(ours[0](), to_ours(forward()))
    loss = float(ours[1]()[0])
    difference = abs(loss - float(backward())) / loss
    print(f"{name}: relative difference of outputs {error:.1e}, of losses {difference:.1e}")
    if error > ALLOWED or difference > ALLOWED_LOSS:
        raise ValueError(
            f"{name}: outputs differ by {error:.1e}, losses by {difference:.1e}, allowed "
            f"{ALLOWED:.0e} and {ALLOWED_LOSS:.0e}; a speed means nothing before they agree"
        )
    for number, part in enumerate(("forward", "backward")):
        pairs[f"{name} {part}"] = {"ours": ours[number]} | {
            side: calls[number] for side, calls in theirs.items()
        }


def _denoiser(module: Any, inputs: tuple[np.ndarray, ...], dtype: Any = torch.float32) -> Call:
    x, timestep, text = inputs
    tokens = x.shape[2] * x.shape[3] // 4
    arguments = (
        to_theirs(x).to(dtype),
        torch.from_numpy(np.repeat(timestep, tokens, axis=1)),
        torch.from_numpy(text).to(dtype),
    )
    return lambda: module(*arguments, return_dict=False)[0]


def _autoencoder(module: Any, video: np.ndarray) -> Call:
    pixels = to_theirs(video)
    return lambda: module.decode(module.encode(pixels).latent_dist.mode()).sample


def _calls(module: torch.nn.Module, forward: Call) -> list[Call]:
    """Return a forward call without gradients and one with the backward pass of its mean square."""

    def without_gradients() -> torch.Tensor:
        with torch.no_grad():
            return forward()

    def with_backward() -> torch.Tensor:
        for weight in module.parameters():
            weight.grad = None
        loss = forward().square().mean()
        loss.backward()
        return loss.detach()

    return [without_gradients, with_backward]


def _bfloat16(pair: Pair, inputs: tuple[np.ndarray, ...]) -> dict[str, Call]:
    """Return forward calls with weights and activations in bfloat16 on both sides."""
    config = dataclasses.replace(pair.config, dtype="bfloat16")
    params = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), pair.params)
    ours = model_speed.our_denoiser(config, params, inputs)[0]
    module = type(pair.theirs)(**{k: v for k, v in pair.theirs.config.items() if k[0] != "_"})
    module.load_state_dict(pair.theirs.state_dict())
    module = module.to(torch.bfloat16)
    return {"ours": ours, "torch": _calls(module, _denoiser(module, inputs, torch.bfloat16))[0]}
