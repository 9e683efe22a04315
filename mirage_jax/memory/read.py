"""Read a memory from cameras: for each latent cell, the token of the row that is seen there.

Conventions: cameras carry the intrinsics of the latent grid. Cells without a row are zero in every
field, with `visibility` False and `index` -1. Nothing is blended. Gradients reach the tokens of the
winning rows only: the choice of rows and all geometry are constants to differentiation.

Read next: `fill.py` (what to put into the holes), `mirage_jax/ops/rasterize_points/api.py`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int32

from mirage_jax.geometry.camera import Camera, camera_center
from mirage_jax.memory.axes import facing, seen_axes, unpack_axes
from mirage_jax.memory.fill import close_holes
from mirage_jax.memory.state import (
    FEW_PAGES,
    LINE,
    NO_ROW,
    LatentMemory,
    MemoryConfig,
    check_memory,
    page_table,
    token_table,
    view_table,
)
from mirage_jax.memory.take import take, take_points
from mirage_jax.ops.choose_rows import ViewRule, angle_between, log_ratio
from mirage_jax.ops.choose_rows import choose_rows as most_similar_rows
from mirage_jax.ops.gather_rows import gather_rows
from mirage_jax.ops.platform import current_platform
from mirage_jax.ops.rasterize_points import CellGrid, rasterize_points
from mirage_jax.ops.rasterize_points.project import camera_numbers, project_rows


class MemoryRead(NamedTuple):
    """What a memory shows to t cameras on an h x w grid.

    Attributes:
        tokens: Token of the winning row, in the memory's token type.
        visibility: True where a row was found, or a hole was closed (`index` tells them apart).
        depth: z-depth of the winning row from the reading camera, scene units.
        index: Row of the memory, counted over its partitions; -1 where none.
        offset: (u, v) from the cell's centre to the row's projection, in cells, within +-0.5.
        scale: log of the depth the row was seen at over its depth now: positive when nearer now.
        angle: Radians between the directions the row was seen from then and now.
        age: Newest stamp written to the memory minus the row's.
        axes: Where one cell to the right and one down of the row's own picture lead in this one:
            columns, lines (in cells) and log depth. Rows that do not know face the camera.
    """

    tokens: Float[jax.Array, "t h w c"]
    visibility: Bool[jax.Array, "t h w"]
    depth: Float[jax.Array, "t h w"]
    index: Int32[jax.Array, "t h w"]  # type: ignore[assignment]  # shadows tuple.index
    offset: Float[jax.Array, "t h w 2"]
    scale: Float[jax.Array, "t h w"]
    angle: Float[jax.Array, "t h w"]
    age: Int32[jax.Array, "t h w"]
    axes: Float[jax.Array, "t h w 3 2"]


def read(
    memory: LatentMemory, camera: Camera, grid_hw: tuple[int, int], config: MemoryConfig
) -> MemoryRead:
    """Return what each camera sees of the memory (paper, memory read).

    Rows are projected to cells; with `select="nearest"` the nearest row wins its cell and equal
    depths go to the older row. With "best_view" the rows on the nearest's surface (within
    `config.shell`) and those seen from this very place compete, and the one whose view differs
    least wins: angle + |log scale| + weighted sub-cell offset, in steps of 1e-3, ties to the older.

    Args:
        memory: One memory.
        camera: t cameras with intrinsics of the h x w latent grid.
        grid_hw: (h, w).
        config: Conventions and selection; must be the memory's own.

    Returns:
        The read; see `MemoryRead` for units and for the values of empty cells.

    Raises:
        ValueError: If the memory does not fit the config or the camera is not a batch [t].
    """
    check_memory(memory, config, "read")
    check_cameras(camera)
    memory = jax.tree.map(jnp.asarray, memory)
    frozen, camera = constants(memory, camera)
    grid = CellGrid(*grid_hw, config.rounding)
    row = choose_rows(frozen, camera, grid, config)
    return finish(gather(memory, frozen, row, camera, grid), config)


def finish(found: MemoryRead, config: MemoryConfig) -> MemoryRead:
    """Close the holes of a read where the config says so."""
    if not config.close_holes:
        return found
    tokens, depth, closed = close_holes(found.tokens, found.depth, found.visibility, config.shell)
    axes = jnp.where(closed[..., None, None], jnp.eye(3, 2), found.axes)
    seen = found.visibility | closed
    return found._replace(tokens=tokens, depth=depth, visibility=seen, axes=axes)


def check_cameras(camera: Camera) -> None:
    """Raise ValueError unless the cameras are a batch [t]."""
    if camera.cam_to_world.ndim != 3:
        raise ValueError(
            f"read: camera.cam_to_world has shape {list(camera.cam_to_world.shape)}, expected "
            "[t, 4, 4]; add a leading axis for a single camera."
        )


def constants(memory: LatentMemory, camera: Camera) -> tuple[LatentMemory, Camera]:
    """Return what a read may not differentiate: all but the tokens, which are left out."""
    frozen = jax.lax.stop_gradient(memory._replace(tokens=memory.depth))
    camera = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), camera)
    return frozen, jax.lax.stop_gradient(camera)


def choose_rows(
    memory: LatentMemory,
    camera: Camera,
    grid: CellGrid,
    config: MemoryConfig,
    least: Callable[[jax.Array], jax.Array] | None = None,
) -> Int32[jax.Array, "t h w"]:
    """Return the winning row of each cell, -1 where none.

    Args:
        memory: One memory, or its share on one device.
        camera: t cameras.
        grid: Cells and rounding.
        config: Selection.
        least: Gives the least of what all devices pass, where each holds a share of the memory;
            cells that another device wins are then -1. None where there is one device.
    """
    pages = page_table(memory)
    few = pages.order.shape[0] <= FEW_PAGES
    # Looking at every row of a few pages is cheaper than walking past some of them.
    name = "reference" if few and current_platform() == "cpu" else None
    nearest = rasterize_points(pages, camera, grid, implementation=name)
    if config.select == "nearest":
        order = take(memory.order, jnp.maximum(nearest.row, 0))
        return _keep_won(nearest.depth, order, nearest.row, least)
    surface = nearest.depth if least is None else least(nearest.depth)
    rule = ViewRule(config.shell, config.same_place, config.offset_weight)
    views = view_table(memory)
    chosen = most_similar_rows(pages, views, camera, grid, surface, rule, implementation=name)
    return _keep_won(*chosen, least)


def _keep_won(
    first: jax.Array,
    order: jax.Array,
    row: jax.Array,
    least: Callable[[jax.Array], jax.Array] | None,
) -> Int32[jax.Array, "t h w"]:
    """Return the rows of the cells that this device wins: by the first key, then by order."""
    if least is None:
        return row
    best = (row >= 0) & (first == least(first))
    order = jnp.where(best, order, NO_ROW)
    return jnp.where(best & (order == least(order)), row, -1)


def gather(
    memory: LatentMemory,
    frozen: LatentMemory,
    index: Int32[jax.Array, "t h w"],
    camera: Camera,
    grid: CellGrid,
) -> MemoryRead:
    """Collect the fields of the winning rows.

    Args:
        memory: Where tokens come from.
        frozen: Where everything else comes from.
        index: Rows, -1 where none.
        camera: t cameras.
        grid: Cells and rounding.
    """
    visible = index >= 0
    row = jnp.maximum(index, 0)

    def show(values: jax.Array) -> jax.Array:
        mask = visible.reshape(visible.shape + (1,) * (values.ndim - 3))
        return jnp.where(mask, values, jnp.zeros((), values.dtype))

    position = x, y, z = take_points(frozen.positions, row)
    project = jax.vmap(lambda x, y, z, numbers: project_rows(x, y, z, numbers, grid))
    seen = project(x, y, z, camera_numbers(camera))
    offset = jnp.stack([seen.u - seen.column, seen.v - seen.line], axis=-1) - grid.center
    center = jnp.moveaxis(camera_center(camera), -1, 0)[..., None, None]
    scale = log_ratio(take(frozen.depth, row), seen.depth)
    axes = facing(scale)
    if frozen.axes.size:
        words = jnp.moveaxis(take_points(frozen.axes, row), 0, -1)
        axes = seen_axes(unpack_axes(words), jnp.stack(position), scale, camera)
    return MemoryRead(
        tokens=gather_rows(token_table(memory), index, memory.tokens.shape[-1] // LINE),
        visibility=visible,
        depth=show(seen.depth),
        index=index,
        offset=show(offset),
        scale=show(scale),
        angle=show(angle_between(position - take_points(frozen.origin, row), position - center)),
        age=show(frozen.latest - take(frozen.time, row)),
        axes=show(axes),
    )
