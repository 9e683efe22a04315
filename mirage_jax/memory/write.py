"""Write latent frames into a memory: unproject cells to rows, then keep them by the retention rule.

Conventions: depth is z-depth on the latent grid and cameras carry that grid's intrinsics. Masks are
True where content is kept (static things). A row is storable when it is kept, its depth is finite
and positive, and its position and token are finite; all others are ignored without being counted.
Gradients flow through tokens. Rows keep their order: frame by frame, row-major within a frame.

Read next: `read.py`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Int32

from mirage_jax.geometry.camera import Camera, camera_center
from mirage_jax.geometry.depth import edge_validity
from mirage_jax.geometry.projection import unproject
from mirage_jax.memory.read import read
from mirage_jax.memory.state import LatentMemory, MemoryConfig, check_memory, used_rows


class Rows(NamedTuple):
    """m candidate rows; fields as in `LatentMemory`, and `keep` says which of them exist."""

    positions: Float[jax.Array, "m 3"]
    tokens: Float[jax.Array, "m c"]
    origin: Float[jax.Array, "m 3"]
    depth: Float[jax.Array, " m"]
    time: Int32[jax.Array, " m"]
    keep: Bool[jax.Array, " m"]


class WriteReport(NamedTuple):
    """What became of the storable rows of a write.

    Rows stored before + storable rows = rows stored after + merged + dropped (merged also counts
    the cells that `unseen` held back, which then belong to the left side as well).

    Attributes:
        written: New rows now in the memory.
        merged: Rows, old or new, that gave way to a newer one of their voxel, or were seen already.
        dropped: New rows refused because the memory was full.
    """

    written: Int32[jax.Array, "*batch"]
    merged: Int32[jax.Array, "*batch"]
    dropped: Int32[jax.Array, "*batch"]


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
    rows = Rows(
        positions=points.reshape(-1, 3),
        tokens=latents.reshape(-1, latents.shape[-1]),
        origin=origin.reshape(-1, 3),
        depth=depth.reshape(-1),
        time=jnp.broadcast_to(times[:, None, None], grid).reshape(-1),
        keep=jnp.asarray(keep, bool).reshape(-1),
    )
    return rows._replace(keep=_storable(rows))


def write(
    memory: LatentMemory, rows: Rows, config: MemoryConfig
) -> tuple[LatentMemory, WriteReport]:
    """Add rows to a memory by its retention rule; rows that do not fit are dropped and reported.

    "append": rows follow each other until the capacity is reached; later ones are dropped.
    "voxel": of all rows in one voxel the last written stays and moves to the end of the order. A
    voxel that is stored already always keeps a row; new voxels are taken in the order of their
    newest rows while there is room. Assumes that all earlier writes used the same voxel size.

    Args:
        memory: One memory.
        rows: Candidates; those that are not storable are ignored.
        config: Retention; must be the memory's own.

    Returns:
        The new memory, and the number of rows written, merged and dropped.

    Raises:
        ValueError: If the memory or the rows do not fit the config.
    """
    check_memory(memory, config, "write")
    if rows.tokens.ndim != 2 or rows.tokens.shape[1] != config.channels:
        raise ValueError(
            f"write: rows.tokens has shape {list(rows.tokens.shape)}, expected [m, "
            f"{config.channels}] (config.channels)."
        )
    memory, rows = jax.tree.map(jnp.asarray, (memory, rows))
    rows = rows._replace(tokens=rows.tokens.astype(memory.tokens.dtype), keep=_storable(rows))
    return _append(memory, rows) if config.retention == "append" else _merge(memory, rows, config)


def unseen(
    memory: LatentMemory, depth: Float[jax.Array, "t h w"], camera: Camera, config: MemoryConfig
) -> Bool[jax.Array, "t h w"]:
    """Return True for the cells that the memory does not show yet.

    A cell is seen when the row read there lies within `config.shell` of the cell's depth, relative.

    Args:
        memory: One memory.
        depth: z-depth of the cells that might be written, scene units.
        camera: t cameras with intrinsics of the h x w latent grid.
        config: Conventions of the read.
    """
    found = read(memory, camera, (depth.shape[-2], depth.shape[-1]), config)
    near = jnp.abs(found.depth - depth) <= config.shell * depth
    return ~(found.visibility & near)


def write_frames(
    memory: LatentMemory,
    latents: Float[jax.Array, "t h w c"],
    depth: Float[jax.Array, "t h w"],
    keep: Bool[jax.Array, "t h w"],
    camera: Camera,
    config: MemoryConfig,
    time: Int[jax.Array, "*t"] | int,
) -> tuple[LatentMemory, WriteReport]:
    """Unproject and write latent frames one after the other, obeying `config.write_where`.

    With "unseen" each frame adds only the cells that the memory, grown by the frames before it,
    does not show; cells held back are reported as merged.

    Args:
        memory: One memory.
        latents: Latent frames.
        depth: z-depth of each cell, scene units; 0 is unknown.
        keep: False where a cell must not be remembered.
        camera: t cameras with intrinsics of the h x w latent grid.
        config: Conventions, retention and `write_where`.
        time: Stamp of each frame, or one for all.

    Returns:
        The new memory and the report over all frames.

    Raises:
        ValueError: If the shapes do not belong together or do not fit the config.
    """
    if config.write_where == "all":
        rows = unproject_rows(latents, depth, keep, camera, config, time)
        return write(memory, rows, config)
    _check_frames(latents, depth, keep, camera, config)
    times = jnp.broadcast_to(jnp.asarray(time, jnp.int32), depth.shape[:1])

    def one_frame(memory: LatentMemory, frame: Any) -> tuple[LatentMemory, WriteReport]:
        latents, depth, keep, camera, time = frame
        rows = unproject_rows(latents, depth, keep, camera, config, time)
        fresh = unseen(memory, depth, camera, config).reshape(-1)
        held_back = _count(rows.keep & ~fresh)
        memory, report = write(memory, rows._replace(keep=rows.keep & fresh), config)
        return memory, report._replace(merged=report.merged + held_back)

    frames = jax.tree.map(lambda leaf: leaf[:, None], (latents, depth, keep, camera, times))
    memory, reports = jax.lax.scan(one_frame, memory, frames)
    return memory, jax.tree.map(lambda counts: jnp.sum(counts, dtype=jnp.int32), reports)


def _storable(rows: Rows) -> Bool[jax.Array, " m"]:
    """Return the rows that may enter a memory at all."""
    usable = rows.keep & jnp.isfinite(rows.depth) & (rows.depth > 0)
    usable &= jnp.all(jnp.isfinite(rows.positions), axis=-1)
    return usable & jnp.all(jnp.isfinite(rows.tokens), axis=-1)


def _count(mask: Bool[jax.Array, " m"]) -> Int32[jax.Array, ""]:
    return jnp.sum(mask, dtype=jnp.int32)


def _append(memory: LatentMemory, rows: Rows) -> tuple[LatentMemory, WriteReport]:
    """Put the kept rows behind those in use, as far as there is room."""
    capacity, m = memory.depth.shape[0], rows.keep.shape[0]
    place = memory.count + jnp.cumsum(rows.keep, dtype=jnp.int32) - 1
    fits = rows.keep & (place < capacity)
    # Rows that stay out get distinct places past the end, so that no place occurs twice.
    place = jnp.where(fits, place, capacity + jnp.arange(m, dtype=jnp.int32))

    def put(table: jax.Array, new: jax.Array) -> jax.Array:
        return table.at[place].set(new, mode="drop", unique_indices=True)

    written = _count(fits)
    dropped = _count(rows.keep) - written
    tables = [put(table, new) for table, new in zip(memory[:5], rows[:5], strict=True)]
    new = LatentMemory._make([*tables, memory.count + written, memory.dropped + dropped])
    return new, WriteReport(written, jnp.zeros((), jnp.int32), dropped)


def _merge(
    memory: LatentMemory, rows: Rows, config: MemoryConfig
) -> tuple[LatentMemory, WriteReport]:
    """Keep the newest row of each voxel, old voxels first, then new ones while there is room."""
    capacity = memory.depth.shape[0]
    joined = [jnp.concatenate(pair) for pair in zip(memory[:5], rows[:5], strict=True)]
    valid = jnp.concatenate([used_rows(memory), rows.keep])
    newest, known = _newest_per_voxel(joined[0], valid, capacity, config.voxel_size)
    room = capacity - _count(newest & known)
    newcomer = newest & ~known
    admitted = newest & (known | (jnp.cumsum(newcomer, dtype=jnp.int32) <= room))
    order = jnp.arange(valid.shape[0], dtype=jnp.int32)
    place = jnp.where(admitted, jnp.cumsum(admitted, dtype=jnp.int32) - 1, capacity + order)
    source = jnp.full((capacity,), -1, jnp.int32)
    source = source.at[place].set(order, mode="drop", unique_indices=True)

    def take(table: jax.Array) -> jax.Array:
        used = (source >= 0).reshape((-1,) + (1,) * (table.ndim - 1))
        return jnp.where(used, table[jnp.maximum(source, 0)], jnp.zeros((), table.dtype))

    dropped = _count(newest & ~admitted)
    tables = [take(table) for table in joined]
    new = LatentMemory._make([*tables, _count(admitted), memory.dropped + dropped])
    merged = _count(valid & ~newest)
    return new, WriteReport(_count(admitted[capacity:]), merged, dropped)


def _newest_per_voxel(
    positions: Float[jax.Array, "k 3"], valid: Bool[jax.Array, " k"], stored: int, size: float
) -> tuple[Bool[jax.Array, " k"], Bool[jax.Array, " k"]]:
    """Return which rows are the last of their voxel, and for those whether it was stored before.

    Args:
        positions: World points of the stored rows followed by the new ones, in write order.
        valid: Rows that exist.
        stored: How many of the k rows are those of the memory.
        size: Side of a voxel, scene units.
    """
    voxel = jnp.floor(jnp.where(valid[:, None], positions, 0.0) / size)
    # Beyond 2**30 voxels from the origin float32 cannot tell neighbours apart anyway.
    voxel = jnp.clip(voxel, -(2.0**30), 2.0**30).astype(jnp.int32)
    order = jnp.arange(valid.shape[0], dtype=jnp.int32)
    absent = (~valid).astype(jnp.int32)
    # A stable sort on the voxel keeps write order inside it: its last row is the newest.
    *keys, order = jax.lax.sort((absent, *voxel.T, order), num_keys=4, is_stable=True)
    differs = jnp.stack([key[1:] != key[:-1] for key in keys]).any(axis=0)
    edge = jnp.ones((1,), bool)
    first = jnp.concatenate([edge, differs])
    last = jnp.concatenate([differs, edge])
    start = jax.lax.cummax(jnp.where(first, jnp.arange(order.shape[0]), 0))
    known = order[start] < stored
    unsort = jnp.zeros_like(valid)
    newest = unsort.at[order].set(last & (keys[0] == 0), unique_indices=True)
    return newest, unsort.at[order].set(known, unique_indices=True)


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
