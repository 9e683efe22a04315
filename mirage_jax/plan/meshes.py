"""Which meshes a run may have on so many devices, and which is estimated to fit first.

Conventions: candidates divide rows, heads, tokens and widths evenly; those that divide a sequence
least come first, since that costs no exchange of heads. Estimates are those of
`mirage_jax/estimate.py`, spread over the axes that divide them.

Read next: `report.py`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from mirage_jax.distributed.mesh import AXES
from mirage_jax.train import stages
from mirage_jax.train.config import WorldConfig


def candidates(world: WorldConfig, stage: str, devices: int) -> Iterator[dict[str, int]]:
    """Yield the sizes of meshes with that many devices that divide everything evenly."""
    denoiser, config = world.denoiser, world.denoiser_stage(stage)
    tokens = math.prod(world.grid_hw) // denoiser.patch_cells
    first = config.windows.num_first(config.batch)
    rows = math.gcd(first, config.batch - first)
    for inner in _divisors(devices):
        for tensor in _divisors(inner):
            fsdp, context = devices // inner, inner // tensor
            even = (
                rows % fsdp == 0
                and denoiser.heads % inner == 0
                and tokens % context == 0
                and denoiser.mlp_width % tensor == 0
                and denoiser.width % (fsdp * context) == 0
            )
            if even:
                yield dict(zip(AXES, (1, fsdp, context, tensor), strict=True))


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


def mesh_for(world: WorldConfig, stage: str, devices: int, memory: float) -> dict[str, int]:
    """Return the config's mesh where it takes all devices, else the first candidate that fits.

    Raises:
        ValueError: if no mesh divides the run evenly.
    """
    try:
        sizes = world.mesh.sizes(devices)
    except ValueError:
        sizes = {}
    if math.prod(sizes.values()) == devices and sizes:
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
