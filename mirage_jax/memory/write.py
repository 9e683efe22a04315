"""Write latent frames into a memory: unproject cells to rows, then keep them by the retention rule.

Conventions: depth is z-depth on the latent grid and cameras carry that grid's intrinsics. Masks are
True where content is kept (static things). A row is storable when it is kept, its depth is finite
and positive, and its position, origin and token are finite; all others are ignored without being
counted. Gradients flow through tokens. Rows keep their order: frame by frame, row-major within a
frame.

Read next: `read.py`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Int32

from mirage_jax.geometry.camera import Camera, camera_center
from mirage_jax.geometry.cell_axes import cell_axes
from mirage_jax.geometry.depth import edge_validity
from mirage_jax.geometry.projection import unproject
from mirage_jax.memory import directory, evict, merge, place, put
from mirage_jax.memory.axes import pack_axes
from mirage_jax.memory.merge import Rows
from mirage_jax.memory.moved import moved_between, moved_since
from mirage_jax.memory.read import MemoryRead, read
from mirage_jax.memory.state import FEW_PAGES, LatentMemory, MemoryConfig, check_memory
from mirage_jax.memory.unseen import unseen


class WriteReport(NamedTuple):
    """What became of the storable rows of a write.

    Rows stored before + storable rows = rows stored after + merged + dropped + evicted (merged also
    counts the cells that `unseen` held back, which then belong to the left side as well).

    Attributes:
        written: New rows now in the memory.
        merged: Rows, old or new, that gave way to another of their voxel, or were seen already.
        dropped: New rows refused because there was no room.
        evicted: Old rows given up to make room.
        moved: Cells that were no candidates because they stand where something else was seen.
    """

    written: Int32[jax.Array, "*batch"]
    merged: Int32[jax.Array, "*batch"]
    dropped: Int32[jax.Array, "*batch"]
    evicted: Int32[jax.Array, "*batch"]
    moved: Int32[jax.Array, "*batch"]


class Access(NamedTuple):
    """How frames reach a memory: `write` and `read.read`, or those of one device's share of it.

    Both reads take a memory, cameras, the grid, the config, and maybe a number of candidates.
    """

    write: Callable[[LatentMemory, Rows, MemoryConfig], tuple[LatentMemory, WriteReport]]
    read: Callable[..., MemoryRead]


def unproject_rows(
    latents: Float[jax.Array, "t h w c"],
    depth: Float[jax.Array, "t h w"],
    keep: Bool[jax.Array, "t h w"],
    camera: Camera,
    config: MemoryConfig,
    time: Int[jax.Array, "*t"] | int,
) -> Rows:
    """Give every latent cell its place in the world (paper, memory write).

    Args:
        latents: Latent frames; their cells become the tokens.
        depth: z-depth of each cell, scene units; 0, negative and non-finite are unknown.
        keep: False where a cell must not be remembered (moving things, unsure depth).
        camera: t cameras with intrinsics of the h x w latent grid.
        config: Conventions; `edge_window` adds the test for continuous depth.
        time: Stamp of each frame, or one for all.

    Returns:
        t * h * w rows; `keep` is True for the storable ones.

    Raises:
        ValueError: If the shapes do not belong together.
    """
    _check_frames(latents, depth, keep, camera, config)
    depth = jnp.asarray(depth, jnp.float32)
    camera = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), camera)
    if config.edge_window:
        keep = keep & edge_validity(depth, config.edge_window, config.edge_range)
    grid = depth.shape
    points = unproject(depth, camera, config.half_cell)
    origin = jnp.broadcast_to(camera_center(camera)[:, None, None], points.shape)
    times = jnp.broadcast_to(jnp.asarray(time, jnp.int32), grid[:1])
    axes = None
    if config.axes:
        axes = pack_axes(cell_axes(depth, camera, config.half_cell)).reshape(-1, 3)
    rows = Rows(
        positions=points.reshape(-1, 3),
        tokens=latents.reshape(-1, latents.shape[-1]),
        origin=origin.reshape(-1, 3),
        depth=depth.reshape(-1),
        time=jnp.broadcast_to(times[:, None, None], grid).reshape(-1),
        keep=jnp.asarray(keep, bool).reshape(-1),
        axes=axes,
    )
    return rows._replace(keep=_storable(rows))


def write(
    memory: LatentMemory, rows: Rows, config: MemoryConfig
) -> tuple[LatentMemory, WriteReport]:
    """Add rows to a memory by its retention rule; rows that do not fit are dropped and reported.

    Costs what the new rows cost, whatever is stored: donate the memory (`jax.jit(...,
    donate_argnums=0)`) and it is written in place.

    "append" keeps every row while there is room. With the other retentions a voxel keeps one row
    (see `MemoryConfig`); a voxel that is stored already always keeps one. New voxels are taken in
    the order of their rows while there is room; `config.when_full` may make some.

    Args:
        memory: One memory.
        rows: Candidates; those that are not storable are ignored.
        config: Retention; must be the memory's own.

    Returns:
        The new memory, and the number of rows written, merged, dropped and evicted.

    Raises:
        ValueError: If the memory or the rows do not fit the config.
    """
    check_memory(memory, config, "write")
    arranged = arrange(memory, rows, config)
    memory, report = store(memory, arranged, config)
    return memory, report._replace(merged=report.merged + given_way(arranged))


def given_way(arranged: merge.Sorted) -> Int32[jax.Array, ""]:
    """Return how many new rows gave way to another new row of their voxel."""
    return arranged.total - _count(arranged.rows.keep)


def arrange(memory: LatentMemory, rows: Rows, config: MemoryConfig) -> merge.Sorted:
    """Sort the storable rows along the curve and let one lead each voxel.

    Args:
        memory: One memory, or its share on one device.
        rows: Candidates.
        config: Retention.

    Raises:
        ValueError: If the rows do not fit the config.
    """
    if rows.tokens.ndim != 2 or rows.tokens.shape[1] != config.channels:
        raise ValueError(
            f"write: rows.tokens has shape {list(rows.tokens.shape)}, expected [m, "
            f"{config.channels}] (config.channels)."
        )
    rows = _with_axes(jax.tree.map(jnp.asarray, rows), config)
    # A position must round the same way where its voxel is found and where it is stored: the
    # barrier keeps compilers from computing it twice.
    frozen = jax.lax.optimization_barrier(jax.lax.stop_gradient(rows))
    tokens = rows.tokens.astype(memory.tokens.dtype)
    rows = frozen._replace(tokens=tokens, keep=_storable(frozen))
    if not config.merges and config.partitions == 1 and config.pages <= FEW_PAGES:
        return merge.in_write_order(memory, rows)
    return merge.along_curve(jax.lax.stop_gradient(memory), rows, config)


def store(
    memory: LatentMemory, arranged: merge.Sorted, config: MemoryConfig
) -> tuple[LatentMemory, WriteReport]:
    """Put sorted rows into the partitions that these tables hold; the others' rows are left alone.

    Args:
        memory: One memory, or its share on one device.
        arranged: From `arrange`, with partitions counted from the first that the tables hold.
        config: The rules.

    Returns:
        The new tables, and what became of the rows of these partitions.
    """
    memory = jax.tree.map(jnp.asarray, memory)
    frozen = jax.lax.stop_gradient(memory)
    memory = frozen._replace(tokens=memory.tokens)
    starts = place.partition_starts(arranged.part, memory.order.shape[0])
    decision = merge.decide(frozen, arranged, config)
    evicted, filled = None, memory.filled
    if config.when_full != "stop":
        wanted = place.count_rows(decision.newcomer, starts)
        memory, evicted = evict.evict(memory, arranged, decision, wanted, config)
    room = config.room - memory.filled
    all_new = config.partitions == 1 and not config.merges
    admitted = place.admit(decision.newcomer, arranged.part, arranged.rank, room, all_new)
    blended = merge.blend(memory, arranged, decision, config)
    allotment = place.allot(memory, admitted, arranged.part, evicted, config)
    stored = admitted | decision.replaces
    row = jnp.where(admitted, allotment.row, decision.old)
    order = memory.next_order + arranged.rank
    part = jnp.clip(arranged.part, 0, memory.order.shape[0] - 1)
    refused = place.count_rows((decision.newcomer | decision.refused) & ~admitted, starts)
    few = config.partitions * config.pages <= FEW_PAGES
    slot = part * config.rows + row
    memory = put.put_rows(memory, blended, slot, stored, order, few)
    if decision.entry is not None:
        table = directory.enter(memory.directory, decision.entry, row, admitted)
        memory = memory._replace(directory=table)
    report = WriteReport(
        written=_count(stored),
        merged=_count(decision.old >= 0),
        dropped=jnp.sum(refused),
        evicted=jnp.sum(filled) + _count(admitted) - jnp.sum(allotment.filled),
        moved=jnp.zeros((), jnp.int32),
    )
    return memory._replace(
        tail=allotment.tail,
        fresh=allotment.fresh,
        filled=allotment.filled,
        refused=memory.refused + refused,
        boundaries=arranged.boundaries,
        next_order=memory.next_order + arranged.total,
        latest=jnp.maximum(memory.latest, arranged.latest),
    ), report


def write_frames(
    memory: LatentMemory,
    latents: Float[jax.Array, "t h w c"],
    depth: Float[jax.Array, "t h w"],
    keep: Bool[jax.Array, "t h w"],
    camera: Camera,
    config: MemoryConfig,
    time: Int[jax.Array, "*t"] | int,
    access: Access | None = None,
) -> tuple[LatentMemory, WriteReport]:
    """Unproject and write latent frames one after the other, obeying `config.write_where`.

    Cells that stand where another of the frames saw something behind are left out (`moved.py`).
    With "unseen" each frame adds only the cells that the memory, grown by the frames before it,
    does not show, and that its rows were not seen through; cells that it shows are reported as
    merged.

    Args:
        memory: One memory.
        latents: Latent frames.
        depth: z-depth of each cell, scene units; 0 is unknown.
        keep: False where a cell must not be remembered.
        camera: t cameras with intrinsics of the h x w latent grid.
        config: Conventions, retention and `write_where`.
        time: Stamp of each frame, or one for all.
        access: How to write and read; None takes the memory as a whole.

    Returns:
        The new memory and the report over all frames.

    Raises:
        ValueError: If the shapes do not belong together or do not fit the config.
    """
    access = access or Access(write, read)
    _check_frames(latents, depth, keep, camera, config)
    moved = jnp.zeros((), jnp.int32)
    if config.moved_margin and len(depth) > 1:
        through = moved_between(jnp.asarray(depth, jnp.float32), camera, config)
        keep, moved = keep & ~through, _count(keep & through)
    if config.write_where == "all":
        rows = unproject_rows(latents, depth, keep, camera, config, time)
        memory, report = access.write(memory, rows, config)
    else:
        times = jnp.broadcast_to(jnp.asarray(time, jnp.int32), depth.shape[:1])
        frames = jax.tree.map(lambda leaf: leaf[:, None], (latents, depth, keep, camera, times))
        one = functools.partial(_write_unseen, config=config, access=access)
        memory, reports = jax.lax.scan(one, memory, frames)
        report = jax.tree.map(lambda counts: jnp.sum(counts, dtype=jnp.int32), reports)
    return memory, report._replace(moved=report.moved + moved)


def _write_unseen(
    memory: LatentMemory, frame: Any, config: MemoryConfig, access: Access
) -> tuple[LatentMemory, WriteReport]:
    """Write what the memory does not show of one frame [1, h, w], but for what has moved."""
    latents, depth, keep, camera, time = frame
    rows = unproject_rows(latents, depth, keep, camera, config, time)
    open_holes = dataclasses.replace(config, close_holes=False)
    found = access.read(memory, camera, depth.shape[1:], open_holes)
    fresh, moved = unseen(found, depth, config).reshape(-1), jnp.zeros_like(rows.keep)
    if config.moved_margin:
        moved = moved_since(found, depth, camera, config).reshape(-1)
    held_back, through = _count(rows.keep & ~fresh), _count(rows.keep & fresh & moved)
    memory, report = access.write(memory, rows._replace(keep=rows.keep & fresh & ~moved), config)
    return memory, report._replace(merged=report.merged + held_back, moved=through)


def _with_axes(rows: Rows, config: MemoryConfig) -> Rows:
    """Return rows that say how their cells lay (nothing, if unknown) where the config keeps it."""
    if not config.axes:
        return rows._replace(axes=None)
    unknown = jnp.zeros((rows.keep.shape[0], 3), jnp.uint32)
    return rows if rows.axes is not None else rows._replace(axes=unknown)


def _storable(rows: Rows) -> Bool[jax.Array, " m"]:
    """Return the rows that may enter a memory at all."""
    usable = rows.keep & jnp.isfinite(rows.depth) & (rows.depth > 0)
    usable &= jnp.all(jnp.isfinite(rows.positions) & jnp.isfinite(rows.origin), axis=-1)
    return usable & jnp.all(jnp.isfinite(rows.tokens), axis=-1)


def _count(mask: Bool[jax.Array, "*m"]) -> Int32[jax.Array, ""]:
    return jnp.sum(mask, dtype=jnp.int32)


def _check_frames(
    latents: jax.Array, depth: jax.Array, keep: jax.Array, camera: Camera, config: MemoryConfig
) -> None:
    """Raise ValueError unless latent frames, depth, mask and cameras have the same t, h, w."""
    if latents.ndim != 4 or latents.shape[-1] != config.channels:
        raise ValueError(
            f"unproject_rows: latents have shape {list(latents.shape)}, expected [t, h, w, "
            f"{config.channels}] (config.channels); use jax.vmap for a batch."
        )
    expected = latents.shape[:3]
    given = {"depth": depth.shape, "keep": keep.shape}
    for name, shape in given.items():
        if shape != expected:
            raise ValueError(
                f"unproject_rows: {name} has shape {list(shape)}, expected {list(expected)} as the "
                "latents; resize it to the latent grid first (geometry.depth)."
            )
    if camera.cam_to_world.shape != (expected[0], 4, 4):
        raise ValueError(
            f"unproject_rows: camera.cam_to_world has shape {list(camera.cam_to_world.shape)}, "
            f"expected [{expected[0]}, 4, 4]: one camera per latent frame."
        )
