"""The options that protocols of `mirage evaluate` share, and what is made of them.

Read next: `evaluate.py`.
"""

from __future__ import annotations

import sys
from typing import Any

import click

# Scoring beside a fast accelerator takes more than one process; each loads JAX.
_MOST_WORKERS = 8


def shared(function):
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


lpips = click.option("--lpips", envvar="MIRAGE_LPIPS", help="File of true LPIPS weights.")


def _numbers(ctx, param, value) -> tuple[int, ...] | None:
    """Parse "0,1,2"."""
    try:
        return None if value is None else tuple(int(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"got {value!r}, expected numbers such as 0,1,2") from error


def protocol(function):
    """Add the options that every protocol has."""
    options = (
        shared,
        click.option("--config", help="Config and variant that the weights must be of."),
        click.option("--quick", is_flag=True, help="Few scenes, one seed, two systems: minutes."),
        click.option("--seeds", callback=_numbers, help="Default: those of the protocol."),
        click.option("--scenes", type=click.IntRange(min=1), help="The first so many of the list."),
        click.option("--systems", help="Names with commas, such as latent,no_memory."),
        click.option("--items", type=click.Path(), help="List of scenes of another data set."),
        click.option(
            "--workers",
            type=click.IntRange(min=0),
            help="Processes that score beside the one that generates; default: one for each core, "
            f"at most {_MOST_WORKERS}.",
        ),
        lpips,
        click.option(
            "--raft", envvar="MIRAGE_RAFT", help="File of torchvision's RAFT weights; slow on CPUs."
        ),
        click.option("--json", "as_json", is_flag=True, help="End with one JSON object."),
    )
    for option in reversed(options):
        function = option(function)
    return function


depth = click.option(
    "--depth",
    type=click.Choice(("head", "true")),
    help="What frames are written with: depth of the world's head, or the recorded one.",
)


def asked(name, **flags):
    """Return a protocol with what the flags change of it."""
    import dataclasses
    from pathlib import Path

    from mirage_jax.eval.protocols import load_protocol

    given = {key: flags.get(key) for key in ("seeds", "laps", "depth")}
    given["items"] = flags["scenes"]
    if flags["systems"]:
        given["systems"] = tuple(flags["systems"].split(","))
    listed = Path(flags["items"]) if flags["items"] else None
    found = load_protocol(name, quick=flags["quick"], path=listed)
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    return dataclasses.replace(found, setting=dataclasses.replace(found.setting, **changes))


def several(names, **flags):
    """Return protocols; with true depth those whose path was recorded."""
    if flags.get("depth") == "true":
        names = [name for name in names if name != "revisit"]
    return [asked(name, **flags) for name in names]


def options(world, **flags):
    """Return the options of a run, and what its pages say of it."""
    from pathlib import Path

    from mirage_jax.eval.judges import Nets
    from mirage_jax.eval.metrics.lpips import Lpips
    from mirage_jax.eval.metrics.raft import Raft
    from mirage_jax.eval.run_protocol import RunOptions

    workers, as_json = flags["workers"], flags["as_json"]
    made = RunOptions(
        Path(flags["out"]),
        Nets(
            Lpips(flags["lpips"]) if flags["lpips"] else None,
            Raft(flags["raft"]) if flags["raft"] else None,
        ),
        lambda line: click.echo(line, err=as_json),
        _workers() if workers is None else workers,
    )
    command_line = "mirage " + " ".join(sys.argv[1:])
    return made, {"world": world.spec.name, "split": flags["split"], "command": command_line}


def check_config(config, world) -> None:
    """Refuse weights of another config."""
    from mirage_jax.rollout.world import world_spec
    from mirage_jax.train import config as config_lib

    if not config:
        return
    expected = world_spec(config_lib.load(config))
    different = [
        name for name in vars(expected) if getattr(expected, name) != getattr(world.spec, name)
    ]
    if different:
        raise ValueError(
            f"--config: got {config}, which differs from the world's own in "
            f"{', '.join(different)}; leave the option out to measure the weights as they are"
        )


def _workers() -> int:
    """Return how many processes score: none on a single core."""
    import os

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return 0 if cores in (None, 1) else min(int(cores or 1), _MOST_WORKERS)
