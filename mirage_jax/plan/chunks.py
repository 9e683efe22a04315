"""The programs of a rollout, compiled for a mesh without any array being made.

They run one after the other: what begins a rollout (its start picture is encoded and written, the
constant condition made), all of a later chunk but decoding (read, all solver steps, depth where the
world has a head for it, write), and decoding. A device holds what all of them need, and the
temporaries of one. A later chunk is timed; the first has fewer frames before it and does less.

Conventions: the codec knows nothing of tokens and is whole on every device. If its kernels were
divided along `fsdp`, as the rows of its activations are, XLA would gather activations in their
place, which are the larger by far.

Read next: `steps.py`, `decoding.py`, `mirage_jax/rollout/chunk.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mirage_jax import world_model
from mirage_jax.distributed.collectives import added
from mirage_jax.estimate import TEXT_TOKENS
from mirage_jax.geometry.camera import Camera
from mirage_jax.models import functional
from mirage_jax.plan.decoding import decoding
from mirage_jax.plan.steps import Compiled, Described, blank_codec, compile_program
from mirage_jax.rollout.chunk import ChunkSteps, Shown, Start
from mirage_jax.train.config import WorldConfig
from mirage_jax.train.placement import Placement, placed_like

DECODING = "decoding"
_MODELS = ("denoiser", "learned_read", "depth_head")


def compile_rollout(world: WorldConfig, mesh: Mesh) -> Compiled:
    """Compile rollouts side by side, as many as `data` and `fsdp` have devices.

    The chunk is a later one without references. Depth comes from outside where the world has no
    head for it.
    """
    rows = mesh.shape["data"] * mesh.shape["fsdp"]
    decoded, times = _compile_decoding(world, mesh, rows)
    parts = [(name, compiled, 0) for name, compiled in _compile_beginning(world, mesh, rows)]
    parts.append(("a chunk's latents", _compile_making(world, mesh, rows), 1))
    parts.append((DECODING, decoded, times))
    return _in_turn(parts)


def _compile_beginning(world: WorldConfig, mesh: Mesh, rows: int) -> Iterator[tuple[str, Compiled]]:
    """Compile what encodes and writes start pictures, and what makes the constant condition."""
    steps, size = ChunkSteps(world), (world.data.height, world.data.width)  # type: ignore[arg-type]
    params = {"codec": _whole_codec(world, mesh)}

    def real(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *shape), np.float32)

    start = Start(
        jax.ShapeDtypeStruct((rows, *size, 3), np.uint8),
        real(*size),
        jax.ShapeDtypeStruct((rows, *size), np.bool_),
    )
    start, camera = _placed_rows((start, Camera(real(4, 4), real(3, 3))), rows, mesh)
    on = jax.ShapeDtypeStruct((), np.bool_, sharding=NamedSharding(mesh, P()))
    held = {"codec parameters": params}
    arguments = (params, start, camera, on)
    described = Described(world, held, [])
    yield "the start", compile_program(mesh, steps.begin.lower, arguments, described)
    if world.condition.score:
        yield (
            "the constant condition",
            compile_program(mesh, steps.score.lower, (params,), described),
        )


def _compile_making(world: WorldConfig, mesh: Mesh, rows: int) -> Compiled:
    """Compile everything of a chunk but decoding, as one program."""
    placement = Placement(mesh, world.mesh.whole_below)
    models = {k: getattr(world, k) for k in _MODELS if getattr(world, k) is not None}
    shapes = {k: _as_stored(config) for k, config in models.items()}
    axes = {k: functional.logical_axes(config) for k, config in models.items()}
    params = placed_like(shapes, placement.parameters(axes, shapes))
    memory = jax.eval_shape(lambda: world_model.empty_memory(world, rows))
    arguments = _placed_rows((memory, *_chunk_shapes(world, rows)), rows, mesh)
    steps = ChunkSteps(world)  # type: ignore[arg-type]
    codec = blank_codec(world).params

    def chunk(params, memory, cameras, shown, noise, depth, keep, written):
        params = params | {"codec": codec}
        seen, inputs = steps.look(params, memory, cameras, shown)
        latents = steps.generate(params, inputs, noise)
        if world.depth_head is not None:
            depth, found = steps.depth(params, latents, seen)
            keep = keep & found
        return latents, steps.remember(memory, latents, depth, keep, written, 0)

    jitted = jax.jit(chunk, donate_argnums=1)
    held = {f"{name} parameters": params[name] for name in models}
    held |= {"latent memory": arguments[0], "chunk": arguments[1:]}
    described = Described(world, held, [])
    return compile_program(mesh, jitted.lower, (params, *arguments), described)


def _as_stored(config: Any) -> Any:
    """Return a model's abstract parameters, in half precision where it computes in that."""
    shapes = functional.abstract_params(config)
    dtype = jnp.dtype(getattr(config, "dtype", "float32"))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), shapes)


