"""Flags of depth, masks and sky: where they come from and how they are to be read.

Read next: `mirage_jax/geometry/depth_files/depth_maps.py`, `mirage_jax/rollout/depth_sources.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

_AS_HELP = (
    "What depth does not say: z, ray or disparity; mm, m or unit=NUMBER (scene units of one step "
    "of whole numbers). May be repeated."
)


def depth_reading_flags(command: Callable) -> Callable:
    """Add --depth-as and --depth-device; see `resolve_depth_reading`."""
    for option in (
        click.option("--depth-device", default="cpu", help="Of PyTorch, for hf:MODEL."),
        click.option("--depth-as", "depth_words", multiple=True, metavar="WORD", help=_AS_HELP),
    ):
        command = option(command)
    return command


def resolve_depth_reading(words: tuple[str, ...]) -> Any:
    """Return the `DepthReading` that --depth-as asks for."""
    from mirage_jax.geometry.depth_files import depth_reading_of

    return depth_reading_of(words)


def mask_flags(text: str) -> Callable[[Callable], Callable]:
    """Add --mask, --mask-as and --mask-labels; `text` says what the file holds."""

    def add(command: Callable) -> Callable:
        for option in (
            mask_labels_flag,
            click.option(
                "--mask-as",
                type=click.Choice(("keep", "moving")),
                help="What non-zero means in --mask, where the file does not say.",
            ),
            click.option("--mask", type=click.Path(), help=text),
        ):
            command = option(command)
        return command

    return add


def mask_labels_flag(command: Callable) -> Callable:
    """Add --mask-labels, of --mask hf:MODEL."""
    text = "Labels of hf:MODEL that are not kept, a,b; default: people, animals, vehicles, sky."
    return click.option("--mask-labels", default="", help=text)(command)


@contextmanager
def open_masks(mask: str | None, labels: str, device: str) -> Iterator[Any]:
    """Yield the model that --mask hf:MODEL names, or None for a file or nothing."""
    from mirage_jax.rollout.hub_masks import HUB, HubMasks

    if mask is None or not mask.startswith(HUB):
        if labels:
            raise click.UsageError("--mask-labels needs --mask hf:MODEL")
        yield None
        return
    with HubMasks(mask.removeprefix(HUB), labels.split(","), device) as model:
        yield model


def sky_flags(command: Callable) -> Callable:
    """Add --sky and --sky-beyond."""
    for option in (
        click.option(
            "--sky-beyond",
            type=click.FloatRange(min=0, min_open=True),
            help="z-depth from which on everything is sky, scene units; default: the world's.",
        ),
        click.option(
            "--sky",
            type=click.Choice(("far", "unknown")),
            help="Remember sky as a surface far away, or not at all; default: the world's.",
        ),
    ):
        command = option(command)
    return command


def near_far_flag(command: Callable) -> Callable:
    """Add --near-far, for disparity of unknown scale and shift."""
    text = "Of disparity: the nearest and the farthest distance, scene units."
    return click.option("--near-far", type=float, nargs=2, help=text)(command)
