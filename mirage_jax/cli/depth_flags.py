"""Flags that say where depth comes from and how it is to be read, shared by all commands with it.

Read next: `mirage_jax/geometry/depth_files/depth_maps.py`, `mirage_jax/rollout/depth_sources.py`.
"""

from __future__ import annotations

from collections.abc import Callable
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


def near_far_flag(command: Callable) -> Callable:
    """Add --near-far, for disparity of unknown scale and shift."""
    text = "Of disparity: the nearest and the farthest distance, scene units."
    return click.option("--near-far", type=float, nargs=2, help=text)(command)
