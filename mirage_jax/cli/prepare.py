"""`mirage prepare`: makes a data set for `mirage train` of recordings that people bring.

The work is in `mirage_jax/data/ingest/`; see its `layouts/` for the folders that are known.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mirage_jax.cli.camera_flags import parse_intrinsics
from mirage_jax.cli.depth_flags import mask_labels_flag, open_masks

_KINDS = ("geometry", "tum", "7scenes", "scannet", "nerfstudio", "vipe", "realestate10k")


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the data set.",
)
@click.option("--kind", type=click.Choice(_KINDS), help="Layout, instead of telling by content.")
@click.option("--height", default=96, show_default=True, type=click.IntRange(8, 8192))
@click.option("--width", default=128, show_default=True, type=click.IntRange(8, 8192))
@click.option(
    "--frames", default=81, show_default=True, type=click.IntRange(2, 4096), help="Frames a clip."
)
@click.option(
    "--stride",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Take every how many-th picture.",
)
@click.option(
    "--split",
    type=click.Choice(["auto", "train", "val"]),
    default="auto",
    show_default=True,
    help="auto divides scenes by the hash of their name.",
)
@click.option(
    "--val-share",
    default=0.1,
    show_default=True,
    type=click.FloatRange(0, 0.9),
    help="Share of scenes for validation.",
)
@click.option(
    "--scale",
    default=1.0,
    show_default=True,
    type=click.FloatRange(1e-6, 1e6),
    help="Metres of a scene unit.",
)
@click.option(
    "--depth-unit",
    type=click.FloatRange(1e-9, 1e9),
    help="Scene units of one step of whole numbers of depth.",
)
@click.option("--intrinsics", callback=parse_intrinsics, help="fx,fy,cx,cy in pixels of pictures.")
@click.option("--as", "words", multiple=True, metavar="WORD", help="How to read camera files.")
@click.option("--mask", help="hf:MODEL (Hugging Face) marks what moves, and sky.")
@mask_labels_flag
@click.option("--mask-device", default="cpu", help="Of PyTorch, for hf:MODEL.")
@click.option("--no-check", is_flag=True, help="Keep clips whose depth and motion disagree.")
def command(source: Path, out: Path, **flags: Any) -> None:
    """Make a data set in OUT of the recordings in the folder SOURCE, or of a video.

    \b
    Known layouts, told by their content, one or many below SOURCE:
      geometry        geometry.npz, frames inside or in clip.mp4
      tum             rgb.txt, depth.txt, groundtruth.txt
      7scenes         frame-000000.color.png, .depth.png, .pose.txt
      scannet         color/ depth/ pose/ intrinsic/
      nerfstudio      transforms.json with pictures and depth (DL3DV too)
      vipe            pose.npz, intrinsics.npz, depth.zip, a video; or pose/<clip>.npz
      realestate10k   <id>.txt with <id>.mp4 and depth/<id>/

    Of a video, or a folder of videos, cameras and depth are estimated with ViPE where it is
    installed.

    Pictures are cropped and resized with their intrinsics, cut into clips, and checked: a clip
    whose depth does not go with its motion lands in OUT/quarantine.jsonl, with the reason. Given
    again after a stop, the same command goes on.
    """  # noqa: D301
    from mirage_jax.data.ingest.prepare import prepare

    if (mask := flags["mask"]) is not None and not mask.startswith("hf:"):
        raise click.UsageError(
            f"--mask: got {mask}, expected hf:MODEL; masks in files lie in the recordings"
        )
    with open_masks(mask, flags["mask_labels"], flags["mask_device"]) as model:
        if model is not None:
            click.echo(f"note: {model.note}")
        summary = prepare(source, out, _config(flags, model), click.echo, model and model.segment)
    click.echo("\n".join([*summary.lines(), f"written to {out}"]))


def _config(flags: dict[str, Any], model: Any) -> Any:
    from mirage_jax.data.clip import ClipShape
    from mirage_jax.data.ingest.cut import CutConfig
    from mirage_jax.data.ingest.plan import PrepareConfig
    from mirage_jax.data.ingest.recording import IngestOptions
    from mirage_jax.geometry.camera_files import reading_of
    from mirage_jax.geometry.camera_files.matrices import intrinsics_matrix

    given = flags["intrinsics"]
    options = IngestOptions(
        None if given is None else intrinsics_matrix(given),
        flags["depth_unit"],
        reading_of(flags["words"]),
    )
    shape = ClipShape(flags["frames"], flags["height"], flags["width"])
    return PrepareConfig(
        CutConfig(shape, flags["stride"], flags["scale"]),
        flags["kind"],
        options,
        flags["split"],
        flags["val_share"],
        check=not flags["no_check"],
        segmentation="" if model is None else model.name,
    )
