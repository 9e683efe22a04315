"""Plain-JAX points rasterizer over all rows: the truth that every implementation equals.

No culling, no list: each camera looks at every row. Three scatter-min passes find the smallest
depth of each cell, the lowest order at that depth, and its row; a minimum does not depend on the
order of its operands, so duplicate cells keep the result deterministic on every device.

Read next: `walk.py`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Int32

from mirage_jax.geometry.camera import Camera
from mirage_jax.ops.rasterize_points.pages import EMPTY, CellGrid, Nearest, Pages
from mirage_jax.ops.rasterize_points.project import NEVER, camera_numbers, project_rows


def rasterize_points(pages: Pages, camera: Camera, grid: CellGrid) -> Nearest:
    """Return the nearest row of each cell of each camera; see `api.rasterize_points`."""
    x, y, z = jnp.moveaxis(pages.positions, 1, 0).reshape(3, -1)
    order = pages.order.reshape(-1)
    row = jnp.arange(order.shape[0], dtype=jnp.int32)

    def one_view(numbers: jax.Array) -> Nearest:
        seen = project_rows(x, y, z, numbers, grid)
        inside = seen.inside & (order != EMPTY)
        cell = jnp.where(inside, seen.line * grid.width + seen.column, grid.num_cells)
        cell = cell.astype(jnp.int32)
        # Positive IEEE floats order like their bits.
        bits = jnp.where(inside, jax.lax.bitcast_convert_type(seen.depth, jnp.int32), NEVER)
        first = lowest_keys((bits, order, row), cell, inside, grid.num_cells)
        return _lay_out(first[0], first[2], grid)

    return jax.lax.map(one_view, camera_numbers(camera))


def lowest_keys(
    keys: tuple[jax.Array, ...], cell: Int32[jax.Array, " n"], inside: jax.Array, num_cells: int
) -> list[jax.Array]:
    """Return the lexicographically lowest keys of the rows of each cell, `NEVER` where none.

    Args:
        keys: int32 keys of n rows, the most important first.
        cell: Cell of each row, `num_cells` for rows that fall nowhere.
        inside: Rows that take part.
        num_cells: Cells m.
    """
    lowest = []
    for key in keys:
        table = jnp.full((num_cells + 1,), NEVER, jnp.int32)
        table = table.at[cell].min(jnp.where(inside, key, NEVER))
        inside = inside & (key == table[cell])
        lowest.append(table[:num_cells])
    return lowest


def _lay_out(bits: jax.Array, row: jax.Array, grid: CellGrid) -> Nearest:
    """Turn the keys of the cells into depth and row on the grid."""
    found = row != NEVER
    depth = jnp.where(found, jax.lax.bitcast_convert_type(bits, jnp.float32), jnp.inf)
    shape = (grid.height, grid.width)
    return Nearest(depth.reshape(shape), jnp.where(found, row, -1).reshape(shape))
