"""Read a memory from cameras: for each latent cell, the token of the row that is seen there.

Conventions: cameras carry the intrinsics of the latent grid. Cells without a row are zero in every
field, with `visibility` False and `index` -1. Nothing is blended. Gradients reach the tokens of the
winning rows only: the choice of rows and all geometry are constants to differentiation. With
`candidates` a read returns the best rows of each cell instead of the winner alone.

Read next: `fill.py` (what to put into the holes), `mirage_jax/ops/rasterize_points/api.py`.
"""

import dataclasses
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
from mirage_jax.ops.choose_rows import (
    Chosen,
    Surface,
    ViewRule,
    angle_between,
    list_candidates,
    log_ratio,
)
from mirage_jax.ops.choose_rows import choose_rows as most_similar_rows
from mirage_jax.ops.gather_rows import gather_rows
from mirage_jax.ops.platform import current_platform
from mirage_jax.ops.rasterize_points import CellGrid, Nearest, rasterize_points
from mirage_jax.ops.rasterize_points.project import NEVER, camera_numbers, project_rows

# Most rows of a cell that a read returns.
MOST_CANDIDATES = 8


class MemoryRead(NamedTuple):
    """What a memory shows to t cameras on an h x w grid.

    Where candidates were asked for, an axis of them follows t in every field.

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
    memory: LatentMemory,
    camera: Camera,
    grid_hw: tuple[int, int],
    config: MemoryConfig,
    candidates: int | None = None,
) -> MemoryRead:
    """Return what each camera sees of the memory (paper, memory read).

    Rows are projected to cells; with `select="nearest"` the nearest row wins its cell and equal
    depths go to the older row. With "best_view" the rows on the nearest's surface (within
    `config.shell`) and those seen from this very place compete, and the one whose view differs
    least wins: angle + |log scale| + weighted sub-cell offset, in steps of 1e-3, ties to the older.

    Candidates are the winner and those next to it by the same rule, all of one surface: with
    "nearest" rows at most `config.shell` behind the nearest compete, with "best_view" the same as
    without candidates. Holes are then left open. Each costs a pass over what is seen.

    Args:
        memory: One memory.
        camera: t cameras with intrinsics of the h x w latent grid.
        grid_hw: (h, w).
        config: Conventions and selection; must be the memory's own.
        candidates: How many of the best rows of each cell to return, 1 to `MOST_CANDIDATES`; None
            returns the winner, without an axis of candidates.

    Returns:
        The read; see `MemoryRead` for units and for the values of empty cells.

    Raises:
        ValueError: If the memory does not fit the config, the camera is not a batch [t], or the
            number of candidates is out of range.
    """
    check_memory(memory, config, "read")
    check_cameras(camera)
    check_candidates(candidates)
    memory = jax.tree.map(jnp.asarray, memory)
    frozen, camera = constants(memory, camera)
    grid = CellGrid(*grid_hw, config.rounding)
    row, camera = flat_candidates(choose_rows(frozen, camera, grid, config, candidates), camera)
    return finish(gather(memory, frozen, row, camera, grid), config, candidates)


def finish(found: MemoryRead, config: MemoryConfig, candidates: int | None) -> MemoryRead:
    """Give candidates their axis, or close the holes of a read where the config says so."""
    if candidates is not None:
        return jax.tree.map(lambda x: x.reshape(-1, candidates, *x.shape[1:]), found)
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


def check_candidates(candidates: int | None) -> None:
    """Raise ValueError unless that many rows of a cell can be returned."""
    if candidates is not None and not 1 <= candidates <= MOST_CANDIDATES:
        raise ValueError(
            f"read: candidates is {candidates}, expected 1 to {MOST_CANDIDATES}, or None for the "
            "winner alone."
        )


def flat_candidates(row: jax.Array, camera: Camera) -> tuple[jax.Array, Camera]:
    """Return rows [t, k, h, w] as those of t * k cameras, each camera k times; [t, h, w] as is."""
    if row.ndim == 3:
        return row, camera
    k = row.shape[1]
    camera = jax.tree.map(lambda leaf: jnp.repeat(leaf, k, axis=0), camera)
    return row.reshape(-1, *row.shape[2:]), camera


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
    candidates: int | None = None,
    least: Callable[[jax.Array], jax.Array] | None = None,
) -> Int32[jax.Array, "t *k h w"]:
    """Return the winning row of each cell, -1 where none, or its best rows with an axis of them.

    Args:
        memory: One memory, or its share on one device.
        camera: t cameras.
        grid: Cells and rounding.
        config: Selection.
        candidates: How many rows of each cell; None for the winner alone.
        least: Gives the least of what all devices pass, where each holds a share of the memory;
            cells that another device wins are then -1. None where there is one device.
    """
    pages = page_table(memory)
    few = pages.order.shape[0] <= FEW_PAGES
    # Looking at every row of a few pages is cheaper than walking past some of them.
    name = "reference" if few and current_platform() == "cpu" else None
    nearest = rasterize_points(pages, camera, grid, implementation=name)
    alone = candidates in (None, 1)
    if alone and config.select == "nearest":
        won = _agree(_as_chosen(memory, nearest), least)[1]
        return won if candidates is None else won[:, None]
    rule = ViewRule(config.shell, config.same_place, config.offset_weight)
    if config.select == "nearest":
        rule = dataclasses.replace(rule, by="depth")
    surface = nearest.depth if least is None else least(nearest.depth)
    views = view_table(memory)
    work = list_candidates(pages.bounds, views, camera, grid, rule)

    def next_rows(after: Chosen | None) -> Chosen:
        shell = Surface(surface, after)
        return most_similar_rows(pages, views, camera, grid, shell, rule, work, name)

    if alone:
        won = _agree(next_rows(None), least)[1]
        return won if candidates is None else won[:, None]

    # Every pass is the same compiled code, the first included: a key that rounded otherwise in
    # another program would let a row come after itself.
    def step(best: Chosen, _: None) -> tuple[Chosen, jax.Array]:
        return _agree(next_rows(best), least)

    start = Chosen(*[jnp.full(surface.shape, -1, jnp.int32)] * 3)
    _, rows = jax.lax.scan(step, start, length=candidates)
    return jnp.moveaxis(rows, 0, 1)


def _as_chosen(memory: LatentMemory, nearest: Nearest) -> Chosen:
    """Return nearest rows with what they won by: the bits of their depth, then their order."""
    found = nearest.row >= 0
    bits = jax.lax.bitcast_convert_type(nearest.depth, jnp.int32)
    order = take(memory.order, jnp.maximum(nearest.row, 0))
    return Chosen(jnp.where(found, bits, NEVER), jnp.where(found, order, NO_ROW), nearest.row)


def _agree(
    own: Chosen, least: Callable[[jax.Array], jax.Array] | None
) -> tuple[Chosen, Int32[jax.Array, "t h w"]]:
    """Return what wins each cell over all devices, and the rows of the cells that this one wins."""
    if least is None:
        return own, own.row
    rank = least(own.rank)
    mine = (own.row >= 0) & (own.rank == rank)
    order = jnp.where(mine, own.order, NO_ROW)
    winner = least(order)
    won = jnp.where(mine & (order == winner), own.row, -1)
    # Orders are unique, so that no row comes between the winner and this bound.
    return Chosen(rank, winner, jnp.full_like(won, NEVER)), won


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
