"""The training step, compiled for a mesh without any array being made.

Conventions: it is the very function that training runs, blocks stacked and scanned. Batches are
described by `batch_shapes`, which a test compares with a drawn one.

Read next: `mirage_jax/train/step.py`, `chunks.py` (rollouts), `report.py`.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mirage_jax.distributed.axes import left_whole
from mirage_jax.distributed.collectives import Traffic, read_collectives
from mirage_jax.estimate import TEXT_TOKENS
from mirage_jax.models import functional
from mirage_jax.models.codec import CodecConfig
from mirage_jax.plan.shares import Cost, Turns, count
from mirage_jax.train import tuning
from mirage_jax.train.config import WorldConfig
from mirage_jax.train.denoiser_stage import DenoiserObjective
from mirage_jax.train.latents import CodecWeights
from mirage_jax.train.optimizer import make_optimizer
from mirage_jax.train.placement import Placement, abstract_state, placed_like
from mirage_jax.train.step import make_step
from mirage_jax.train.windows.inputs import with_memory_for
from mirage_jax.world_model.shares import READ_SCOPE, WRITE_SCOPE


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What a program needs of each device.

    Attributes:
        held: bytes of its arguments by what they are, on one device.
        temporary: bytes of everything else while it runs.
        collectives: kind -> traffic of one device in one run of it.
        seconds: what compiling took.
        left_whole: large parameters that are not divided, by name.
        accessed: bytes read from and written to a device's memory in one run, by count.
        remembering: what writing and reading the latent memory is of that, at most.
        temporaries: of each of several programs that run in turn; empty for one.
    """

    held: dict[str, int]
    temporary: int
    collectives: dict[str, Traffic]
    seconds: float
    left_whole: list[str]
    accessed: float = 0.0
    remembering: Cost = Cost(0.0, 0.0)
    temporaries: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """All together; outputs take the place of donated arguments."""
        return sum(self.held.values()) + self.temporary


@dataclasses.dataclass(frozen=True)
class Described:
    """What is known of a program before it is compiled.

    Attributes:
        world: config with the memory that the program has.
        held: its arguments by what they are.
        whole: large parameters that are not divided.
        memories: that a device holds.
    """

    world: WorldConfig
    held: dict[str, Any]
    whole: list[str]
    memories: int = 1

    def turns(self) -> Turns:
        """Bound what depends on data: pages of memories, and the cameras one is read for."""
        memory, chunk = self.world.memory, self.world.chunk
        pages = self.memories * memory.partitions * memory.pages
        return Turns(pages, chunk.latent_frames + chunk.preceding)


def batch_shapes(world: WorldConfig, stage: str) -> dict[str, jax.ShapeDtypeStruct]:
    """Return shapes and types of a batch of windows; see `train.windows.gather`."""
    config, chunk = world.denoiser_stage(stage), world.chunk
    grid, c = world.grid_hw, world.denoiser.latent_channels
    target, preceding, memory = chunk.latent_frames, chunk.preceding, config.windows.memory_frames
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        "target": ((target, *grid, c), np.float16),
        "preceding": ((preceding, *grid, c), np.float16),
        "cam_to_world": ((target + preceding, 4, 4), np.float32),
        "intrinsics": ((target + preceding, 3, 3), np.float32),
        "depth": ((target, *grid), np.float32),
        "known": ((target, *grid), np.bool_),
        "sky": ((target, *grid), np.bool_),
        "memory_latents": ((memory, *grid, c), np.float16),
        "memory_depth": ((memory, *grid), np.float32),
        "memory_keep": ((memory, *grid), np.bool_),
        "memory_cam_to_world": ((memory, 4, 4), np.float32),
        "memory_intrinsics": ((memory, 3, 3), np.float32),
    }
    if config.windows.references and chunk.references.most:
        shapes["references"] = ((chunk.references.most, *grid, c), np.float16)
    if world.denoiser.text_width:
        shapes["text"] = ((TEXT_TOKENS, world.denoiser.text_width), jnp.bfloat16)
    batch = {k: jax.ShapeDtypeStruct((config.batch, *s), t) for k, (s, t) in shapes.items()}
    if world.condition.score:
        shape = (target + preceding, *grid, world.condition.score)
        batch["score"] = jax.ShapeDtypeStruct(shape, np.float32)
    return batch


def compile_training(world: WorldConfig, stage: str, mesh: Mesh) -> Compiled:
    """Compile an update of a stage that trains the denoiser or parts of it.

    Raises:
        ValueError: if the mesh does not divide what it is to divide.
    """
    config = world.denoiser_stage(stage)
    objective = DenoiserObjective(world, blank_codec(world), None, None, name=stage)  # type: ignore[arg-type]
    placement = Placement(mesh, world.mesh.whole_below)
    trained, fixed = tuning.abstract_split(world, config)
    axes = tuning.logical_axes(world, config)
    optimizer = make_optimizer(config, trained)
    shapes = abstract_state(trained, optimizer, average=config.ema_decay > 0)
    shardings = placement.state(axes, shapes)
    state = placed_like(shapes, shardings)
    fixed = placed_like(fixed, placement.parameters(axes, fixed))
    arrays = batch_shapes(world, stage)
    batch = placed_like(arrays, placement.batch(arrays, config.batch, objective.shared))
    step = make_step(
        objective.loss, optimizer, config, world.seed, shardings, shared=objective.shared
    )
    held = {
        "parameters trained": state.params,
        "parameters held fixed": fixed,
        "optimizer": state.opt_state,
        "moving average": state.ema,
        "batch": batch,
    }
    whole = left_whole(shapes.params, shardings.params)
    sized = with_memory_for(world, config.windows.memory_frames)
    memories = config.batch // (mesh.shape["data"] * mesh.shape["fsdp"])
    described = Described(sized, held, whole, memories)
    return compile_program(mesh, step.lower, (state, fixed, batch), described)


def compile_program(
    mesh: Mesh, lower: Callable[..., Any], arguments: Any, described: Described
) -> Compiled:
    """Compile for a mesh.

    Args:
        mesh: it is set meanwhile.
        lower: of a jitted function.
        arguments: abstract arrays that carry shardings.
        described: what is said of the program.
    """
    since = time.monotonic()
    with jax.set_mesh(mesh):
        compiled = lower(*arguments).compile()
    seconds, text = time.monotonic() - since, compiled.as_text()
    whole, part = count(text, (WRITE_SCOPE, READ_SCOPE), described.turns())
    return Compiled(
        held={name: bytes_on_one_device(tree) for name, tree in described.held.items()},
        temporary=bytes_beside_arguments(compiled),
        collectives=read_collectives(text, mesh.size),
        seconds=seconds,
        left_whole=described.whole,
        accessed=whole.bytes,
        remembering=part,
    )


def bytes_beside_arguments(compiled: Any) -> int:
    """Return the bytes of a device that a program needs beside those of its arguments."""
    memory = compiled.memory_analysis()
    # Outputs that take no argument's place.
    fresh = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return int(memory.temp_size_in_bytes + max(fresh, 0))


def bytes_on_one_device(tree: Any) -> int:
    """Return the bytes of a device's parts of abstract arrays that carry shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def blank_codec(world: WorldConfig) -> CodecWeights:
    """Return the small codec with zeros for weights; a large one is no part of the step."""
    if not isinstance(world.codec, CodecConfig):
        return CodecWeights(world.codec, {}, "")
    shapes = functional.abstract_params(world.codec)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return CodecWeights(world.codec, zeros, "")
