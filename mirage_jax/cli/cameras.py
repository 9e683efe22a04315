"""`mirage cameras`: reads camera files of any format, judges, converts, draws and moves them.

The work is in `mirage_jax/geometry/` (`camera_files/`, `path_info.py`, `path_alignment.py`,
`interpolation.py`) and `mirage_jax/eval/pictures/camera_view.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from mirage_jax.cli.camera_flags import parse_size, reading_flags, resolve_reading

_SOURCE = click.argument("source", type=click.Path(path_type=Path))
_TARGET = click.argument("target", type=click.Path(path_type=Path))
_TO = click.option("--to", "target_kind", help="Format to write; default: by the name.")
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
_DEPTH = click.option("--depth", help="Of the scene: a distance, or a .npy or .npz of z-depth.")


@click.group(help="Read, judge, convert, draw and move cameras of any format.")
def command() -> None:
    """Groups what can be done with camera files."""


@command.command()
@_SOURCE
@reading_flags
@_DEPTH
@_JSON
def info(source: Path, kind: str | None, depth: str | None, as_json: bool, **flags: Any) -> None:
    """Say where SOURCE leads, how it turns, and what looks wrong.

    SOURCE is a file or folder of any format; nothing is refused for not being a rotation.
    """
    import dataclasses

    from mirage_jax.geometry.path_info import describe

    path = _read(source, kind, flags, strict=False)
    found = describe(path, _typical_depth(source, depth))
    if as_json:
        click.echo(json.dumps({**dataclasses.asdict(found), "notes": path.notes}))
        return
    click.echo("\n".join([*(f"note: {note}" for note in path.notes), *found.lines()]))


@command.command()
@_SOURCE
@_TARGET
@reading_flags
@_TO
@click.option("--depth", type=click.Path(), help="z-depth [f, H, W] that a geometry.npz needs.")
@_JSON
def convert(
    source: Path, target: Path, kind: str | None, target_kind: str | None, depth: str | None,
    as_json: bool, **flags: Any,
) -> None:  # fmt: skip
    """Write the cameras of SOURCE to TARGET in another format.

    The name of TARGET chooses it (trajectory.npz, transforms.json, camera_data.json, w2c.txt,
    *.txt for RealEstate10K, *.tum, *.npy), or --to, which folders of COLMAP and ViPE need.
    """
    path = _read(source, kind, flags)
    if depth is not None:
        from mirage_jax.geometry.camera_files import Geometry, save_geometry
        from mirage_jax.rollout.scene import read_array

        save_geometry(target, Geometry(read_array(Path(depth), "--depth"), path.camera()))
        _report(path, target, "geometry", as_json)
        return
    _write(path, target, target_kind, as_json)


@command.command()
@_SOURCE
@reading_flags
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="PNG.")
@click.option(
    "--points",
    type=click.Path(path_type=Path),
    help="Of the scene: geometry.npz, .ply, .npy, or COLMAP's points3D.",
)
@_JSON
def plot(
    source: Path, kind: str | None, out: Path, points: Path | None, as_json: bool, **flags: Any
) -> None:
    """Draw SOURCE from above and from the side, with frusta, over the scene's points.

    The points of a geometry.npz and of a COLMAP model are drawn without being asked for.
    """
    from mirage_jax.eval.pictures.camera_view import write_camera_view
    from mirage_jax.eval.pictures.scene_points import load_points

    path = _read(source, kind, flags)
    points = points or _points_beside(source)
    scene = None if points is None else load_points(points)
    write_camera_view(out, path, f"{source.name}: {len(path)} cameras", scene)
    if as_json:
        beside = None if points is None else str(points)
        click.echo(json.dumps({"frames": len(path), "target": str(out), "points": beside}))
        return
    click.echo(f"written to {out}" + ("" if points is None else f", points of {points}"))


@command.command()
@_SOURCE
@_TARGET
@reading_flags
@click.option("--reference", type=click.Path(path_type=Path), help="Path to bring SOURCE onto.")
@click.option("--reference-as", multiple=True, metavar="WORD", help="How to read the reference.")
@click.option("--first-view", is_flag=True, help="First camera onto the reference's, or identity.")
@click.option("--rigid", is_flag=True, help="Rotate and move only: keep the lengths.")
@click.option("--scale", type=float, help="First multiply lengths, as by 4 for metres / 4.")
@_TO
@_JSON
def align(
    source: Path, target: Path, kind: str | None, reference: Path | None,
    reference_as: tuple[str, ...], first_view: bool, rigid: bool, scale: float | None,
    target_kind: str | None, as_json: bool, **flags: Any,
) -> None:  # fmt: skip
    """Move SOURCE into another world and write TARGET.

    With --reference by the similarity (scale, rotation, translation) that fits best, and what is
    left over is reported; with --first-view by the first camera alone.
    """
    from mirage_jax.geometry import path_alignment
    from mirage_jax.geometry.camera_files import read_cameras, reading_of

    if reference is None and not first_view and scale is None:
        raise click.UsageError("align needs --reference, --first-view or --scale")
    path = _read(source, kind, flags)
    goal = None if reference is None else read_cameras(reference, reading_of(reference_as))
    if scale is not None:
        path = path_alignment.rescaled_lengths(path, scale)
    if first_view:
        first = None if goal is None else goal.cam_to_world[0]
        _write(path_alignment.align_first_view(path, first), target, target_kind, as_json)
    elif goal is None:
        _write(path, target, target_kind, as_json)
    else:
        found = path_alignment.align(path, goal, with_scale=not rigid)
        _write(found.path, target, target_kind, as_json, **found.report())


@command.command()
@_SOURCE
@_TARGET
@reading_flags
@click.option("--frames", type=click.IntRange(min=1), help="How many cameras to write.")
@click.option("--fps", type=click.FloatRange(min=0, min_open=True), help="Cameras a second.")
@_TO
@_JSON
def resample(
    source: Path, target: Path, kind: str | None, frames: int | None, fps: float | None,
    target_kind: str | None, as_json: bool, **flags: Any,
) -> None:  # fmt: skip
    """Pass smoothly through the cameras of SOURCE at evenly spaced times and write TARGET.

    Keyframes become a path with --frames. Where SOURCE has no times its cameras are taken as
    evenly spaced, 16 a second.
    """
    from mirage_jax.geometry import interpolation

    path = _read(source, kind, flags)
    _write(interpolation.resample(path, frames, fps), target, target_kind, as_json)


@command.command()
def presets() -> None:
    """List the paths that have a name, ours and those of other systems."""
    import inspect

    from mirage_jax.geometry import presets as own
    from mirage_jax.geometry import presets_of_peers

    for module in (own, presets_of_peers):
        text = inspect.getdoc(module) or ""
        click.echo(text.split("Read next")[0].replace("``", "").strip() + "\n")


@command.command()
@click.argument("name")
@_TARGET
@click.option("--frames", type=click.IntRange(min=2), default=49, show_default=True)
@click.option("--depth", type=float, required=True, help="Typical z-depth, scene units.")
@click.option("--size", callback=parse_size, required=True, help="HEIGHTxWIDTH of the images.")
@click.option("--fov", type=click.FloatRange(1, 170), default=70.0, show_default=True)
@click.option("--amplitude", type=click.FloatRange(min=0), default=1.0, show_default=True)
@click.option("--speed", type=float, help="WorldScore's camera speed, scene units.")
@_TO
@_JSON
def make(
    name: str, target: Path, frames: int, depth: float, size: tuple[int, int], fov: float,
    amplitude: float, speed: float | None, target_kind: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Write the path NAME, a preset or keys such as "w*16 l*24", to TARGET.

    It starts at the identity.
    """
    import numpy as np

    from mirage_jax.geometry.camera import Camera
    from mirage_jax.geometry.camera_files import path_of
    from mirage_jax.geometry.keys import trajectory_from_keys
    from mirage_jax.geometry.trajectories import PRESETS, TrajectoryOptions, trajectory

    start = Camera(np.eye(4), resolve_reading((), size, None, fov).intrinsics)
    options = TrajectoryOptions(amplitude=amplitude, hw=size, speed=speed)
    keys = name not in PRESETS and set(name) <= set("wasdijkl.*0123456789 ")
    camera = (
        trajectory_from_keys(name, start, depth, options)
        if keys
        else trajectory(name, start, frames, depth, options)
    )
    _write(path_of(camera, size), target, target_kind, as_json)


