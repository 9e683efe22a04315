"""Put rows into their slots a page at a time: what accelerators do instead of scattering rows.

The rows are sorted by slot; then each page that gets any is read, changed and written back as one
block. A row finds its slot by comparing numbers, all against all within the page, which vector
units do in a few cycles, where a scatter would take the rows one after the other.

Read next: `put.py`, whose result this equals.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int32

from mirage_jax.memory.merge import Sorted
from mirage_jax.memory.state import LatentMemory

_TABLES = ("positions", "order", "origin", "depth", "time", "weight", "bounds", "views", "newest")


class _New(NamedTuple):
    """New rows by slot, padded to a page at least; `place` counts slots over all pages."""

    place: Int32[jax.Array, " m"]
    positions: Float[jax.Array, "m 3"]
    origin: Float[jax.Array, "m 3"]
    depth: Float[jax.Array, " m"]
    weight: Float[jax.Array, " m"]
    time: Int32[jax.Array, " m"]
    order: Int32[jax.Array, " m"]


def put_by_page(
    memory: LatentMemory,
    arranged: Sorted,
    place: Int32[jax.Array, " m"],
    order: Int32[jax.Array, " m"],
    stored: Bool[jax.Array, " m"],
) -> LatentMemory:
    """Return the memory with all of the rows but their tokens.

    Args:
        memory: One memory.
        arranged: New rows.
        place: Slot of each over all partitions and pages; past the end for rows that stay out.
        order: Insertion number of each.
        stored: Rows to put.
    """
    rows, size, m = arranged.rows, memory.order.shape[-1], place.shape[0]
    sorted_place, source = jax.lax.sort((place, jnp.arange(m, dtype=jnp.int32)), num_keys=1)
    fields = (rows.positions, rows.origin, rows.depth, arranged.weight, rows.time, order)
    new = _New(sorted_place, *(field[source] for field in fields))
    padding = max(size - m, 0)
    new = jax.tree.map(lambda x: jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1)), new)
    count = jnp.sum(stored, dtype=jnp.int32)
    tables = {name: getattr(memory, name) for name in _TABLES if getattr(memory, name).size}
    shapes = {name: table.shape for name, table in tables.items()}
    pages = memory.order.shape[0] * memory.order.shape[1]
    paged = {name: table.reshape(pages, -1) for name, table in tables.items()}

    def step(state: tuple[jax.Array, dict]) -> tuple[jax.Array, dict]:
        cursor, paged = state
        # Slices are shifted back at the end, so look where they really begin.
        start = jnp.minimum(cursor, new.place.shape[0] - size)
        part = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size), new)
        page = new.place[cursor] // size
        number = start + jnp.arange(size)
        mine = (part.place // size == page) & (number >= cursor) & (number < count)
        changed = _change_page(
            {name: table[page] for name, table in paged.items()}, part, mine, size
        )
        paged = {
            name: jax.lax.dynamic_update_slice_in_dim(table, changed[name][None], page, 0)
            for name, table in paged.items()
        }
        return cursor + jnp.sum(mine, dtype=jnp.int32), paged

    start = (jnp.zeros((), jnp.int32), paged)
    _, paged = jax.lax.while_loop(lambda state: state[0] < count, step, start)
    return memory._replace(**{name: paged[name].reshape(shapes[name]) for name in paged})


def _change_page(
    page: dict[str, jax.Array], part: _New, mine: Bool[jax.Array, " P"], size: int
) -> dict[str, jax.Array]:
    """Return one page's tables, each flat, with the rows that are its own."""
    into = (part.place % size == jnp.arange(size)[:, None]) & mine
    taken = into.any(axis=1)

    def pick(values: jax.Array) -> jax.Array:
        # One term of each sum is not zero, so it is exact.
        spread = into.reshape(size, size, *(1,) * (values.ndim - 1))
        return jnp.sum(jnp.where(spread, values, 0), axis=1, dtype=values.dtype)

    def put(old: jax.Array, values: jax.Array) -> jax.Array:
        mask = taken.reshape(size, *(1,) * (values.ndim - 1))
        return jnp.where(mask, pick(values), old.reshape(values.shape)).reshape(-1)

    def widen(old: jax.Array, values: jax.Array) -> jax.Array:
        low, high = old.reshape(2, -1)
        least = jnp.min(jnp.where(mine[:, None], values, jnp.inf), axis=0)
        most = jnp.max(jnp.where(mine[:, None], values, -jnp.inf), axis=0)
        return jnp.concatenate([jnp.minimum(low, least), jnp.maximum(high, most)])

    def put_points(old: jax.Array, values: jax.Array) -> jax.Array:
        return jnp.where(taken, pick(values).T, old.reshape(3, size)).reshape(-1)

    views = jnp.concatenate([part.origin, part.depth[:, None]], axis=1)
    changed = {
        name: put(page[name], getattr(part, name))
        for name in ("order", "depth", "time", "weight")
        if name in page
    }
    return changed | {
        "positions": put_points(page["positions"], part.positions),
        "origin": put_points(page["origin"], part.origin),
        "bounds": widen(page["bounds"], part.positions),
        "views": widen(page["views"], views),
        "newest": jnp.maximum(page["newest"], jnp.max(jnp.where(mine, part.order, -1))),
    }
