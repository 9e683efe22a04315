"""Flags that say how a camera file is to be read, shared by all commands that read one.

Read next: `mirage_jax/geometry/camera_files/reading.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

_AS_HELP = (
    "What the file does not say: c2w or w2c, opencv or opengl, pixels or normalized, original or "
    "turned, half-pixel or whole-pixel. May be repeated."
)


def parse_size(ctx: Any, param: Any, value: str | None) -> tuple[int, int] | None:
    """Turn "HEIGHTxWIDTH" into two numbers."""
    if value is None:
        return None
    parts = value.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and 0 < int(part) < 10**6 for part in parts):
        raise click.BadParameter(f"got {value!r}, expected HEIGHTxWIDTH such as 704x1280")
    return int(parts[0]), int(parts[1])


def parse_intrinsics(ctx: Any, param: Any, value: str | None) -> tuple[float, ...] | None:
    """Turn "fx,fy,cx,cy" into four numbers."""
    if value is None:
        return None
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 4:
        raise click.BadParameter(f"got {value!r}, expected four numbers fx,fy,cx,cy in pixels")
    return numbers


def reading_flags(command: Callable) -> Callable:
    """Add --as, --format, --size, --intrinsics and --fov; they arrive as keyword arguments."""
    for option in (
        click.option("--fov", type=click.FloatRange(1, 170), help="Horizontal, with --size."),
        click.option("--intrinsics", callback=parse_intrinsics, help="fx,fy,cx,cy in pixels."),
        click.option("--size", callback=parse_size, help="HEIGHTxWIDTH of the images."),
        click.option("--format", "kind", help="Of the file, instead of telling by its content."),
        click.option("--as", "words", multiple=True, metavar="WORD", help=_AS_HELP),
    ):
        command = option(command)
    return command


def resolve_reading(
    words: tuple[str, ...],
    size: tuple[int, int] | None,
    intrinsics: tuple[float, ...] | None,
    fov: float | None,
) -> Any:
    """Return the `Reading` that the flags ask for."""
    import numpy as np

    from mirage_jax.geometry.camera_files import reading_of
    from mirage_jax.geometry.camera_files.matrices import intrinsics_matrix

    if fov is not None:
        if intrinsics is not None or size is None:
            raise click.UsageError("--fov needs --size, and excludes --intrinsics")
        focal = 0.5 * size[1] / np.tan(np.radians(fov) / 2)
        intrinsics = (focal, focal, 0.5 * size[1], 0.5 * size[0])
    matrix = None if intrinsics is None else intrinsics_matrix(intrinsics)
    return reading_of(words, hw=size, intrinsics=matrix)
