"""`mirage generate`: walks through a scene along a camera path and writes what it sees.

Flags are checked here; the work is in `mirage_jax/eval/walkthrough.py`. Without any flag a shipped
scene is walked out and back with the shipped weights.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from mirage_jax.cli.camera_flags import parse_intrinsics
from mirage_jax.cli.depth_flags import (
    depth_reading_flags,
    mask_flags,
    near_far_flag,
    open_masks,
    resolve_depth_reading,
    sky_flags,
)
from mirage_jax.cli.prompt_flags import prompt_flags, resolve_prompts

_DEFAULT_FRAMES = 65


@click.command(help=__doc__.split("\n\n")[0].split(": ", 1)[1].capitalize())
@click.option("--scene", help="A geometry.npz, a picture, or a shipped scene's name.")
@click.option("--depth", help="Depth of a picture: a file, hf:MODEL (Hugging Face), or latent.")
@depth_reading_flags
@near_far_flag
@mask_flags("What may be remembered: masks of the path's frames, one for all, or hf:MODEL.")
@sky_flags
@click.option("--intrinsics", callback=parse_intrinsics, help="Of a picture: fx,fy,cx,cy.")
@click.option("--fov", type=float, help="Of a picture: horizontal field of view, degrees.")
@click.option(
    "--path",
    default="out-and-back",
    show_default=True,
    help='Preset, keys such as "w*16 l*24", "recorded", or a camera file.',
)
@click.option(
    "--path-as",
    multiple=True,
    metavar="WORD",
    help="How to read a camera file that has two readings: c2w, w2c, opengl, pixels, ...",
)
@click.option(
    "--path-smooth",
    is_flag=True,
    help="The cameras of a file are keyframes: pass smoothly through them in --frames frames.",
)
@click.option(
    "--path-depth",
    help="Depth of the path's frames: a file [f, H, W], or hf:MODEL, which sees decoded frames.",
)
@click.option(
    "--align-depth",
    type=click.Choice(["auto", "scale", "disparity", "none"]),
    default="auto",
    show_default=True,
    help="How depth of hf:MODEL is aligned to memory; auto: scale, and shift where needed.",
)
@click.option("--frames", type=click.IntRange(min=1), help="Any number; rounded up.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--out", default="outputs/generate", show_default=True, help="Output folder.")
@click.option("--weights", help="Folder of a world; default: the shipped one.")
@click.option("--steps", type=click.IntRange(min=1), help="Solver steps; default: the world's.")
@click.option("--solver", type=click.Choice(("unipc", "euler")), help="Default: the world's.")
@click.option("--guidance", type=click.FloatRange(min=1), help="Of the text; 1 is off.")
@prompt_flags
@click.option("--no-memory", is_flag=True, help="Walk with a memory that stays empty.")
@click.option("--no-compare", is_flag=True, help="Leave out the second walk, without memory.")
@click.option("--resume", is_flag=True, help="Go on from the state in the output folder.")
@click.option(
    "--save",
    default="mp4",
    show_default=True,
    help="Formats mp4, gif, webp, frames; also conditioning (what memory showed), side_by_side.",
)
@click.option("--fps", type=click.FloatRange(min=1), default=8.0, show_default=True)
def command(
    scene, depth, depth_words, depth_device, near_far, mask, mask_as, mask_labels, sky, sky_beyond,
    intrinsics, fov, path, path_as, path_smooth, path_depth, align_depth, frames, seed, out,
    weights, steps, solver, guidance, no_memory, no_compare, resume, save, fps, **text,
) -> None:  # fmt: skip
    """Walks through a scene."""
    from pathlib import Path

    from mirage_jax import estimate
    from mirage_jax.geometry.camera_files import reading_of
    from mirage_jax.rollout import depths, masks, new_scene, outputs, paths, photo, shipped
    from mirage_jax.rollout import scene as scene_lib
    from mirage_jax.rollout import world as world_lib

    outputs.parse_saved(save)
    source = shipped.find_scene(scene)
    folder = Path(weights) if weights else shipped.DEFAULT_WORLD
    reading = resolve_depth_reading(depth_words)
    picture = scene_lib.PictureOptions(lens=photo.Lens(intrinsics, fov), near_far=near_far or None)
    request = new_scene.SceneRequest(depth, reading, depth_device, picture, folder)
    asked = {"steps": steps, "solver": solver, "guidance": guidance}
    writing = {"sky": sky, "sky_beyond": sky_beyond}
    spec = _as_asked(world_lib.load_spec(folder), asked, writing)
    loaded = new_scene.open_scene(source, request, _note)
    start = scene_lib.fit_scene(loaded, spec.frame_hw)
    walked = paths.resolve_path(
        path,
        start,
        frames,
        default_frames=_DEFAULT_FRAMES,
        temporal_stride=spec.chunk.temporal_stride,
        reading=reading_of(path_as),
        smooth=path_smooth,
    )
    click.echo(f"scene {source}, world {folder}, path {path}, seed {seed}")
    for line in walked.notes:
        _note(line)
    plan, prompt = resolve_prompts(text, spec, folder) or (None, None)
    click.echo(estimate.estimate_generation(spec).text(estimate.device_bytes()))
    world = dataclasses.replace(world_lib.load_world(folder), spec=spec)

    from mirage_jax.eval import walkthrough

    config = walkthrough.WalkConfig(
        seed=seed, memory=not no_memory, compare=not no_compare, resume=resume, fps=fps, save=save,
        prompts=plan,
    )  # fmt: skip
    kept = None
    wanted = depths.PathDepthRequest(path_depth, reading, depth_device, align_depth, click.echo)
    with (
        open_masks(mask, mask_labels, depth_device) as model,
        depths.open_path_depth(spec, start, walked, wanted) as depth_given,
    ):
        if mask is not None:
            kept = _masks(model or (mask, mask_as), loaded, walked, spec)
            start = masks.masked_start(start, kept)
        given = walkthrough.Given(prompt, depth_given, model or kept)
        folder = Path(out)
        metrics = walkthrough.walk(world, start, walked.cameras, config, folder, click.echo, given)
    click.echo(_summary(metrics))
    click.echo(f"written to {out}: video.mp4, sheet.png, memory.ply, metrics.json and more")


def _as_asked(spec: Any, sampling: dict[str, Any], writing: dict[str, Any]) -> Any:
    """Return a spec with the settings of the solver and of writes that were given."""

    def changed(part: Any, values: dict[str, Any]) -> Any:
        given = {name: value for name, value in values.items() if value is not None}
        return dataclasses.replace(part, **given)

    chunk = dataclasses.replace(spec.chunk, write=changed(spec.chunk.write, writing))
    return dataclasses.replace(spec, sampling=changed(spec.sampling, sampling), chunk=chunk)


def _masks(source: Any, scene: Any, walked: Any, spec: Any) -> Any:
    """Bring masks to the frames of the path: those of a file, or a model's of the start picture."""
    from mirage_jax.geometry.mask_files import Masks, read_masks
    from mirage_jax.rollout.masks import fit_masks

    if isinstance(source, tuple):
        found = read_masks(*source)
    else:
        found = Masks(source.keep(scene.image[None]), source.note)
    _note(found.note)
    if spec.chunk.write.masks == "start":
        _note(f"the world {spec.name} is run with masks of the start picture alone")
    return fit_masks(found, scene, walked, spec)


def _note(line: str) -> None:
    click.echo(f"note: {line}")


def _summary(metrics) -> str:
    """Say in one line what a return looked like, where the path returned."""
    revisit = metrics["revisit"]
    parts = [f"{metrics['frames']} frames in {metrics['seconds']['total']:.1f} s"]
    for key, name in (
        ("psnr_on", "return with memory"),
        ("psnr_off", "without"),
        ("psnr_ceiling", "codec ceiling"),
    ):
        if revisit[key] is not None:
            parts.append(f"{name} {revisit[key]:.2f} dB")
    return ", ".join(parts)
