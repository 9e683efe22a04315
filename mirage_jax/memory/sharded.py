"""One memory over many devices: each holds some of the partitions; results are those of one.

Write: every device gathers the *new* rows (about 220 bytes each, whatever is stored), sorts them as
one device would, and keeps those of its own partitions. Gathering moves as much as routing each row
to its owner would with room for the worst case, and cannot overflow. Read: every device rasterises
its own pages for all cameras; the least depth wins, then the least order, and the winner alone
gives its token, so that sums over devices have one term that is not zero and are exact (a stored
-0.0 comes back as 0.0).

With the number of partitions fixed, everything (rows dropped or evicted included) is the same on
any number of devices. The functions run under `jax.jit` and over any subset of a mesh's axes.

Read next: `write.py`, `read.py`.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mirage_jax.geometry.camera import Camera
from mirage_jax.memory import write as write_lib
from mirage_jax.memory.config import MemoryConfig
from mirage_jax.memory.merge import Rows
from mirage_jax.memory.read import (
    MemoryRead,
    check_cameras,
    check_candidates,
    choose_rows,
    constants,
    finish,
    flat_candidates,
    gather,
)
from mirage_jax.memory.state import LatentMemory, check_memory, check_tables
from mirage_jax.memory.write import Access, WriteReport
from mirage_jax.ops.rasterize_points import CellGrid

# What every device holds whole.
WHOLE = ("boundaries", "next_order", "latest")


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where the partitions of a memory live.

    Attributes:
        mesh: The devices.
        axes: Names of the mesh axes that divide the partitions; along others they are repeated.
    """

    mesh: Mesh
    axes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check that the axes are those of the mesh."""
        missing = [axis for axis in self.axes if axis not in self.mesh.shape]
        if missing or not self.axes:
            raise ValueError(
                f"Placement: axes are {self.axes}, expected one or more of the mesh's "
                f"{tuple(self.mesh.shape)}."
            )

    @property
    def shares(self) -> int:
        """How many devices divide the partitions."""
        return math.prod(self.mesh.shape[axis] for axis in self.axes)

    def specs(self) -> Any:
        """Return the partition specs of a memory's tables, as a `LatentMemory` of them."""
        specs = [P() if name in WHOLE else P(self.axes) for name in LatentMemory._fields]
        return LatentMemory._make(specs)

    def shardings(self) -> Any:
        """Return the shardings of a memory's tables: for `jax.device_put` or `out_shardings`."""
        return LatentMemory._make(NamedSharding(self.mesh, spec) for spec in self.specs())


def write(
    memory: LatentMemory, rows: Rows, config: MemoryConfig, placement: Placement
) -> tuple[LatentMemory, WriteReport]:
    """Add rows to a memory that is spread over devices; see `write.write`.

    Args:
        memory: One memory, placed by `placement.shardings()`; donate it to write in place.
        rows: Candidates. Where their number is a multiple of the devices each device is taken to
            hold its share of them, else each to hold all.
        config: Retention; its partitions are a multiple of the devices.
        placement: Where the partitions live.

    Returns:
        The new memory, placed alike, and the report over all devices.

    Raises:
        ValueError: If the memory, the rows or the placement do not fit the config.
    """
    check_memory(memory, config, "write")
    partitions_each(config, placement.axes, placement.shares)
    axes = placement.axes
    split = rows.keep.shape[0] % placement.shares == 0

    def local(memory: LatentMemory, rows: Rows) -> tuple[LatentMemory, WriteReport]:
        if split:
            rows = jax.lax.all_gather(rows, axes, tiled=True)
        return write_share(memory, rows, config, axes)

    rows_spec = P(axes) if split else P()
    return jax.shard_map(
        local,
        mesh=placement.mesh,
        in_specs=(placement.specs(), rows_spec),
        out_specs=(placement.specs(), P()),
        axis_names=set(axes),
        check_vma=False,
    )(memory, rows)


def write_share(
    memory: LatentMemory, rows: Rows, config: MemoryConfig, axes: tuple[str, ...]
) -> tuple[LatentMemory, WriteReport]:
    """Do what one device does of a write, inside `jax.shard_map`; it may be mapped over a batch.

    Args:
        memory: This device's share of the tables.
        rows: All candidates.
        config: Retention.
        axes: Mesh axes that divide the partitions.

    Returns:
        The share, written, and the report over all devices.
    """
    per_device = partitions_each(config, axes, jax.lax.axis_size(axes))
    check_tables(memory, config, "write", per_device)
    arranged = write_lib.arrange(memory, rows, config)
    part = arranged.part - jax.lax.axis_index(axes) * per_device
    mine = arranged.rows.keep & (part >= 0) & (part < per_device)
    owned = arranged._replace(rows=arranged.rows._replace(keep=mine), part=part)
    memory, report = write_lib.store(memory, owned, config)
    report = WriteReport(*jax.lax.psum(jnp.stack(report), axes))
    return memory, report._replace(merged=report.merged + write_lib.given_way(arranged))


