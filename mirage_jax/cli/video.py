"""`mirage video`: brings videos into the format that a README, a player or a tool wants.

The work is in `mirage_jax/rollout/video.py`.
"""

from __future__ import annotations

from pathlib import Path

import click


@click.group(help="Convert videos to mp4, GIF, WebP or folders of pictures.")
def command() -> None:
    """Groups what can be done with videos."""


@command.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--fps", type=click.FloatRange(0.1, 240), help="Default: that of SOURCE, else 8.")
@click.option("--width", type=click.IntRange(2, 16384), help="Resize to so many pixels across.")
@click.option("--every", type=click.IntRange(min=1), default=1, help="Keep each so-many-th frame.")
@click.option("--beside", type=click.Path(path_type=Path), help="Video to put to the right.")
def convert(
    source: Path, target: Path, fps: float | None, width: int | None, every: int,
    beside: Path | None,
) -> None:  # fmt: skip
    """Write SOURCE, a video or a folder of pictures, as TARGET.

    TARGET ends in .mp4 (H.264), .gif or .webp, or is a folder for single pictures. --every drops
    frames and keeps the speed.
    """
    import itertools

    from mirage_jax.rollout import video

    rate = (fps or video.frame_rate(source) or 8.0) / every
    frames = video.iterate_video(source)
    if beside is not None:
        frames = video.beside(frames, video.iterate_video(beside))
    frames = itertools.islice(frames, 0, None, every)
    if width is not None:
        frames = video.resized(frames, width)
    if target.exists() and source.exists() and target.samefile(source):
        raise click.UsageError("TARGET: got SOURCE itself, expected another name")
    video.write_any(target, frames, rate)
    click.echo(f"written to {target}, {rate:g} frames a second")
