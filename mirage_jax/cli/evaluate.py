"""`mirage evaluate`: measures a world on recorded clips it was not trained on.

Flags are checked here; the work is in `mirage_jax/eval/`. Reports are JSON, Markdown and a PNG.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import click


def _shared(function):
    """Add the options that every evaluation has."""
    options = (
        click.option("--data", default="data/doom", show_default=True, help="Dataset folder."),
        click.option("--split", default="val", show_default=True, help="Split of the dataset."),
        click.option("--weights", help="Folder of a world; default: the shipped one."),
        click.option("--out", default="outputs/evaluate", show_default=True, help="Report folder."),
    )
    for option in reversed(options):
        function = option(function)
    return function


_views = click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True)
_seed = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)


@click.group(help="Measure revisits, camera following, reads and the codec.")
def command() -> None:
    """Measures a world."""


@command.command(help="Leave a view, come back, compare the last frame with the first.")
@_shared
@click.option("--views", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--chunks", type=click.IntRange(min=1), default=4, show_default=True)
@click.option("--path", default="out-and-back", show_default=True, help="A preset that closes.")
@_views
@_seed
def revisit(data, split, weights, out, views, chunks, path, batch, seed) -> None:
    """Measures closed-loop revisits."""
    from pathlib import Path

    world, clips = _open(weights, data, split)

    from mirage_jax.eval.revisit import RevisitConfig, evaluate_revisit

    config = RevisitConfig(views=views, chunks=chunks, batch=batch, seed=seed, path=path)
    evaluate_revisit(world, clips, config, Path(out), click.echo)
    _show(out, "revisit")


@command.command(help="Follow recorded paths and compare with the true frames.")
@_shared
@click.option("--clips", "count", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--frames", type=click.IntRange(min=5), default=65, show_default=True)
@_views
@_seed
def rollout(data, split, weights, out, count, frames, batch, seed) -> None:
    """Measures camera following."""
    from pathlib import Path

    world, clips = _open(weights, data, split)

    from mirage_jax.eval.follow import FollowConfig, evaluate_following
    from mirage_jax.rollout.plan import round_up_frames

    frames = round_up_frames(frames, world.spec.chunk.temporal_stride)
    config = FollowConfig(clips=count, frames=frames, batch=batch, seed=seed)
    evaluate_following(world, clips, config, Path(out), click.echo)
    _show(out, "rollout")


@command.command(help="Write one frame, read it later, compare all ways to read.")
@_shared
@click.option("--quick", is_flag=True, help="One pair of frames of every third clip.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def read(data, split, weights, out, quick, as_json) -> None:
    """Measures reads of one written frame."""
    import json
    from pathlib import Path

    world, clips = _open(weights, data, split)

    from mirage_jax.eval import report
    from mirage_jax.eval.read import ReadConfig, evaluate_read

    def say(line: str) -> None:
        click.echo(line, err=as_json)

    results = evaluate_read(world, clips, ReadConfig(quick=quick), Path(out), say)
    if as_json:
        click.echo(json.dumps(report.jsonable(results), indent=2))
    else:
        _show(out, "read")


@command.command(help="Reconstruct clips, with the PCA codec of the same sizes beside it.")
@_shared
@click.option("--frames", type=click.IntRange(min=5), default=17, show_default=True)
@click.option("--fit-split", default="train", show_default=True, help="Split PCA is fitted on.")
def codec(data, split, weights, out, frames, fit_split) -> None:
    """Measures the codec."""
    from pathlib import Path

    from mirage_jax.data.source import open_clips
    from mirage_jax.eval.codec import evaluate_codec
    from mirage_jax.models import files
    from mirage_jax.rollout import shipped
    from mirage_jax.rollout import world as world_lib

    folder = Path(weights) if weights else shipped.DEFAULT_WORLD
    spec = world_lib.load_spec(folder)
    params = files.load_params(
        folder / f"{world_lib.WEIGHT_FILES['codec']}.safetensors", spec.codec
    )
    # A source has what these functions use of a sequence: length and indexing.
    clips, fit = (cast(Sequence[Any], open_clips(data, name)) for name in (split, fit_split))
    evaluate_codec(spec, params, clips, fit, Path(out), frames=frames)
    _show(out, "codec")


def _open(weights, data, split):
    """Open the world and the clips, clips first because that is quick to fail."""
    from pathlib import Path

    from mirage_jax.data.source import open_clips
    from mirage_jax.rollout import shipped
    from mirage_jax.rollout import world as world_lib

    clips = open_clips(data, split)
    return world_lib.load_world(Path(weights) if weights else shipped.DEFAULT_WORLD), clips


def _show(out, name) -> None:
    """Print a report and where it lies."""
    from pathlib import Path

    click.echo((Path(out) / f"{name}.md").read_text())
    click.echo(f"written to {out}")
