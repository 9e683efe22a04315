"""What the rasterizer works on: pages of rows, the grid of cells, and lists of pages to visit.

A page is P rows that lie near each other, stored as structure of arrays; its bounds let whole pages
be skipped. A row is named page * P + slot. Read next: `work_list.py`, `api.py`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float32, Int32

# `order` of a slot that holds no row. No row may use it as its own.
EMPTY = jnp.iinfo(jnp.int32).max

_ROUNDINGS = ("floor", "nearest_even")


class Pages(NamedTuple):
    """n pages of P rows.

    Attributes:
        positions: World points, x, y and z each contiguous within a page; scene units.
        order: Age of each row: of rows at equal depth the one of lower order wins. `EMPTY` marks
            slots without a row. Rows of equal depth and order are told apart by their row number.
        bounds: Lowest and highest corner of the page's rows; (+inf, -inf) for a page without rows.
            Must enclose every row with finite position, or rows may be missed.
    """

    positions: Float32[jax.Array, "n 3 P"]
    order: Int32[jax.Array, "n P"]
    bounds: Float32[jax.Array, "n 2 3"]


@dataclasses.dataclass(frozen=True)
class CellGrid:
    """The cells that points fall into.

    Attributes:
        height: Rows h of the grid.
        width: Columns w of the grid.
        rounding: "floor" puts (u, v) into cell (floor u, floor v), whose centre is at + 0.5;
            "nearest_even" into the nearest integer, ties to even, which is the cell's centre.
    """

    height: int
    width: int
    rounding: Literal["floor", "nearest_even"] = "floor"

    def __post_init__(self) -> None:
        """Check the fields."""
        for name in ("height", "width"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"CellGrid: {name} is {value!r}, expected a Python int of 1 or more; the grid "
                    "is static and cannot be an array."
                )
        if self.rounding not in _ROUNDINGS:
            raise ValueError(f"CellGrid: rounding is {self.rounding!r}, expected {_ROUNDINGS}.")

    @property
    def num_cells(self) -> int:
        """Cells of the grid; cell (v, u) has number v * width + u."""
        return self.height * self.width

    @property
    def center(self) -> float:
        """Where in its cell a point at the cell's centre lies, from the cell's integer corner."""
        return 0.5 if self.rounding == "floor" else 0.0


class WorkList(NamedTuple):
    """For each of t views the pages that may be seen, nearest first.

    Attributes:
        page: Page numbers; entries from `count` on are not read.
        near: For each entry a depth that no row of it and of later entries lies in front of.
        count: Entries in use.
    """

    page: Int32[jax.Array, "t l"]
    near: Float32[jax.Array, "t l"]
    count: Int32[jax.Array, " t"]  # type: ignore[assignment]  # shadows tuple.count


class CellBounds(NamedTuple):
    """What takes part in each cell of a walk whose surface is known.

    Attributes:
        limit: Bits of the greatest depth, -1 for none.
        after: Keys (first key, order, row) that a row's must be greater than, the first key first;
            None for all rows.
    """

    limit: Int32[jax.Array, "t h w"]
    after: tuple[jax.Array, jax.Array, jax.Array] | None = None


class Nearest(NamedTuple):
    """The nearest row of each cell.

    Attributes:
        depth: z-depth of the row, scene units; inf where no row falls.
        row: page * P + slot; -1 where no row falls.
    """

    depth: Float32[jax.Array, "t h w"]
    row: Int32[jax.Array, "t h w"]


def page_bounds(
    positions: Float32[jax.Array, "n 3 P"], order: Int32[jax.Array, "n P"]
) -> Float32[jax.Array, "n 2 3"]:
    """Return the corners that enclose the rows of each page; rows that are not finite are left out.

    Args:
        positions: World points of the pages.
        order: `EMPTY` where there is no row.

    Returns:
        Bounds as in `Pages`.
    """
    used = (order != EMPTY) & jnp.all(jnp.isfinite(positions), axis=1)
    low = jnp.min(jnp.where(used[:, None], positions, jnp.inf), axis=-1)
    high = jnp.max(jnp.where(used[:, None], positions, -jnp.inf), axis=-1)
    return jnp.stack([low, high], axis=1)


def comes_after(keys: Sequence[Any], bound: Sequence[Any]) -> Any:
    """Return True where (first key, order, row) is greater than the bound's."""
    (first, order, row), (last_first, last_order, last_row) = keys, bound
    later = (order > last_order) | ((order == last_order) & (row > last_row))
    return (first > last_first) | ((first == last_first) & later)
