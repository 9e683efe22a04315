"""Points rasterizer in plain JAX that reads only what is seen: the fast path on CPUs.

The walk of `walk.py` with the nearest rows so far as its state: what matters in a cell is anything
not beyond its nearest row. The result is exactly that of `reference.py`.

Read next: `pallas_tpu.py`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Int32

from mirage_jax.geometry.camera import Camera
from mirage_jax.ops.rasterize_points.pages import CellGrid, Nearest, Pages, WorkList
from mirage_jax.ops.rasterize_points.project import NEVER, camera_numbers
from mirage_jax.ops.rasterize_points.walk import Group, walk_pages


class BestKeys(NamedTuple):
    """Lowest keys so far of the m cells, and one place more for rows that fall nowhere."""

    first: Int32[jax.Array, " m"]
    order: Int32[jax.Array, " m"]
    row: Int32[jax.Array, " m"]


def rasterize_points(pages: Pages, camera: Camera, grid: CellGrid, work: WorkList) -> Nearest:
    """Return the nearest row of each cell of each camera; see `api.rasterize_points`."""
    shape = (grid.height, grid.width)
    if pages.order.size == 0 or work.page.shape[1] == 0:
        none = (work.page.shape[0], *shape)
        return Nearest(jnp.full(none, jnp.inf), jnp.full(none, -1, jnp.int32))

    def one_view(view: tuple[jax.Array, WorkList]) -> Nearest:
        def visit(best: BestKeys, page: jax.Array, group: Group) -> BestKeys:
            bits = jax.lax.bitcast_convert_type(group.seen.depth, jnp.int32)
            return compete(best, bits, group, group.inside)

        def limit(best: BestKeys) -> jax.Array:
            return best.first[: grid.num_cells]

        numbers, entries = view
        best = walk_pages(pages, entries, numbers, grid, limit, visit, no_keys(grid))
        bits, row = best.first[: grid.num_cells], best.row[: grid.num_cells]
        depth = jnp.where(row != NEVER, jax.lax.bitcast_convert_type(bits, jnp.float32), jnp.inf)
        return Nearest(depth.reshape(shape), jnp.where(row != NEVER, row, -1).reshape(shape))

    return jax.lax.map(one_view, (camera_numbers(camera), work))


def no_keys(grid: CellGrid) -> BestKeys:
    """Return the keys of a grid that nothing has fallen on."""
    nothing = jnp.full((grid.num_cells + 1,), NEVER, jnp.int32)
    return BestKeys(nothing, nothing, nothing)


def compete(best: BestKeys, first: jax.Array, group: Group, takes_part: jax.Array) -> BestKeys:
    """Let the rows of a group compete by (first, order, row), lowest wins.

    Args:
        best: What they have to beat.
        first: First key of each row, int32.
        group: The rows.
        takes_part: Rows that compete; the others fall nowhere.
    """
    cell = jnp.where(takes_part, group.cell, best.first.shape[0] - 1)

    def lower(old: jax.Array, key: jax.Array, among: jax.Array) -> tuple[jax.Array, jax.Array]:
        new = old.at[cell].min(jnp.where(among, key, NEVER), mode="promise_in_bounds")
        return new, among & (key == new.at[cell].get(mode="promise_in_bounds"))

    new_first, among = lower(best.first, first, takes_part)
    # A key that was beaten takes the keys behind it along.
    order = jnp.where(new_first < best.first, NEVER, best.order)
    new_order, among = lower(order, group.order, among)
    row = jnp.where(new_order < order, NEVER, best.row)
    new_row, _ = lower(row, group.row, among)
    return BestKeys(new_first, new_order, new_row)
