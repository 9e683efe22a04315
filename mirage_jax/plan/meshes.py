"""Which meshes a run may have on so many devices, and which is estimated to fit first.

Conventions: candidates divide rows, heads, tokens and widths evenly; those that divide a sequence
least come first, since that costs no exchange of heads. Weights are divided among no more devices
than leaves each a part worth sending; beyond, `data` repeats them, so that what a device gathers
does not grow with the number of devices. Rollouts have no gradients to share and read all weights
at every solver step, so theirs are divided as little as fits. Estimates are those of
`mirage_jax/estimate.py`, spread over the axes that divide them.

Read next: `report.py`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from mirage_jax import estimate
from mirage_jax.distributed.mesh import AXES
from mirage_jax.train import stages
from mirage_jax.train.config import WorldConfig, replace

# Rows of a part of a weight: tiles in memory have 16, and are sent whole.
_LEAST_PART = 32


def candidates(world: WorldConfig, stage: str, devices: int) -> Iterator[dict[str, int]]:
    """Yield the sizes of meshes with that many devices that divide everything evenly."""
    config = world.denoiser_stage(stage)
    first = config.windows.num_first(config.batch)
    yield from _dividing(world, math.gcd(first, config.batch - first), devices)


def _dividing(world: WorldConfig, rows: int, devices: int) -> Iterator[dict[str, int]]:
    """Yield the meshes that divide so many rows; 0 are as many as there are places for.

    Rows that are given are those of training.
    """
    inner_sizes = _divisors(devices)
    for narrow in (False, True):
        for inner in inner_sizes:
            for tensor in _divisors(inner):
                shares = _divisors(devices // inner)
                for fsdp in reversed(shares) if rows else shares:
                    sizes = (devices // (inner * fsdp), fsdp, inner // tensor, tensor)
                    mesh = dict(zip(AXES, sizes, strict=True))
                    if _divides(world, rows, mesh) and _is_narrow(world, mesh) == narrow:
                        yield mesh


def _divides(world: WorldConfig, rows: int, mesh: dict[str, int]) -> bool:
    """Return whether a mesh divides rows, heads, tokens and weights evenly."""
    denoiser = world.denoiser
    tokens = math.prod(world.grid_hw) // denoiser.patch_cells
    return (
        rows % (mesh["data"] * mesh["fsdp"]) == 0
        and denoiser.heads % (mesh["context"] * mesh["tensor"]) == 0
        and tokens % mesh["context"] == 0
        and denoiser.mlp_width % mesh["tensor"] == 0
        and denoiser.width % (mesh["fsdp"] * mesh["context"]) == 0
    )


def _is_narrow(world: WorldConfig, mesh: dict[str, int]) -> bool:
    """Return whether parts of weights are so thin that gathering them moves more than they are."""
    shares = mesh["fsdp"] * mesh["context"]
    return shares > 1 and world.denoiser.width // shares < _LEAST_PART


def estimated_bytes(world: WorldConfig, stage: str, mesh: dict[str, int]) -> dict[str, float]:
    """Estimate what a device holds while it trains a stage, by what it is."""
    whole = stages.estimate_stage(world, stage)
    if whole is None:
        raise ValueError(
            f"--stage: got {stage!r}, expected one that trains the denoiser or parts of it"
        )
    parameters = mesh["fsdp"] * mesh["context"] * mesh["tensor"]
    rows = mesh["data"] * mesh["fsdp"]
    shares = {
        "activations": rows * mesh["context"],
        "attention weights (none with a fused kernel)": rows * mesh["context"] * mesh["tensor"],
        "latent memory": rows,
    }
    return {name: size / shares.get(name, parameters) for name, size in whole.bytes.items()}


def first_that_fits(
    world: WorldConfig, stage: str, devices: int, memory: float
) -> dict[str, int] | None:
    """Return the first candidate whose estimate fits, or None."""
    for mesh in candidates(world, stage, devices):
        if sum(estimated_bytes(world, stage, mesh).values()) <= memory:
            return mesh
    return None


def nearest_that_fits(world: WorldConfig, stage: str, devices: int, memory: float) -> str:
    """Say which mesh is estimated to fit: of these devices, else of two, four ... times as many.

    Args:
        world: config; its batch is kept where that can be, else doubled, at most as often as the
            devices are.
        stage: that trains the denoiser or parts of it.
        devices: to begin with.
        memory: bytes of a device.

    Returns:
        For people, as in "64 devices, fsdp=16 context=4"; "" where none was found.
    """
    batch = world.denoiser_stage(stage).batch
    doubled = [2**n for n in range(7)]
    for times in doubled:
        for clips in (batch * more for more in doubled if more <= times):
            fed = replace(world, {f"{stage}_train.batch": clips})
            if mesh := first_that_fits(fed, stage, times * devices, memory):
                count = f"{times * devices} devices, " if times > 1 else ""
                return count + (f"batch {clips}, " if clips != batch else "") + _axes(mesh)
    return ""


def rollout_bytes(world: WorldConfig, mesh: dict[str, int]) -> dict[str, float]:
    """Estimate what a device holds while as many rollouts as the mesh has rows make a chunk."""
    rows = mesh["data"] * mesh["fsdp"]
    whole = estimate.estimate_generation(world, batch=rows, references=0)
    parameters = mesh["fsdp"] * mesh["context"] * mesh["tensor"]
    # The codec and the memory know nothing of tokens: they are divided by rows alone.
    shares = {"codec parameters": 1, "latent memory": rows, "codec, one streamed piece": rows}
    return {
        name: size
        / shares.get(name, parameters if "parameters" in name else rows * mesh["context"])
        for name, size in whole.bytes.items()
    }


def rollout_mesh(world: WorldConfig, devices: int, memory: float) -> dict[str, int]:
    """Return the config's mesh where it takes all devices, else the first that is estimated to fit.

    Rollouts run side by side, as many as `data` and `fsdp` have devices, so no batch is divided.

    Raises:
        ValueError: if no mesh divides heads, tokens and weights evenly.
    """
    if sizes := _of_config(world, devices):
        return sizes
    found = list(_dividing(world, 0, devices))
    if not found:
        raise ValueError(
            f"--target: {devices} devices divide {world.denoiser.heads} heads, the tokens of a "
            f"frame and a width of {world.denoiser.width} in no way; give a --mesh"
        )
    fitting = (m for m in found if sum(rollout_bytes(world, m).values()) <= memory)
    return next(fitting, found[0])


def nearest_for_rollouts(world: WorldConfig, devices: int, memory: float) -> str:
    """Say which mesh rollouts are estimated to fit on: see `nearest_that_fits`."""
    for times in (2**n for n in range(7)):
        for mesh in _dividing(world, 0, times * devices):
            if sum(rollout_bytes(world, mesh).values()) <= memory:
                count = f"{times * devices} devices, " if times > 1 else ""
                return count + _axes(mesh)
    return ""


def _axes(mesh: dict[str, int]) -> str:
    return " ".join(f"{name}={size}" for name, size in mesh.items() if size > 1)


def _of_config(world: WorldConfig, devices: int) -> dict[str, int]:
    """Return the sizes of the config's mesh where it takes all devices, else nothing."""
    try:
        sizes = world.mesh.sizes(devices)
    except ValueError:
        return {}
    return sizes if math.prod(sizes.values()) == devices else {}


def mesh_for(world: WorldConfig, stage: str, devices: int, memory: float) -> dict[str, int]:
    """Return the config's mesh where it takes all devices, else the first candidate that fits.

    Raises:
        ValueError: if no mesh divides the run evenly.
    """
    if sizes := _of_config(world, devices):
        return sizes
    if fitting := first_that_fits(world, stage, devices, memory):
        return fitting
    for mesh in candidates(world, stage, devices):
        return mesh
    batch = world.denoiser_stage(stage).batch
    raise ValueError(
        f"--target: {devices} devices divide a batch of {batch} ({stage}_train.batch, first and "
        f"later chunks apart), {world.denoiser.heads} heads and the tokens of a frame in no way, "
        "expected rows times heads that are a multiple of them; give a larger --batch, or a --mesh"
    )


def with_mesh(world: WorldConfig, mesh: dict[str, int]) -> WorldConfig:
    """Return the config with that mesh."""
    return dataclasses.replace(world, mesh=dataclasses.replace(world.mesh, **mesh))


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]
