"""`mirage train`: trains one stage of a world from a config file.

Flags are checked here; the work is in `mirage_jax/train/`. A run that is stopped (Ctrl-C, SIGTERM,
a kill) goes on from its newest checkpoint when the same command is given again. Read next:
`mirage_jax/train/loop.py`.
"""

from __future__ import annotations

import click

from mirage_jax.cli.data_flags import clips_of
from mirage_jax.cli.several import joined, processes_option
from mirage_jax.distributed import exit_codes

# How a run that was stopped ends, by the reason's name.
_ENDS = {"PREEMPTED": exit_codes.PREEMPTED, "INTERRUPTED": exit_codes.INTERRUPTED}
STAGES = ("codec", "depth", "denoiser", "read", "branch", "lora", "full")


class NotFinite(click.ClickException):
    """A run that was given up; to start it again without a change would be in vain."""

    exit_code = exit_codes.NOT_FINITE


@click.command()
@click.option("--config", required=True, help="Config file and variant, e.g. configs/doom.py:tiny.")
@click.option("--stage", type=click.Choice(STAGES), required=True, help="What to train, see above.")
@click.option(
    "--workdir",
    type=click.Path(file_okay=False),
    required=True,
    help="Folder for checkpoints and weights.",
)
@click.option(
    "--weights",
    type=click.Path(exists=True, file_okay=False),
    help="Folder of given weights, for what the workdir does not hold.",
)
@click.option(
    "--data", type=click.Path(file_okay=False), help="Dataset folder; default: the config's."
)
@click.option(
    "--latents",
    type=click.Path(exists=True, file_okay=False),
    help="Folder of mirage encode latents with those of the data; default: the config's, or else "
    "the stage encodes them into the workdir.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="Updates in total; default: the config's. Sets the schedule.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Stop after this wall time, saving.",
)
@click.option("--mesh", help="Devices along each axis, as in fsdp=4,context=2; default: config's.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed; default: the config's.")
@click.option(
    "--resume",
    default="auto",
    show_default=True,
    help="auto: from the workdir's newest good checkpoint; never: refuse one that has any; a path: "
    "from that checkpoint, where the workdir has none.",
)
@processes_option
@click.option(
    "--profile",
    metavar="FIRST:LAST",
    help="Trace these updates, read with xprof or TensorBoard. While a run goes on: SIGUSR1, or "
    "touch WORKDIR/STAGE/profile.",
)
@click.option(
    "--wandb",
    metavar="PROJECT",
    default="",
    help="Metrics to Weights & Biases too; WANDB_MODE=offline keeps them on this machine.",
)
def command(config, stage, workdir, weights, processes, **flags) -> None:
    """Trains one stage of a world.

    From scratch: codec, then depth, then denoiser; read trains the learned read further, alone.
    From given weights: branch (the memory branch
    beside a fixed backbone), then lora (a low-rank change of the whole, written beside it), or full
    (all parameters).

    A run that was stopped (Ctrl-C, a time limit, a kill) goes on exactly where it was when the same
    command is given again. Ctrl-C saves once and a second one ends at once. After SIGTERM, by which
    machines are taken back, the run is saved and the exit code is 75: start it again. A run whose
    updates are no longer finite ends with exit code 3 and names the clips.
    """
    from pathlib import Path

    from mirage_jax.distributed.mesh import parse_mesh
    from mirage_jax.train import config as config_lib

    overrides = {
        "seed": flags["seed"],
        "data.latents": flags["latents"],
        f"{stage}_train.steps": flags["steps"],
    }
    if flags["mesh"]:
        overrides |= {f"mesh.{axis}": size for axis, size in parse_mesh(flags["mesh"]).items()}
    loaded = config_lib.load(config)
    if flags["data"]:
        overrides |= clips_of(loaded.data, flags["data"], config)
    world = config_lib.replace(loaded, {k: v for k, v in overrides.items() if v is not None})

    with joined(processes) as report:
        from mirage_jax import estimate
        from mirage_jax.train import checkpoint, loop, stages
        from mirage_jax.train.non_finite import NonFiniteError

        watch = _watch_options(world, stage, flags["profile"], flags["wandb"])
        size = stages.estimate_stage(world, stage)
        if size is not None:
            report(size.text(estimate.device_bytes()))
        given, folder = Path(weights) if weights else None, Path(workdir)
        if stages.fit_alone(world, stage, folder, report, given):
            return
        objective = stages.make_objective(world, stage, folder, report, given)
        options = loop.RunOptions(
            folder, flags["minutes"], world.mesh, given, flags["resume"], report, watch
        )
        try:
            reason = loop.train(objective, world.seed, options).reason
        except NonFiniteError as error:
            raise NotFinite(str(error)) from error
        except checkpoint.SaveError as error:
            raise click.ClickException(str(error)) from error
        if reason.name in _ENDS:
            report(f"{reason.name.lower()}: saved; the same command goes on from here")
    if reason.name in _ENDS:
        raise SystemExit(_ENDS[reason.name])


def _watch_options(world, stage: str, profile: str | None, wandb: str):
    """Return what to watch; only stages of the denoiser have their operations counted."""
    from mirage_jax.plan import operations
    from mirage_jax.train.profiler import parse_window
    from mirage_jax.train.throughput import Work
    from mirage_jax.train.watch import WatchOptions

    work = None
    if stage not in ("codec", "depth", "read"):
        count = operations.training_step(world, world.denoiser_stage(stage))
        work = Work(count.tokens, count.model)
    return WatchOptions(parse_window(profile) if profile else None, wandb, work)
