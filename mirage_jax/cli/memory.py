"""`mirage memory`: looks into saved memories, draws them, joins them and cuts them down.

The work is in `mirage_jax/memory/` (`summary.py`, `edit.py`, `files.py`) and
`mirage_jax/eval/pictures/memory_view.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

_FILE = click.argument("file", type=click.Path(path_type=Path))
_OUT = click.option(
    "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="File to write."
)


@click.group(help="Look into saved memories, draw them, join them, cut them down.")
def command() -> None:
    """Groups what can be done with memory files."""


@command.command()
@_FILE
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def info(file: Path, as_json: bool) -> None:
    """Print rows, pages, partitions, bytes, extent and config of FILE."""
    import dataclasses
    import json

    from mirage_jax.memory import files, summary

    memory, config = files.load(file)
    found = summary.summarize(memory, config)
    if as_json:
        click.echo(json.dumps(found | {"config": dataclasses.asdict(config)}))
        return
    lines = [f"{name}={value}" for name, value in dataclasses.asdict(config).items()]
    click.echo("\n".join([*summary.summary_lines(found), "config      " + " ".join(lines)]))


@command.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@_OUT
@click.option(
    "--keep",
    type=click.Choice(["append", "newest", "closest_view", "mean"]),
    help="Rule for rows of one voxel. Default: that of the first file.",
)
@click.option("--voxel-size", type=click.FloatRange(min=0, min_open=True), help="Scene units.")
def merge(sources: tuple[Path, ...], out: Path, keep: Any, voxel_size: float | None) -> None:
    """Join the memories in SOURCES, the first written first, into one file.

    All must share one world frame, as rollouts from one scene do.
    """
    from mirage_jax.memory import edit, files

    memories, configs = zip(*(files.load(source) for source in sources), strict=True)
    total = sum(int(memory.count) for memory in memories)
    config = edit.joined_config(configs, total, keep, voxel_size)
    joined = edit.join(memories, config)
    files.save(out, joined, config)
    click.echo(f"{total:,} rows of {len(sources)} files became {int(joined.count):,} in {out}")


@command.command()
@_FILE
@_OUT
@click.option("--box", nargs=6, type=float, metavar="X Y Z X Y Z", help="Least, greatest corner.")
@click.option("--sphere", nargs=4, type=float, metavar="X Y Z R", help="Centre and radius.")
@click.option("--time", nargs=2, type=int, metavar="FIRST LAST", help="Stamps, both inside.")
@click.option("--outside", is_flag=True, help="Keep what is not in there instead.")
def crop(
    file: Path,
    out: Path,
    box: tuple[float, ...] | None,
    sphere: tuple[float, ...] | None,
    time: tuple[int, int] | None,
    outside: bool,
) -> None:
    """Keep only the rows of FILE inside a box, a sphere and a range of time."""
    import numpy as np

    from mirage_jax.memory import edit, files

    if not (box or sphere or time):
        raise click.UsageError("crop needs at least one of --box, --sphere and --time")
    region = edit.Region(
        box=np.reshape(box, (2, 3)) if box else None,
        center=np.array(sphere[:3]) if sphere else None,
        radius=sphere[3] if sphere else 0.0,
        time=time,
    )
    memory, config = files.load(file)
    kept = edit.crop(memory, config, region, outside)
    files.save(out, kept, config)
    click.echo(f"{int(kept.count):,} of {int(memory.count):,} rows kept in {out}")


@command.command()
@_FILE
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--weights", help="World whose codec decodes the colours; default: false colours.")
def export(file: Path, target: Path, weights: str | None) -> None:
    """Write the rows of FILE as a point cloud (TARGET.ply) or as arrays (TARGET.npz)."""
    from mirage_jax.memory import files

    if target.suffix not in (".ply", ".npz"):
        raise click.UsageError(f"TARGET: got {target.name}, expected a name ending in .ply or .npz")
    memory, _ = files.load(file)
    if target.suffix == ".npz":
        files.export_npz(target, memory)
    else:
        files.export_ply(target, memory, _decoded(memory, weights) if weights else None)
    click.echo(f"{int(memory.count):,} rows written to {target}")


@command.command()
@_FILE
@_OUT
@click.option(
    "--cameras",
    type=click.Path(exists=True, path_type=Path),
    help="Camera file, or the output folder of a rollout; default: what lies beside FILE.",
)
@click.option("--cameras-as", multiple=True, metavar="WORD", help="How to read them: c2w, ...")
@click.option(
    "--colors",
    type=click.Choice(["decoded", "pca"]),
    default="decoded",
    show_default=True,
    help="Colours of the codec, or the three main directions of the tokens.",
)
@click.option("--weights", help="World whose codec decodes; default: the shipped one.")
def view(
    file: Path, out: Path, cameras: Path | None, cameras_as: tuple[str, ...], colors: str,
    weights: str | None,
) -> None:  # fmt: skip
    """Draw FILE from above and in perspective, with the cameras, as a PNG."""
    from mirage_jax.eval.pictures.memory_scene import drawn_scene
    from mirage_jax.eval.pictures.memory_view import write_memory_view
    from mirage_jax.geometry.camera_files import load_cameras, reading_of
    from mirage_jax.memory import files
    from mirage_jax.memory.rows import rows_in_order

    memory, _ = files.load(file)
    rows = rows_in_order(memory)
    source = _camera_file(file, cameras)
    reading = reading_of(cameras_as)
    camera, hw = load_cameras(source, reading=reading) if source else (None, None)
    decoded = colors == "decoded"
    shades = _decoded(memory, weights) if decoded else files.false_colors(rows)
    scene = drawn_scene(rows.positions, rows.depth, shades, camera, hw or (1, 1))
    meaning = "colours decoded from the tokens" if decoded else "colours: main token directions"
    write_memory_view(
        out, scene, f"{file.resolve().parent.name}/{file.name}: {len(rows.depth):,} rows", meaning
    )
    click.echo(f"written to {out}" + (f", cameras of {source}" if source else ", without cameras"))


def _camera_file(file: Path, given: Path | None) -> Path | None:
    """Return the camera file to draw: the given one, a folder's, or the one beside the memory."""
    from mirage_jax.rollout.outputs import CAMERAS

    if given is not None:
        return given / CAMERAS if given.is_dir() else given
    beside = file.parent / CAMERAS
    return beside if beside.is_file() else None


def _decoded(memory: Any, weights: str | None) -> Any:
    """Return the decoded colour of each row."""
    from mirage_jax.memory.rows import rows_in_order
    from mirage_jax.rollout import shipped, world
    from mirage_jax.rollout.colors import token_colors

    chosen = world.load_world(weights or shipped.DEFAULT_WORLD)
    tokens = rows_in_order(memory).tokens
    channels = chosen.spec.memory.channels
    if tokens.shape[1] != channels:
        raise click.UsageError(
            f"--weights: the memory has {tokens.shape[1]} channels, this world {channels}; "
            "give the world that made the memory, or --colors pca"
        )
    return token_colors(chosen, tokens)