def read(
    memory: LatentMemory,
    camera: Camera,
    grid_hw: tuple[int, int],
    config: MemoryConfig,
    placement: Placement,
    scatter: bool = False,
    candidates: int | None = None,
) -> MemoryRead:
    """Return what each camera sees of a memory that is spread over devices; see `read.read`.

    Args:
        memory: One memory, placed by `placement.shardings()`.
        camera: t cameras with intrinsics of the h x w latent grid; every device has all of them.
        grid_hw: (h, w).
        config: Conventions and selection; must be the memory's own.
        placement: Where the partitions live.
        scatter: Leave each device its share of the t frames instead of all; t must be a multiple
            of the devices.
        candidates: How many of the best rows of each cell; see `read.read`.

    Returns:
        The read; gradients flow to the tokens as without devices.

    Raises:
        ValueError: If the memory, the cameras or the placement do not fit.
    """
    check_memory(memory, config, "read")
    check_cameras(camera)
    check_candidates(candidates)
    partitions_each(config, placement.axes, placement.shares)
    t, axes = camera.cam_to_world.shape[0], placement.axes
    if scatter and t % placement.shares:
        raise ValueError(
            f"read: {t} cameras cannot be scattered over {placement.shares} devices, expected a "
            "multiple; pad the cameras or pass scatter=False."
        )

    def local(memory: LatentMemory, camera: Camera) -> MemoryRead:
        return read_share(memory, camera, grid_hw, config, axes, scatter, candidates)

    return jax.shard_map(
        local,
        mesh=placement.mesh,
        in_specs=(placement.specs(), P()),
        out_specs=P(axes) if scatter else P(),
        axis_names=set(axes),
        check_vma=False,
    )(memory, camera)


def read_share(
    memory: LatentMemory,
    camera: Camera,
    grid_hw: tuple[int, int],
    config: MemoryConfig,
    axes: tuple[str, ...],
    scatter: bool = False,
    candidates: int | None = None,
) -> MemoryRead:
    """Do what one device does of a read, inside `jax.shard_map`; it may be mapped over a batch.

    Args:
        memory: This device's share of the tables.
        camera: All t cameras.
        grid_hw: (h, w).
        config: Conventions and selection.
        axes: Mesh axes that divide the partitions.
        scatter: Return this device's share of the t frames instead of all.
        candidates: How many of the best rows of each cell; see `read.read`.
    """
    per_device = partitions_each(config, axes, jax.lax.axis_size(axes))
    check_tables(memory, config, "read", per_device)
    grid = CellGrid(*grid_hw, config.rounding)

    def add(values: jax.Array) -> jax.Array:
        if scatter:
            return jax.lax.psum_scatter(values, axes, scatter_dimension=0, tiled=True)
        return jax.lax.psum(values, axes)

    frozen, camera = constants(memory, camera)
    won = choose_rows(frozen, camera, grid, config, candidates, lambda x: jax.lax.pmin(x, axes))
    won, camera = flat_candidates(won, camera)
    found = gather(memory, frozen, won, camera, grid)
    first = jax.lax.axis_index(axes) * frozen.depth.size
    index = jnp.where(won >= 0, won + first + 1, 0)
    return finish(_join(found, index, add), config, candidates)


def access(axes: tuple[str, ...]) -> Access:
    """Return how `write.write_frames` writes and reads a share, inside `jax.shard_map`."""

    def write_one(memory: LatentMemory, rows: Rows, config: MemoryConfig) -> Any:
        return write_share(memory, rows, config, axes)

    def read_one(
        memory: LatentMemory, camera: Camera, hw: Any, config: MemoryConfig, k: int | None = None
    ) -> MemoryRead:
        return read_share(memory, camera, hw, config, axes, candidates=k)

    return Access(write_one, read_one)


def _join(found: MemoryRead, index: jax.Array, add: Any) -> MemoryRead:
    """Add what the devices found: one sum for the tokens, one for all else, taken as integers."""
    steps = found.axes.reshape(*found.depth.shape, 6)
    geometry = jnp.concatenate([found.offset, steps], axis=-1)
    reals = jnp.stack([found.depth, found.scale, found.angle, *jnp.moveaxis(geometry, -1, 0)])
    bits = jax.lax.bitcast_convert_type(reals, jnp.int32)
    whole = add(jnp.concatenate([bits, found.age[None], index[None]]).swapaxes(0, 1))
    values = jax.lax.bitcast_convert_type(whole[:, : len(reals)], jnp.float32)
    depth, scale, angle, u, v, *axes = jnp.moveaxis(values, 1, 0)
    age, index = whole[:, -2], whole[:, -1] - 1
    return MemoryRead(
        tokens=add(found.tokens),
        visibility=index >= 0,
        depth=depth,
        index=index,
        offset=jnp.stack([u, v], axis=-1),
        scale=scale,
        angle=angle,
        age=age,
        axes=jnp.stack(axes, axis=-1).reshape(*depth.shape, 3, 2),
    )


def partitions_each(config: MemoryConfig, axes: tuple[str, ...], shares: int) -> int:
    """Return how many partitions each device holds."""
    if config.partitions % shares:
        raise ValueError(
            f"sharded memory: {config.partitions} partitions cannot be divided among {shares} "
            f"devices (axes {axes}); set config.partitions to a multiple."
        )
    return config.partitions // shares
