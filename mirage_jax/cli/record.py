"""`mirage record`: record clips of a world with exact depth and cameras.

`doom` plays Freedoom levels, `procedural` draws textured boxes without any game. Read next:
`mirage_jax/data/doom/dataset.py` and `mirage_jax/data/procedural.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

_OUT = click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the data set; splits are added to it.",
)
_SEED = click.option("--seed", default=0, show_default=True, help="Same seed, same clips.")
_FRAMES = click.option(
    "--frames", default=81, show_default=True, type=click.IntRange(min=2), help="Frames a clip."
)


@click.group(help="Record clips of a world with depth and cameras.")
def command() -> None:
    """Groups the worlds that can be recorded."""


@command.command()
@_OUT
@click.option("--split", type=click.Choice(["train", "val"]), required=True)
@click.option("--clips-per-level", default=16, show_default=True, type=click.IntRange(min=1))
@_SEED
@_FRAMES
@click.option("--workers", default=1, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--level",
    "levels",
    multiple=True,
    help="Record only this level, e.g. freedoom2/MAP01; repeatable. Default: all of the split.",
)
def doom(
    out: Path,
    split: str,
    clips_per_level: int,
    seed: int,
    frames: int,
    workers: int,
    levels: tuple[str, ...],
) -> None:
    """Record Freedoom levels; levels outside the split are refused.

    Stopped recordings go on where they were when the same command is given again.
    """
    _require_game()
    from mirage_jax.data.doom.dataset import RecordConfig, SplitRequest, record_split
    from mirage_jax.data.doom.levels import parse_level

    request = SplitRequest(
        directory=str(out),
        split=split,
        clips_per_level=clips_per_level,
        seed=seed,
        levels=tuple(parse_level(level) for level in levels),
        record=RecordConfig(frames=frames),
    )
    record_split(request, workers=workers, report=lambda one: _print_level(one, frames))
    click.echo(f"{split}: {len(request.chosen_levels) * clips_per_level} clips in {out}")


def _require_game() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("vizdoom", "numba") if find_spec(name) is None]
    if missing:
        raise click.UsageError(
            f"recording Doom needs {' and '.join(missing)}; pip install 'mirage-jax[doom]'"
        )


def _print_level(report: Any, frames: int) -> None:
    if not report.seconds:
        click.echo(f"{report.level}: already recorded")
        return
    speed = report.clips * frames / report.seconds
    reasons = ", ".join(f"{reason} {count}" for reason, count in report.rejected.most_common())
    click.echo(
        f"{report.level}: {report.clips} clips, {speed:.0f} frames/s, "
        f"rejected {report.rejected.total()} ({reasons or 'none'})"
    )


@command.command()
@_OUT
@click.option("--split", type=click.Choice(["train", "val"]), default="train", show_default=True)
@click.option("--clips", default=4, show_default=True, type=click.IntRange(min=1))
@_SEED
@_FRAMES
def procedural(out: Path, split: str, clips: int, seed: int, frames: int) -> None:
    """Draw rooms of textured boxes with one moving box; needs no game."""
    from mirage_jax.data.procedural import ProceduralConfig, record_split

    record_split(out, split, clips, seed=seed, config=ProceduralConfig(frames=frames))
    click.echo(f"{split}: {clips} clips in {out}")
