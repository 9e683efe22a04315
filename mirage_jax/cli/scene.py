"""`mirage scene`: makes a scene from one photograph, and looks at scenes.

The work is in `mirage_jax/rollout/new_scene.py`, `mirage_jax/eval/pictures/scene_info.py` and
`mirage_jax/eval/pictures/scene_view.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from mirage_jax.cli.camera_flags import parse_intrinsics, parse_size
from mirage_jax.cli.depth_flags import (
    depth_reading_flags,
    mask_flags,
    near_far_flag,
    open_masks,
    resolve_depth_reading,
)

# A scene keeps the photograph's aspect and at most so many pixels along its longer side.
_LONGEST = 1280


@click.group(help="Make a scene from a photograph; look at scenes.")
def command() -> None:
    """Groups what can be done with scenes."""


@command.command()
@click.argument("photo", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(file_okay=False, path_type=Path))
@click.option("--depth", required=True, help="A file, hf:MODEL (Hugging Face), or latent.")
@depth_reading_flags
@near_far_flag
@click.option("--align-to", type=click.Path(path_type=Path), help="Known depth, maybe sparse.")
@click.option("--align-to-as", multiple=True, metavar="WORD", help="How to read it.")
@mask_flags("What of PHOTO may be remembered: a picture, .npy, .npz, mask.zip, or hf:MODEL.")
@click.option("--drop-edges", is_flag=True, help="Do not remember pixels beside depth edges.")
@click.option("--intrinsics", callback=parse_intrinsics, help="fx,fy,cx,cy in pixels of PHOTO.")
@click.option("--fov", type=float, help="Horizontal field of view, degrees.")
@click.option("--size", callback=parse_size, help="HEIGHTxWIDTH of the scene: PHOTO is cropped.")
@click.option("--weights", type=click.Path(path_type=Path), help="World to take the size of.")
def new(
    photo: Path, target: Path, depth: str, depth_words: tuple[str, ...], depth_device: str,
    near_far: Any, align_to: Path | None, align_to_as: tuple[str, ...], mask: str | None,
    mask_as: Any, mask_labels: str, drop_edges: bool, intrinsics: Any, fov: float | None, size: Any,
    weights: Path | None,
) -> None:  # fmt: skip
    """Make the scene TARGET/geometry.npz from PHOTO, for `mirage generate --scene TARGET`.

    Depth comes from a file of any format (mirage depth info), from a depth model, or from the
    world's own depth head. The field of view is given, or read from EXIF, or assumed, which is
    said. Without --size or --weights the scene has the photograph's aspect.
    """
    from mirage_jax.eval.known_depth import aligned_to_file
    from mirage_jax.eval.pictures.scene_info import describe_scene
    from mirage_jax.rollout import new_scene, shipped
    from mirage_jax.rollout import photo as photo_lib
    from mirage_jax.rollout import scene as scene_lib
    from mirage_jax.rollout.world import load_spec

    align = None
    if align_to is not None:
        align = aligned_to_file(align_to, resolve_depth_reading(align_to_as), _note)
    world = weights or shipped.DEFAULT_WORLD
    reading = resolve_depth_reading(depth_words)
    lens = photo_lib.Lens(intrinsics, fov, assume=True)
    with open_masks(mask, mask_labels, depth_device) as model:
        picture = scene_lib.PictureOptions(
            mask=model or mask, mask_as=mask_as, lens=lens, near_far=near_far or None,
            drop_edges=drop_edges,
        )  # fmt: skip
        request = new_scene.SceneRequest(depth, reading, depth_device, picture, world, align)
        scene = new_scene.open_scene(photo, request, _note)
    original = scene.depth.shape
    hw = size or (load_spec(weights).frame_hw if weights else _shrunk(scene.depth.shape))
    scene = scene_lib.fit_scene(scene, hw)
    file = scene_lib.save_scene(target, scene, original)
    click.echo("\n".join([*describe_scene(scene).lines(), f"written to {file}"]))


@command.command()
@click.argument("scene")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="PNG to draw.")
@click.option("--weights", help="World that would remember it; default: the shipped one.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def inspect(scene: str, out: Path | None, weights: str | None, as_json: bool) -> None:
    """Print sizes, field of view and depth of SCENE, and the rows a world would remember of it.

    SCENE is a geometry.npz, a folder with one, or the name of a shipped scene. With --out its
    picture, depth and points (from above and in perspective) are drawn.
    """
    import dataclasses

    from mirage_jax.eval.pictures.scene_info import describe_scene, memory_rows
    from mirage_jax.rollout import scene as scene_lib
    from mirage_jax.rollout import shipped
    from mirage_jax.rollout.world import load_spec

    loaded = scene_lib.load_scene(shipped.find_scene(scene))
    spec = load_spec(weights or shipped.DEFAULT_WORLD)
    found, rows = describe_scene(loaded), memory_rows(loaded, spec)
    lines = [
        *found.lines(),
        f"{'memory':<14}{rows['rows']} rows of {rows['cells']} cells, in the world {spec.name} at "
        f"{spec.height}x{spec.width}",
    ]
    if as_json:
        figures = {**dataclasses.asdict(found), "world": spec.name, **rows}
        click.echo(json.dumps(figures))
    else:
        click.echo("\n".join(lines))
    if out is not None:
        from mirage_jax.eval.pictures.scene_view import write_scene_view

        write_scene_view(out, loaded, lines)
        if not as_json:
            click.echo(f"drawn to {out}")


def _note(line: str) -> None:
    click.echo(f"note: {line}")


def _shrunk(hw: tuple[int, int]) -> tuple[int, int]:
    """Return a size with the same aspect and at most `_LONGEST` pixels along the longer side."""
    factor = min(1.0, _LONGEST / max(hw))
    return max(1, round(hw[0] * factor)), max(1, round(hw[1] * factor))
