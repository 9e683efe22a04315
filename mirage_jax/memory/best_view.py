"""Among the rows on the nearest surface of a cell, the one seen from the most similar view.

Conventions: the difference of two views is an angle in radians, plus the log of the ratio of
depths, plus the weighted sub-cell offset, counted in steps of 1e-3; ties go to the older row.
Pages are visited as far as the shell behind the surface reaches. A row that was seen from this very
place may lie anywhere, so pages that may hold one are always visited; bounds of origins tell which.

Read next: `read.py`, its user.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int32

from mirage_jax.geometry.camera import Camera, camera_center
from mirage_jax.memory.config import MemoryConfig
from mirage_jax.memory.state import NO_ROW, LatentMemory, page_table
from mirage_jax.ops.rasterize_points import CellGrid, WorkList
from mirage_jax.ops.rasterize_points.project import camera_numbers, project_rows

# Views that differ by less than this (radians plus log scale) are equal: float noise must not
# decide between rows, so the older one is shown.
_VIEW_RESOLUTION = 1e-3
# Pages visited at a time.
_GROUP = 16
# Bounds of origins and depths are exact; the distances compared with them round.
_MARGIN = 1e-5


class Keys(NamedTuple):
    """The least key of each cell, most important part first; `NO_ROW` where there is none."""

    rank: Int32[jax.Array, "*cells"]
    order: Int32[jax.Array, "*cells"]
    row: Int32[jax.Array, "*cells"]


class _View(NamedTuple):
    """One camera and the depth of the nearest surface in its cells."""

    numbers: Float[jax.Array, " 17"]
    center: Float[jax.Array, " 3"]
    surface: Float[jax.Array, " m"]


def most_similar_rows(
    memory: LatentMemory,
    camera: Camera,
    grid: CellGrid,
    config: MemoryConfig,
    surface: Float[jax.Array, "t h w"],
    work: WorkList | None,
) -> Keys:
    """Return the rows whose views differ least, and by how much, on the t x h x w grid.

    Args:
        memory: One memory.
        camera: t cameras.
        grid: Cells and rounding.
        config: `shell`, `same_place`, `offset_weight`.
        surface: Depth of the nearest row of each cell, inf where none.
        work: Pages that the cameras may see; None looks at all at once.
    """
    shape = surface.shape
    # One cell more, for rows that fall nowhere.
    surface = jnp.pad(surface.reshape(shape[0], -1), [(0, 0), (0, 1)], constant_values=jnp.inf)
    views = _View(camera_numbers(camera), camera_center(camera), surface)

    def one_view(arguments: tuple[_View, WorkList | None]) -> Keys:
        view, entries = arguments
        nothing = jnp.full((grid.num_cells + 1,), NO_ROW, jnp.int32)
        keys = Keys(nothing, nothing, nothing)
        if entries is None:
            page = jnp.arange(memory.order.shape[0] * memory.order.shape[1], dtype=jnp.int32)
            keys = _visit(memory, page, jnp.ones(page.shape, bool), view, keys, grid, config)
        else:
            keys = _walk(memory, entries, view, keys, grid, config)
        return jax.tree.map(lambda key: key[: grid.num_cells].reshape(shape[1:]), keys)

    return jax.lax.map(one_view, (views, work))


def _walk(
    memory: LatentMemory,
    work: WorkList,
    view: _View,
    keys: Keys,
    grid: CellGrid,
    config: MemoryConfig,
) -> Keys:
    """Visit the listed pages that can hold a candidate, a group at a time."""
    group = min(_GROUP, work.page.shape[0])
    found = jnp.where(jnp.isfinite(view.surface), view.surface, 0.0)
    limit = (1 + config.shell) * (1 + _MARGIN) * jnp.max(found)
    wide = memory.views.reshape(-1, 2, 4)

    def step(state: tuple[jax.Array, Keys]) -> tuple[jax.Array, Keys]:
        cursor, keys = state
        # Slices are shifted back at the end of the list, so look where they really begin.
        start = jnp.minimum(cursor, work.page.shape[0] - group)
        page = jax.lax.dynamic_slice(work.page, (start,), (group,))
        near = jax.lax.dynamic_slice(work.near, (start,), (group,))
        place = start + jnp.arange(group)
        alive = (place >= cursor) & (place < work.count)
        alive &= (near <= limit) | _may_be_here(wide[page], view.center, config)
        keys = jax.lax.cond(
            alive.any(),
            lambda keys: _visit(memory, page, alive, view, keys, grid, config),
            lambda keys: keys,
            keys,
        )
        return start + group, keys

    start = (jnp.zeros((), jnp.int32), keys)
    return jax.lax.while_loop(lambda state: state[0] < work.count, step, start)[1]


def _may_be_here(
    wide: Float[jax.Array, "g 2 4"], center: Float[jax.Array, " 3"], config: MemoryConfig
) -> Bool[jax.Array, " g"]:
    """Return the pages that may hold a row seen from within `same_place` of the camera."""
    low, high = wide[:, 0], wide[:, 1]
    away = jnp.maximum(jnp.maximum(low[:, :3] - center, center - high[:, :3]), 0.0)
    slack = _MARGIN * (1 + jnp.max(jnp.abs(center)))
    return jnp.linalg.norm(away, axis=-1) <= config.same_place * high[:, 3] + slack


def _visit(
    memory: LatentMemory,
    page: Int32[jax.Array, " g"],
    real: Bool[jax.Array, " g"],
    view: _View,
    keys: Keys,
    grid: CellGrid,
    config: MemoryConfig,
) -> Keys:
    """Let the candidates in some pages compete with the best found so far."""
    table, size = page_table(memory), memory.order.shape[-1]
    points, order = table.positions[page], table.order[page]
    origin = memory.origin.reshape(-1, size, 3)[page]
    depth = memory.depth.reshape(-1, size)[page]
    row = page[:, None] * size + jnp.arange(size, dtype=jnp.int32)
    seen = project_rows(points[:, 0], points[:, 1], points[:, 2], view.numbers, grid)
    inside = seen.inside & (order != NO_ROW) & real[:, None]
    cell = jnp.where(inside, seen.line * grid.width + seen.column, grid.num_cells)
    cell = cell.astype(jnp.int32)
    moved = jnp.linalg.norm(origin - view.center, axis=-1)
    candidate = seen.depth <= (1 + config.shell) * view.surface[cell]
    candidate |= moved <= config.same_place * depth
    points = jnp.moveaxis(points, 1, -1)
    offset = jnp.stack([seen.u - seen.column, seen.v - seen.line], axis=-1) - grid.center
    difference = angle_between(points - origin, points - view.center)
    difference += jnp.abs(log_ratio(depth, seen.depth))
    difference += config.offset_weight * jnp.linalg.norm(offset, axis=-1)
    rank = jnp.round(difference / _VIEW_RESOLUTION).astype(jnp.int32)
    return _lower(keys, Keys(rank, order, row), cell, inside & candidate)


def _lower(
    best: Keys, new: Keys, cell: Int32[jax.Array, "*n"], takes_part: Bool[jax.Array, "*n"]
) -> Keys:
    """Return the lexicographic minimum of what each cell has and what falls into it."""
    lowest = []
    still = jnp.ones(best.rank.shape, bool)
    for old, key in zip(best, new, strict=True):
        # Once a more important part was beaten, what the cell had counts no more.
        old = jnp.where(still, old, NO_ROW)
        table = old.at[cell].min(jnp.where(takes_part, key, NO_ROW))
        still &= table == old
        takes_part &= key == table[cell]
        lowest.append(table)
    return Keys(*lowest)


def angle_between(
    first: Float[jax.Array, "*batch 3"], second: Float[jax.Array, "*batch 3"]
) -> Float[jax.Array, "*batch"]:
    """Return the angle in radians from the chord, which is accurate near 0 where arccos is not."""
    chord = jnp.linalg.norm(_unit(first) - _unit(second), axis=-1)
    return 2 * jnp.arcsin(jnp.minimum(chord / 2, 1.0))


def _unit(vector: Float[jax.Array, "*batch 3"]) -> Float[jax.Array, "*batch 3"]:
    """Return the vector at length 1; zero stays zero."""
    return vector / jnp.maximum(jnp.linalg.norm(vector, axis=-1, keepdims=True), 1e-20)


def log_ratio(
    seen: Float[jax.Array, "*batch"], now: Float[jax.Array, "*batch"]
) -> Float[jax.Array, "*batch"]:
    """Return log(seen / now), and 0 where either is not positive."""
    usable = (seen > 0) & (now > 0)
    return jnp.log(jnp.where(usable, seen, 1.0)) - jnp.log(jnp.where(usable, now, 1.0))
