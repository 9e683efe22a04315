"""Makes the plans of a config: a stage of training, and the rollout, on a target.

Read next: `report.py`, `mirage_jax/cli/plan.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from mirage_jax.distributed.mesh import make_mesh
from mirage_jax.distributed.targets import Target
from mirage_jax.models import functional
from mirage_jax.plan import chunks, decoding, meshes, operations, steps
from mirage_jax.plan.report import Load, Plan
from mirage_jax.train import tuning
from mirage_jax.train.config import WorldConfig


def plan_training(
    world: WorldConfig, stage: str, target: Target, devices: Sequence[Any] | None
) -> Plan:
    """Plan an update of a stage.

    Args:
        world: its mesh is used where it takes all devices.
        stage: that trains the denoiser or parts of it.
        target: what it is to run on.
        devices: from `compile_only_devices`; None plans without compiling.
    """
    sizes = meshes.mesh_for(world, stage, target.devices, target.chip.memory)
    world = meshes.with_mesh(world, sizes)
    count = operations.training_step(world, world.denoiser_stage(stage))
    plan = Plan(
        what=f"{world.name}: train --stage {stage}",
        target=target,
        mesh=sizes,
        batch=world.denoiser_stage(stage).batch,
        load=Load(count.model, count.executed, _training_bytes(world, stage, sizes)),
        compiled=None,
        estimated_bytes=meshes.estimated_bytes(world, stage, sizes),
    )
    plan = _compiled(plan, world, devices, lambda m: steps.compile_training(world, stage, m))
    return _hinted(
        plan, lambda memory: meshes.nearest_that_fits(world, stage, target.devices, memory)
    )


def plan_rollout(
    world: WorldConfig,
    target: Target,
    devices: Sequence[Any] | None,
    sizes: dict[str, int] | None = None,
) -> Plan:
    """Plan a chunk of as many rollouts side by side as `data` and `fsdp` have devices.

    Args:
        world: its mesh is used where it takes all devices and `sizes` are not given.
        target: what it is to run on.
        devices: from `compile_only_devices`; None plans without compiling.
        sizes: of the mesh; None chooses.
    """
    sizes = sizes or meshes.rollout_mesh(world, target.devices, target.chip.memory)
    world = meshes.with_mesh(world, sizes)
    rows = sizes["data"] * sizes["fsdp"]
    tokens = dataclasses.replace(world.chunk.references, most=0)
    bare = dataclasses.replace(world, chunk=dataclasses.replace(world.chunk, references=tokens))
    count = rows * (operations.rollout_chunk(bare) + decoding.operations(world))
    plan = Plan(
        what=f"{world.name}: a chunk of each of {rows} rollouts",
        target=target,
        mesh=sizes,
        batch=rows,
        load=Load(count, count, _rollout_bytes(world, sizes)),
        compiled=None,
        estimated_bytes=meshes.rollout_bytes(world, sizes),
    )
    plan = _compiled(plan, world, devices, lambda mesh: chunks.compile_rollout(world, mesh))
    return _hinted(plan, lambda memory: meshes.nearest_for_rollouts(world, target.devices, memory))


def _hinted(plan: Plan, nearest: Callable[[float], str]) -> Plan:
    """Return the plan with the nearest mesh that fits, where its own does not.

    Args:
        plan: compiled or not.
        nearest: gets the bytes that an estimate may come to.
    """
    if plan.fits:
        return plan
    # What compiling found in excess of the estimate counts for other meshes as well.
    estimated, memory = sum(plan.estimated_bytes.values()), plan.target.chip.memory
    excess = max(1.0, (memory if plan.failed else plan.bytes_per_device) / estimated)
    hint = nearest(memory / excess) or "none, of up to 64 times the devices"
    return dataclasses.replace(plan, hint=hint)


def _compiled(
    plan: Plan,
    world: WorldConfig,
    devices: Sequence[Any] | None,
    compile_for: Callable[[Mesh], steps.Compiled],
) -> Plan:
    """Return the plan with what compiling says, or with the compiler's reason why it cannot."""
    if devices is None:
        return plan
    try:
        compiled = compile_for(make_mesh(world.mesh, devices))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return dataclasses.replace(plan, failed=str(error).splitlines()[0][:400])
    return dataclasses.replace(plan, compiled=compiled)


def _rollout_bytes(world: WorldConfig, mesh: dict[str, int]) -> float:
    """Return bytes of weights that a device reads at least: at each solver step, each decoding."""
    size = 2 if world.denoiser.dtype == "bfloat16" else 4
    denoiser = functional.count_params(functional.abstract_params(world.denoiser))
    decode = decoding.decoding(world, 1)
    calls = world.sampling.steps * (2 if world.sampling.guidance != 1.0 else 1)
    decoder = 4 * functional.count_params(decode.params["decoder"])
    return calls * size * denoiser / mesh["tensor"] + decode.times * decoder


def _training_bytes(world: WorldConfig, stage: str, mesh: dict[str, int]) -> float:
    """Return bytes of weights and moments that a device reads and writes at least.

    Gathered weights are read by each pass over them in the type of the products; of what is
    trained, gradient, two moments, average and weight are read and written once.
    """
    config = world.denoiser_stage(stage)
    trained, fixed = map(functional.count_params, tuning.abstract_split(world, config))
    passes = 3 if world.denoiser.remat != "none" else 2
    size = 2 if world.denoiser.dtype == "bfloat16" else 4
    shares = mesh["fsdp"] * mesh["context"] * mesh["tensor"]
    kept = 5 if config.ema_decay > 0 else 4
    return passes * size * (trained + fixed) / mesh["tensor"] + 2 * 4 * kept * trained / shares
