"""`mirage plan`: says how large a config is, and whether it fits devices that one does not have.

Without `--target` nothing is compiled: tokens, parameters and bytes on one device, from
`mirage_jax/estimate.py`. With one, the real training step and the real chunk of a rollout are
compiled ahead of time, for devices that need not be there or, with `--target local`, for those that
are; see `mirage_jax/plan/`. With `--memory` it is one latent memory, spread over
all devices of the target, and what writing and reading it takes.
"""

from __future__ import annotations

import click

STAGES = ("denoiser", "branch", "lora", "full")
LOCAL = "local"


@click.command()
@click.option("--config", help="Config file and variant, e.g. configs/wan5b.py.")
@click.option("--memory", type=float, help="Plan one memory of so many rows, e.g. 1e8, instead.")
@click.option("--batch", type=click.IntRange(min=1), help="Clips at once; default: the config's.")
@click.option("--target", help="Devices to plan for, e.g. v5p:4x4x4, h100:8x8, or local.")
@click.option("--stage", type=click.Choice(STAGES), help="Stage; default: all, and the rollout.")
@click.option(
    "--rollout", is_flag=True, help="With --target: plan a rollout's chunk, after --stage."
)
@click.option("--mesh", help="Devices along each axis, as in fsdp=16,context=4; default: chosen.")
@click.option("--no-compile", is_flag=True, help="Estimate only; takes seconds, not minutes.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
def command(config, memory, target, no_compile, as_json, **run) -> None:
    """Says how large the models and runs of a config are, and what they need of a target."""
    if (config is None) == (memory is None) or (memory and not target):
        raise click.UsageError("give --config, or --memory with a --target; not both")
    if target and target != LOCAL:
        _choose_platform()
    if memory:
        _plan_memory(int(memory), target, no_compile, as_json)
    else:
        _plan_config(config, target, no_compile, as_json, **run)


def _plan_config(config, target, no_compile, as_json, *, batch, stage, rollout, mesh) -> None:
    from mirage_jax.distributed.mesh import parse_mesh
    from mirage_jax.train import config as config_lib

    overrides = {}
    if batch:
        overrides = {f"{name}_train.batch": batch for name in STAGES}
    if mesh:
        overrides |= {f"mesh.{axis}": size for axis, size in parse_mesh(mesh).items()}
    world = config_lib.replace(config_lib.load(config), overrides)
    if target:
        _plan(world, target, _stages(stage, rollout), rollout or not stage, no_compile, as_json)
    else:
        _estimate(world, _stages(stage, rollout), as_json)


def _stages(stage, rollout) -> tuple[str, ...]:
    """Return the stages to plan: the one that is named; else none beside a rollout, or all."""
    if stage:
        return (stage,)
    return () if rollout else STAGES


def _choose_platform() -> None:
    """Keep JAX on the CPU of this host; libtpu then compiles for chips that are not there."""
    import os

    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    for name, value in (
        ("TPU_SKIP_MDS_QUERY", "1"),
        ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
        ("TPU_WORKER_HOSTNAMES", "localhost"),
        ("TPU_ACCELERATOR_TYPE", "v5litepod-4"),
    ):
        os.environ.setdefault(name, value)


def _estimate(world, names, as_json) -> None:
    """Say what generating and the stages that train the denoiser need on one device."""
    import json

    from mirage_jax import estimate
    from mirage_jax.train import stages

    device = estimate.device_bytes()
    found = {f"{world.name}: generate": estimate.estimate_generation(world)}
    for name in names:
        if (size := stages.estimate_stage(world, name)) is not None:
            found[f"{world.name}: train --stage {name}"] = size
    click.echo("\n\n".join(f"{what}\n{size.text(device)}" for what, size in found.items()))
    if as_json:
        values = [_estimated(what, size, device) for what, size in found.items()]
        click.echo(json.dumps(_joined(values)))


def _estimated(what, size, device) -> dict:
    """Return an estimate as plain values with the names that a plan has; null is unknown."""
    return {
        "what": what,
        "compiled": False,
        "fits": None if device is None else size.total <= device,
        "bytes_per_device": size.total,
        "memory": device,
        "bytes": dict(size.bytes),
        "step_seconds_bound": None,
        "mfu_bound": None,
        "collectives": {},
    }


def _joined(plans) -> dict:
    """Return plans as one object: the first with the others beside it."""
    return plans[0] | {"also": plans[1:]}


def _plan_memory(rows, target, no_compile, as_json) -> None:
    import json

    from mirage_jax.plan.memory import plan_memory

    wanted = _target(target)
    plan = plan_memory(rows, wanted, _devices(wanted, no_compile))
    click.echo(plan.text())
    if as_json:
        click.echo(json.dumps(plan.values()))


def _target(text):
    """Return the target of that name."""
    from mirage_jax.distributed.targets import local_target, parse_target

    return local_target() if text == LOCAL else parse_target(text)


def _devices(target, no_compile):
    """Return the target's devices to compile for, or None after saying why there are none."""
    import jax

    from mirage_jax.distributed.targets import compile_only_devices

    if no_compile:
        return None
    if target.local:
        return jax.local_devices()
    try:
        return compile_only_devices(target)
    except LookupError as error:
        click.echo(f"estimates only: {error.args[0]}")
        return None


def _plan(world, target, stages, rollout, no_compile, as_json) -> None:
    import json

    from mirage_jax.plan import make

    wanted = _target(target)
    devices = _devices(wanted, no_compile)
    plans = []
    for name in stages:
        plans.append(make.plan_training(world, name, wanted, devices))
        click.echo(plans[-1].text())
    if rollout:
        mesh = plans[0].mesh if plans else None
        plans.append(make.plan_rollout(world, wanted, devices, mesh))
        click.echo(plans[-1].text())
    if as_json:
        click.echo(json.dumps(_joined([plan.values() for plan in plans])))