def _read(source: Path, kind: str | None, flags: dict[str, Any], strict: bool = True) -> Any:
    """Read a path as the flags say."""
    from mirage_jax.geometry.camera_files import read_cameras

    return read_cameras(source, resolve_reading(**flags), kind, strict)


def _write(path: Any, target: Path, kind: str | None, as_json: bool, **more: Any) -> None:
    """Write a path and say what was written."""
    from mirage_jax.geometry.camera_files import write_cameras

    _report(path, target, write_cameras(target, path, kind), as_json, **more)


def _report(path: Any, target: Path, kind: str, as_json: bool, **more: Any) -> None:
    if as_json:
        found = {"frames": len(path), "target": str(target), "format": kind, "notes": path.notes}
        click.echo(json.dumps({**found, **more}))
        return
    for note in path.notes:
        click.echo(f"note: {note}")
    for name, value in more.items():
        shown = f"{value:.6g}" if isinstance(value, float) else value
        click.echo(f"{name.replace('_', ' '):<14}{shown}")
    click.echo(f"{len(path)} cameras written to {target} ({kind})")


def _points_beside(source: Path) -> Path | None:
    """Return the file of points that belongs to a camera file, if there is one."""
    from mirage_jax.geometry.camera_files import detect

    kind, file = detect(source)
    if kind == "geometry":
        return file
    if kind.startswith("colmap"):
        folder = file if file.is_dir() else file.parent
        points = folder / f"points3D{'.txt' if kind == 'colmap-text' else '.bin'}"
        return points if points.is_file() and points.stat().st_size > 100 else None
    return None


def _typical_depth(source: Path, given: str | None) -> float | None:
    """Return the scene's depth: a number, the median of a file, or that of a geometry.npz."""
    import numpy as np

    from mirage_jax.geometry.camera_files import npz
    from mirage_jax.geometry.depth import depth_scale
    from mirage_jax.rollout.scene import read_array

    if given is None:
        if source.suffix != ".npz" or "depths" not in npz.array_names(source):
            return None
        return depth_scale(np.asarray(npz.first_of_array(source, "depths"), np.float32))
    try:
        number = float(given)
    except ValueError:
        return depth_scale(np.asarray(read_array(Path(given), "--depth"), np.float32))
    if not 0 < number < 1e15:
        raise click.UsageError(f"--depth: got {given}, expected a positive distance or a file")
    return number
