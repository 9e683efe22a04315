"""`mirage depth`: looks into depth files, aligns them to what is known, estimates depth.

The work is in `mirage_jax/geometry/` (`depth_files/`, `depth_alignment.py`, `depth_info.py`) and
`mirage_jax/eval/known_depth.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from mirage_jax.cli.camera_flags import parse_intrinsics
from mirage_jax.cli.depth_flags import depth_reading_flags, resolve_depth_reading

_SOURCE = click.argument("source", type=click.Path(path_type=Path))
_TARGET = click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
_INTRINSICS = click.option(
    "--intrinsics", callback=parse_intrinsics, help="fx,fy,cx,cy in pixels of the depth."
)


@click.group(help="Look into depth files, align them to what is known, estimate depth.")
def command() -> None:
    """Groups what can be done with depth."""


@command.command()
@_SOURCE
@depth_reading_flags
@_INTRINSICS
@_JSON
def info(
    source: Path, depth_words: tuple[str, ...], depth_device: str, intrinsics: Any, as_json: bool
) -> None:
    """Print size, range, unknown pixels and edges of SOURCE, and what looks wrong.

    SOURCE is .npy, .npz, 16-bit .png, .tif, .exr, ViPE's depth.zip, or a folder of pictures. With
    --intrinsics it is also tested whether walls are flat as z-depth or as distances along rays.
    """
    from mirage_jax.geometry.camera_files.matrices import intrinsics_matrix
    from mirage_jax.geometry.depth_files import read_depth
    from mirage_jax.geometry.depth_info import describe_depth

    maps = read_depth(source, resolve_depth_reading(depth_words))
    matrix = None if intrinsics is None else intrinsics_matrix(intrinsics)
    found = describe_depth(maps, matrix)
    if as_json:
        click.echo(json.dumps(found.report()))
        return
    click.echo("\n".join(found.lines()))


@command.command()
@_SOURCE
@_TARGET
@depth_reading_flags
@click.option("--to", "known", type=click.Path(path_type=Path), help="Known depth, same view.")
@click.option("--to-as", multiple=True, metavar="WORD", help="How to read it; as --depth-as.")
@click.option("--memory", type=click.Path(path_type=Path), help="Memory to read at the view.")
@click.option("--points", type=click.Path(path_type=Path), help=".ply, .npy, COLMAP's points3D.")
@click.option("--cameras", type=click.Path(path_type=Path), help="Of the views, any format.")
@click.option("--cameras-as", multiple=True, metavar="WORD", help="How to read them: c2w, ...")
@click.option("--frame", default="0", show_default=True, help="Number or name of its first camera.")
@click.option(
    "--model",
    type=click.Choice(["scale", "disparity"]),
    help="Scale alone, or scale and shift of the inverse. Default: what SOURCE needs.",
)
@click.option("--each", is_flag=True, help="Align each frame alone, as depth of pictures needs.")
@click.option("--tolerance", type=click.FloatRange(0.001, 0.5), default=0.1, show_default=True)
@_JSON
def align(
    source: Path, target: Path, depth_words: tuple[str, ...], depth_device: str,
    known: Path | None, to_as: tuple[str, ...], memory: Path | None, points: Path | None,
    cameras: Path | None, cameras_as: tuple[str, ...], frame: str, model: Any, each: bool,
    tolerance: float, as_json: bool,
) -> None:  # fmt: skip
    """Bring SOURCE to the scale of known depth, of a memory, or of points, and write TARGET.

    TARGET is an .npz with z-depth in the units of what is known. One of --to, --memory and
    --points is needed; the last two with --cameras. Outliers below half of the points do no harm;
    a fit that cannot be trusted is refused with its figures.
    """
    from mirage_jax.eval import known_depth
    from mirage_jax.geometry.depth_alignment import AlignmentLimits
    from mirage_jax.geometry.depth_files import read_depth, write_depth

    if sum(given is not None for given in (known, memory, points)) != 1:
        raise click.UsageError("align needs one of --to, --memory and --points")
    maps = read_depth(source, resolve_depth_reading(depth_words))
    shape = maps.values.shape
    views = known_depth.load_views(cameras, cameras_as, frame, shape)
    if known is not None:
        reference = known_depth.from_file(known, resolve_depth_reading(to_as), views, shape)
    elif memory is not None:
        reference = known_depth.from_memory(memory, views, shape)
    else:
        reference = known_depth.from_points(Path(str(points)), views, shape)
    options = known_depth.AlignOptions(model, each, AlignmentLimits(tolerance))
    found = known_depth.align_maps(maps, reference, views, options)
    write_depth(target, found.depth)
    if as_json:
        click.echo(json.dumps({**found.report(), "target": str(target)}))
        return
    click.echo("\n".join([*found.lines(), f"aligned depth written to {target}"]))


@command.command()
@_SOURCE
@_TARGET
@click.option("--model", required=True, help="Depth model of Hugging Face: a name or a folder.")
@depth_reading_flags
def estimate(
    source: Path, target: Path, model: str, depth_words: tuple[str, ...], depth_device: str
) -> None:
    """Estimate depth of the picture or video SOURCE with a model, and write TARGET (.npz).

    The model runs in PyTorch, in a process of its own: pip install "mirage-jax[depth]". Metric
    models give z-depth in metres, relative ones disparity, which has to be read with --depth-as
    disparity and aligned, or given a range.
    """
    from mirage_jax.geometry.camera_files.npz import write_npz
    from mirage_jax.rollout.hub_depth import HubDepth
    from mirage_jax.rollout.video import read_frames

    if target.suffix != ".npz":
        raise click.UsageError(f"TARGET: got {target.name}, expected a name ending in .npz")
    frames = read_frames(source)
    with HubDepth(model, resolve_depth_reading(depth_words).kind, depth_device) as network:
        maps = network.depth(frames)
    write_npz(target, {"depth": maps.values})
    meaning = {
        "z": "z-depth",
        "ray": "distances along rays; read them with --depth-as ray",
        "disparity": "disparity; read it with --depth-as disparity",
    }[maps.kind]
    click.echo(f"{len(frames)} pictures of depth written to {target}: {meaning}")
