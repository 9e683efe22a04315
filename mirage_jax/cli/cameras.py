"""`mirage cameras`: reads camera files of any format, judges, converts, draws and moves them.

The work is in `mirage_jax/geometry/` (`camera_files/`, `path_info.py`, `path_alignment.py`,
`interpolation.py`) and `mirage_jax/eval/camera_view.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from mirage_jax.cli.camera_flags import reading_flags, resolve_reading

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
        click.echo(f"{name.replace('_', ' ')}: {value:.6g}" if isinstance(value, float) else value)
    click.echo(f"{len(path)} cameras written to {target} ({kind})")


def _typical_depth(source: Path, given: str | None) -> float | None:
    """Return the scene's depth: a number, the median of a file, or that of a geometry.npz."""
    import numpy as np

    from mirage_jax.geometry.camera_files import npz
    from mirage_jax.geometry.depth import depth_scale
    from mirage_jax.rollout.scene import read_array

    if given is None:
        if source.suffix != ".npz" or "depths" not in npz.array_names(source):
            return None
        return depth_scale(np.asarray(npz.read_npz(source, ["depths"])["depths"][0]))
    try:
        number = float(given)
    except ValueError:
        return depth_scale(np.asarray(read_array(Path(given), "--depth"), np.float32))
    if not 0 < number < 1e15:
        raise click.UsageError(f"--depth: got {given}, expected a positive distance or a file")
    return number
