"""What each device does of writing and reading the memories of a batch.

The mesh that is set says how: rows of the batch lie along `data` and `fsdp`, and the partitions of
each memory, where `memory.partitions` is more than one, along `context` and `tensor`. One scene may
so span all devices. Nothing that comes out depends on it.

Read next: `mirage_jax/memory/sharded.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec as P

from mirage_jax.distributed.axes import TABLE, spec_for
from mirage_jax.distributed.constrain import devices_in_mesh, on_own_part
from mirage_jax.geometry.camera import Camera
from mirage_jax.memory import read, sharded, write
from mirage_jax.memory.config import MemoryConfig
from mirage_jax.memory.state import LatentMemory

# By what profilers and compiled programs call the operations of a write and of a read.
WRITE_SCOPE, READ_SCOPE = "memory_write", "memory_read"


def on_own_share(
    function: Callable[..., Any], config: MemoryConfig, *, gives_memory: bool
) -> Callable[..., Any]:
    """Return a function of one memory, mapped over a batch and divided among the devices.

    Args:
        function: of `write.Access`, a memory or its share, and pytrees of arrays.
        config: of the memories.
        gives_memory: It returns the memory and pytrees, not pytrees only.

    Returns:
        The same without `Access`, all arguments and results stacked along a batch axis.

    Raises:
        ValueError: if the devices do not divide the partitions.
    """
    axes = memory_axes(config)
    way = sharded.access(axes) if axes else write.Access(write.write, read.read)
    mapped = jax.vmap(functools.partial(function, way))
    if not axes:
        return on_own_part(mapped, "batch")
    mesh = jax.sharding.get_abstract_mesh()

    def run(memory: LatentMemory, *arguments: Any) -> Any:
        batch = spec_for(("batch",), memory.latest.shape, mesh, "memories of a batch")
        rows = batch[0] if len(batch) else None
        tables = LatentMemory._make(
            P(rows) if name in sharded.WHOLE else P(rows, axes) for name in LatentMemory._fields
        )
        divided = jax.shard_map(
            mapped,
            in_specs=(tables, *(P(rows) for _ in arguments)),
            out_specs=(tables, P(rows)) if gives_memory else P(rows),
            check_vma=False,
        )
        return divided(memory, *arguments)

    return run


def read_all(
    memory: LatentMemory, cameras: Camera, grid_hw: tuple[int, int], config: MemoryConfig
) -> read.MemoryRead:
    """Read the memories [b] of a batch at cameras [b, t] with intrinsics of that grid."""
    one = on_own_share(
        lambda access, memory, cameras: access.read(memory, cameras, grid_hw, config),
        config,
        gives_memory=False,
    )
    with jax.named_scope(READ_SCOPE):
        return one(memory, cameras)


def memory_axes(config: MemoryConfig) -> tuple[str, ...]:
    """Return the axes of the mesh that is set which divide a memory's partitions.

    Raises:
        ValueError: if their devices do not divide them.
    """
    if devices_in_mesh() == 1 or config.partitions == 1:
        return ()
    sizes = jax.sharding.get_abstract_mesh().shape
    axes = tuple(axis for axis in TABLE["memory"] if sizes.get(axis, 1) > 1)
    shares = 1
    for axis in axes:
        shares *= sizes[axis]
    sharded.partitions_each(config, axes, shares)
    return axes
