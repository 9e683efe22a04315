"""`mirage evaluate`: measures a world on recorded clips it was not trained on.

Flags are checked here; the work is in `mirage_jax/eval/`. The protocols (`nvs`, `revisit`,
`camera`, `motion`, and `all` of them) have fixed scenes and seeds, go on where they stopped, and
end with a page; the others write JSON, Markdown and a PNG.
Read next: `protocol_flags.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import click

from mirage_jax.cli import protocol_flags as flags

PROTOCOLS = ("nvs", "revisit", "camera", "motion")

_views = click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True)
_seed = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)


@click.group(help="Measure revisits, camera following, motion, reads and the codec.")
def command() -> None:
    """Measures a world."""


@command.command("all", help="nvs, revisit, camera and motion of all systems, in one page.")
@flags.protocol
@flags.depth
def everything(**given) -> None:
    """Measures everything that one page shows."""
    import json

    asked = flags.several(PROTOCOLS, **given)
    world, clips = _open(given["weights"], given["data"], given["split"])
    flags.check_config(given["config"], world)

    from mirage_jax.eval.whole_table import run_all

    options, facts = flags.options(world, **given)
    values = run_all(world, clips, asked, options, facts)
    if given["as_json"]:
        click.echo(json.dumps(values))
    else:
        click.echo((options.folder / "all.md").read_text())
        click.echo(f"look at {options.folder / 'all.html'}")


@command.command(help="Follow recorded paths; compare every frame with the true one.")
@flags.protocol
@flags.depth
def nvs(**given) -> None:
    """Measures novel views."""
    _run_protocol("nvs", **given)


@command.command(help="Leave a view, come back, compare the last frame with the first.")
@flags.protocol
@click.option("--laps", type=click.IntRange(min=1), help="How often the path is walked.")
def revisit(**given) -> None:
    """Measures closed-loop revisits."""
    _run_protocol("revisit", **given)


@command.command(help="Find the camera in generated frames; compare with the one asked for.")
@flags.protocol
@flags.depth
def camera(**given) -> None:
    """Measures camera errors."""
    _run_protocol("camera", **given)


@command.command(help="Compare motion from frame to frame with that of the true frames.")
@flags.protocol
@flags.depth
def motion(**given) -> None:
    """Measures motion."""
    _run_protocol("motion", **given)


@command.command(help="List the usable scenes of a data set, for --items.")
@click.option("--data", default="data/doom", show_default=True, help="Dataset folder.")
@click.option("--split", default="val", show_default=True, help="Split of the dataset.")
@click.option("--out", required=True, type=click.Path(), help="File to write.")
@click.option("--middles", is_flag=True, help="Also start in the middle of clips.")
def items(data, split, out, middles) -> None:
    """Writes a list of scenes."""
    from pathlib import Path

    from mirage_jax.data.source import open_clips
    from mirage_jax.eval.protocols import list_items, write_items

    clips = cast(Sequence[Any], open_clips(data, split))
    found = list_items(clips, (0.0, 0.5) if middles else (0.0,))
    write_items(found, Path(out))
    click.echo(f"{len(found)} scenes written to {out}")


@command.command(help="Follow recorded paths and compare with the true frames.")
@flags.shared
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
@flags.shared
@click.option("--quick", is_flag=True, help="One pair of frames of every third clip.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
@flags.lpips
def read(data, split, weights, out, quick, as_json, lpips) -> None:
    """Measures reads of one written frame."""
    import json
    from pathlib import Path

    world, clips = _open(weights, data, split, only=("codec", "learned_read"))

    from mirage_jax.eval import report
    from mirage_jax.eval.metrics.lpips import Lpips
    from mirage_jax.eval.reads.evaluate import ReadConfig, evaluate_read

    def say(line: str) -> None:
        click.echo(line, err=as_json)

    distance = Lpips(lpips) if lpips else None
    results = evaluate_read(world, clips, ReadConfig(quick=quick), Path(out), say, distance)
    if as_json:
        click.echo(json.dumps(report.jsonable(results)))
    else:
        _show(out, "read")


@command.command(help="Reconstruct clips, with the PCA codec of the same sizes beside it.")
@flags.shared
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


@command.command(help="All systems on the scenes of nvs and revisit, in one table.")
@flags.protocol
@flags.depth
def ablation(**given) -> None:
    """Measures what other ways to read and write change."""
    import json

    world, clips = _open(given["weights"], given["data"], given["split"])
    flags.check_config(given["config"], world)

    from mirage_jax.eval.ablation import PROTOCOLS, run_ablation, with_systems

    names, quick = given["systems"], given["quick"]
    asked = flags.several(PROTOCOLS, **given | {"systems": None})
    asked = [with_systems(one, world.spec, quick, names or "") for one in asked]
    options, facts = flags.options(world, **given)
    values = run_ablation(world, clips, asked, options, facts)
    if given["as_json"]:
        click.echo(json.dumps(values))
    else:
        click.echo((options.folder / "ablation.md").read_text())


@command.command(help="Time and bytes by chunk: latent memory beside an RGB point cache.")
@flags.shared
@click.option(
    "--config", help="Random weights of this config in a room of boxes, in place of both."
)
@click.option("--chunks", type=click.IntRange(min=1), default=20, show_default=True)
@click.option(
    "--passes", type=click.IntRange(min=1), help="Walks to take the median of; default 3."
)
@click.option("--systems", help="Names with commas; default: latent, RGB cache and their variants.")
@click.option("--clock", type=click.Choice(("wall", "cpu")), default="wall", show_default=True)
@_seed
@click.option("--count", is_flag=True, help="Count operations and bytes of --config; run nothing.")
@click.option("--quick", is_flag=True, help="One pass of three systems: minutes.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
def efficiency(data, split, weights, out, config, count, quick, as_json, **sizes) -> None:
    """Measures what a chunk costs."""
    if count:
        _count(config, as_json)
        return
    import json
    import sys
    from pathlib import Path

    from mirage_jax.eval import efficiency as measure
    from mirage_jax.eval.efficiency_report import write_efficiency
    from mirage_jax.eval.report import jsonable
    from mirage_jax.rollout import shipped

    changes: dict[str, Any] = {"passes": 1, "systems": measure.QUICK_SYSTEMS} if quick else {}
    if sizes["systems"]:
        sizes["systems"] = tuple(sizes["systems"].split(","))
    changes |= {name: value for name, value in sizes.items() if value is not None}
    settings = measure.EfficiencyConfig(**changes)
    folder = Path(weights) if weights else shipped.DEFAULT_WORLD
    source: Any = measure.RecordedWalk(folder, data, split)
    if config:
        from mirage_jax.rollout.world import world_spec
        from mirage_jax.train.config import load

        source = measure.ProceduralWalk(world_spec(load(config)))
    results = measure.evaluate_efficiency(
        source, settings, lambda line: click.echo(line, err=as_json), Path(out) / "efficiency"
    )
    facts = {
        "world": config or folder.name,
        "command": "mirage " + " ".join(sys.argv[1:]),
        "chunks": settings.chunks,
        "clock": settings.clock,
    }
    click.echo(write_efficiency(Path(out) / "efficiency", results, facts), err=as_json)
    click.echo(f"written to {out}/efficiency", err=as_json)
    if as_json:
        click.echo(json.dumps(jsonable(results)))


def _count(config, as_json) -> None:
    """Print what a chunk costs by count, for sizes that cannot be run here."""
    import json

    if not config:
        raise click.UsageError(
            "--count: got no --config, expected the world whose chunk is counted, such as "
            "configs/wan5b.py:paper"
        )
    from mirage_jax.plan.chunk_costs import chunk_costs, described
    from mirage_jax.train.config import load

    costs = chunk_costs(load(config))
    if as_json:
        click.echo(json.dumps(costs.as_json()))
    else:
        click.echo(f"{config}, a chunk after the first, counted and not run:\n{described(costs)}")


def _run_protocol(name, **given) -> None:
    """Run a protocol and write what it found."""
    import json

    protocol = flags.asked(name, **given)
    world, clips = _open(given["weights"], given["data"], given["split"])
    flags.check_config(given["config"], world)

    from mirage_jax.eval.run_protocol import run_protocol
    from mirage_jax.eval.write_results import write_results

    options, facts = flags.options(world, **given)
    results = run_protocol(world, clips, protocol, options)
    folder = options.folder / protocol.folder
    values = write_results(results, protocol, folder, facts).values
    if given["as_json"]:
        click.echo(json.dumps(values))
    else:
        click.echo((folder / "table.md").read_text())
        click.echo(f"look at {folder / 'report.html'}")


def _open(weights, data, split, only=None):
    """Open the world and the clips, clips first because that is quick to fail."""
    from pathlib import Path

    from mirage_jax.data.source import open_clips
    from mirage_jax.rollout import shipped
    from mirage_jax.rollout import world as world_lib

    clips = open_clips(data, split)
    folder = Path(weights) if weights else shipped.DEFAULT_WORLD
    return world_lib.load_world(folder, only), clips


def _show(out, name) -> None:
    """Print a report and where it lies."""
    from pathlib import Path

    click.echo((Path(out) / f"{name}.md").read_text())
    click.echo(f"written to {out}")
