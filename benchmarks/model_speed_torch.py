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
import torch.nn.functional as F

from benchmarks import model_speed_ours as ours
from benchmarks.model_speed_ours import Call, Sizes
from tests.parity.counterparts import (
    Pair,
    autoencoder_pair,
    denoiser_pair,
    relative_error,
    to_ours,
    to_theirs,
)

# What float32 may differ by before a timing means nothing, of results and of mean squares; the
# latter against the float64 mean square of each side's own result. One product and one attention
# of the quick size are 6e-8 off at most; the models' have not been looked at yet.
ALLOWED, ALLOWED_LOSS = 1e-4, 1e-5

Calls = dict[str, list[Call]]


def paired_calls(sizes: Sizes, options: argparse.Namespace) -> dict[str, dict[str, Call]]:
    """Return, for each measurement, the calls of both sides, after comparing their results.

    Raises:
      ValueError: If the two sides do not compute the same.
    """
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    pairs: dict[str, dict[str, Call]] = {}
    makers = {
        "product": _product_sides,
        "attention": _attention_sides,
        "denoiser": _denoiser_sides,
        "autoencoder": _autoencoder_sides,
    }
    for part in options.only:
        sides = makers[part](sizes, options)
        half = sides.pop("bfloat16", None)
        _compare(part, sides["ours"], sides["torch"])
        for number, way in enumerate(("forward", "backward")):
            pairs[f"{part} {way}"] = {side: calls[number] for side, calls in sides.items()}
        if half:
            pairs[f"{part} forward bfloat16"] = dict(zip(("ours", "torch"), half, strict=True))
    return pairs


def _compare(part: str, our_calls: list[Call], their_calls: list[Call]) -> None:
    """Compare results with each other, and each side's loss with that of its result in float64."""
    theirs = their_calls[0]()
    is_model = part in ("denoiser", "autoencoder")  # whose channels PyTorch keeps second
    results = np.asarray(our_calls[0]()), to_ours(theirs) if is_model else theirs.numpy()
    error = relative_error(*results)
    exact = [np.mean(np.square(np.asarray(result, np.float64))) for result in results]
    losses = float(our_calls[1]()[0]), float(their_calls[1]())
    off = [abs(loss - mean) / mean for loss, mean in zip(losses, exact, strict=True)]
    print(
        f"{part}: results differ by {error:.1e}; losses from their float64 sum by {off[0]:.1e} "
        f"(ours) and {off[1]:.1e} (torch)",
        flush=True,
    )
    if error > ALLOWED or max(off) > ALLOWED_LOSS:
        raise ValueError(
            f"{part}: results differ by {error:.1e}, losses from a float64 sum by {max(off):.1e}, "
            f"allowed {ALLOWED:.0e} and {ALLOWED_LOSS:.0e}; a speed means nothing before they agree"
        )


def _product_sides(sizes: Sizes, options: argparse.Namespace) -> Calls:
    inputs = ours.product_inputs(sizes)
    x, kernel = (torch.from_numpy(part).requires_grad_() for part in inputs)
    theirs = _calls([x, kernel], lambda: x @ kernel)
    return {"ours": ours.product(inputs), "torch": theirs}


def _attention_sides(sizes: Sizes, options: argparse.Namespace) -> Calls:
    inputs = ours.attention_inputs(sizes)
    parts = [torch.from_numpy(part).requires_grad_() for part in inputs]

    def forward() -> torch.Tensor:
        heads_first = (part.transpose(1, 2) for part in parts)
        return F.scaled_dot_product_attention(*heads_first).transpose(1, 2)

    sides = {"ours": ours.attend(inputs), "torch": _calls(parts, forward)}
    return sides | {"jax.nn": ours.attend(inputs, "library")}


def _denoiser_sides(sizes: Sizes, options: argparse.Namespace) -> Calls:
    pair, inputs = denoiser_pair(sizes.denoiser), ours.denoiser_inputs(sizes)
    weights = list(pair.theirs.parameters())
    sides = {
        "ours": ours.denoiser(pair.config, pair.params, inputs),
        "torch": _calls(weights, _denoiser(pair.theirs, inputs)),
    }
    if options.compile:
        sides["torch.compile"] = _calls(weights, _denoiser(torch.compile(pair.theirs), inputs))
    if options.bfloat16:
        sides["bfloat16"] = _bfloat16(pair, inputs)
    return sides


def _autoencoder_sides(sizes: Sizes, options: argparse.Namespace) -> Calls:
    pair, video = autoencoder_pair(sizes.autoencoder), ours.autoencoder_inputs(sizes)
    theirs = _calls(list(pair.theirs.parameters()), _autoencoder(pair.theirs, video))
    return {"ours": ours.autoencoder(pair.config, pair.params, video), "torch": theirs}


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


def _calls(weights: list[torch.Tensor], forward: Call) -> list[Call]:
    """Return a forward call without gradients and one with the backward pass of its mean square."""

    def without_gradients() -> torch.Tensor:
        with torch.no_grad():
            return forward()

    def with_backward() -> torch.Tensor:
        for weight in weights:
            weight.grad = None
        loss = forward().square().mean()
        loss.backward()
        return loss.detach()

    return [without_gradients, with_backward]


def _bfloat16(pair: Pair, inputs: tuple[np.ndarray, ...]) -> list[Call]:
    """Return forward calls with weights and activations in bfloat16, ours and theirs."""
    config = dataclasses.replace(pair.config, dtype="bfloat16")
    params = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), pair.params)
    module = type(pair.theirs)(**{k: v for k, v in pair.theirs.config.items() if k[0] != "_"})
    module.load_state_dict(pair.theirs.state_dict())
    module = module.to(torch.bfloat16)
    theirs = _calls(list(module.parameters()), _denoiser(module, inputs, torch.bfloat16))
    return [ours.denoiser(config, params, inputs)[0], theirs[0]]