def _whole_codec(world: WorldConfig, mesh: Mesh) -> Any:
    shapes = functional.abstract_params(world.codec)
    return placed_like(shapes, jax.tree.map(lambda _: NamedSharding(mesh, P()), shapes))


def _compile_decoding(world: WorldConfig, mesh: Mesh, rows: int) -> tuple[Compiled, int]:
    """Compile what decodes a chunk's latents; return it, and how often it runs."""
    decode, params = decoding(world, rows), _whole_codec(world, mesh)
    arrays = _placed_rows(decode.arrays, rows, mesh)
    held = {"codec parameters": params, "decoder": arrays}
    described = Described(world, held, [])
    return compile_program(mesh, decode.program.lower, (params, *arrays), described), decode.times


def _in_turn(parts: list[tuple[str, Compiled, int]]) -> Compiled:
    """Return programs as one: all that is held, temporaries of the largest, what a chunk sends.

    Args:
        parts: name, program, and how often a chunk runs it.
    """
    held: dict[str, int] = {}
    for _, part, _ in parts:
        held |= part.held
    making = max((part for _, part, _ in parts), key=lambda part: part.remembering.bytes)
    return Compiled(
        held=held,
        temporary=max(part.temporary for _, part, _ in parts),
        collectives=added((part.collectives, times) for _, part, times in parts),
        seconds=sum(part.seconds for _, part, _ in parts),
        left_whole=making.left_whole,
        accessed=sum(times * part.accessed for _, part, times in parts),
        remembering=making.remembering,
        temporaries={name: part.temporary for name, part, _ in parts},
    )


def _chunk_shapes(world: WorldConfig, rows: int) -> tuple[Any, ...]:
    """Return cameras, what is shown, noise, depth, keep, and the cameras of what is written."""
    chunk, grid, c = world.chunk, world.grid_hw, world.denoiser.latent_channels
    target, frames = chunk.latent_frames, chunk.latent_frames + chunk.preceding

    def real(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *shape), np.float32)

    text = real(TEXT_TOKENS, world.denoiser.text_width) if world.denoiser.text_width else None
    score = None
    if world.condition.score:
        score = jax.ShapeDtypeStruct((frames, *grid, world.condition.score), np.float32)
    guided = world.sampling.guidance != 1.0
    shown = Shown(
        first=real(*grid, c),
        preceding=real(chunk.preceding, *grid, c),
        score=score,
        text=text,
        negative=text if guided else None,
    )
    keep = jax.ShapeDtypeStruct((rows, target, *grid), np.bool_)
    cameras = Camera(real(frames, 4, 4), real(frames, 3, 3))
    written = Camera(real(target, 4, 4), real(target, 3, 3))
    return cameras, shown, real(target, *grid, c), real(target, *grid), keep, written


def _placed_rows(tree: Any, rows: int, mesh: Mesh) -> Any:
    """Divide the rows of every array that has them; the constant condition has none."""
    divided, whole = NamedSharding(mesh, P(("data", "fsdp"))), NamedSharding(mesh, P())

    def one(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        shared = any(getattr(part, "name", "") == "score" for part in path)
        sharding = whole if shared else divided
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree_util.tree_map_with_path(one, tree)
