"""Put rows into their slots a page at a time: what accelerators do instead of scattering rows.

The rows are sorted by slot; then each page that gets any is read, changed and written back as one
block. A row finds its slot by comparing numbers, all against all within the page, which vector
units do in a few cycles, where a scatter would take the rows one after the other.

Conventions: new rows are k lines of fields, [k, m]. Tables of rows are [pages, k, P], which is how
GPUs keep them, or k planes of pages, [k * pages, P], which is how TPUs do: so nothing is copied.

Read next: `put.py`, whose result this equals.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Bool, Int32, Shaped

from mirage_jax.memory.merge import Sorted
from mirage_jax.memory.state import LatentMemory
from mirage_jax.ops.platform import current_platform

# What is known of a page.
_ABOUT = ("bounds", "views", "newest", "used")


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
    new = _fields(memory, arranged, order)
    tables = {name: getattr(memory, name) for name in (*new, *_ABOUT)}
    return memory._replace(**_put_in_tables(tables, new, place, stored))


@custom_vmap
def _put_in_tables(
    given: dict[str, jax.Array], new: dict[str, jax.Array], place: jax.Array, stored: jax.Array
) -> dict[str, jax.Array]:
    """Return tables of rows and of what is known of pages, with the new rows."""
    size, m = given["order"].shape[-1], place.shape[0]
    pages = given["order"].size // size
    lay = _Planes(pages) if current_platform() == "tpu" else _Blocks(pages)
    place, source = jax.lax.sort((place, jnp.arange(m, dtype=jnp.int32)), num_keys=1)
    new = {name: values[:, source] for name, values in new.items()} | {"place": place[None]}
    # At least a page of them, since that many are looked at together.
    new = {name: jnp.pad(x, ((0, 0), (0, max(size - m, 0)))) for name, x in new.items()}
    count = jnp.sum(stored, dtype=jnp.int32)
    tables = {name: lay.of_table(given[name]) for name in new if name != "place"}
    about = {name: given[name].reshape(-1, *given[name].shape[2:]) for name in _ABOUT}

    def step(state: tuple[jax.Array, dict, dict]) -> tuple[jax.Array, dict, dict]:
        cursor, tables, about = state
        # Slices are shifted back at the end, so look where they really begin.
        start = jnp.minimum(cursor, new["place"].shape[1] - size)
        part = {name: jax.lax.dynamic_slice_in_dim(x, start, size, 1) for name, x in new.items()}
        page = new["place"][0, cursor] // size
        number = start + jnp.arange(size)
        mine = (part["place"][0] // size == page) & (number >= cursor) & (number < count)
        old = {name: lay.page(table, page) for name, table in tables.items()}
        known = {name: jax.lax.dynamic_index_in_dim(x, page, 0, False) for name, x in about.items()}
        slots, known = _put(old, part, mine), _widen(known, part, mine, size)
        tables = {name: lay.with_page(x, page, slots[name]) for name, x in tables.items()}
        about = {
            name: jax.lax.dynamic_update_index_in_dim(x, known[name], page, 0)
            for name, x in about.items()
        }
        return cursor + jnp.sum(mine, dtype=jnp.int32), tables, about

    start = (jnp.zeros((), jnp.int32), tables, about)
    _, tables, about = jax.lax.while_loop(lambda state: state[0] < count, step, start)
    whole = {name: lay.to_table(table) for name, table in tables.items()} | about
    return {name: table.reshape(given[name].shape) for name, table in whole.items()}


@_put_in_tables.def_vmap
def _put_in_all_tables(
    members: int, is_batched: list[Any], *arguments: Any
) -> tuple[dict[str, jax.Array], dict[str, bool]]:
    """Take the memories of a batch for one of more partitions.

    A loop that each of them leaves at its own time would copy all tables at every turn.
    """
    leaves, tree = jax.tree.flatten(arguments)
    whole = [
        leaf if flag else jnp.broadcast_to(leaf, (members, *leaf.shape))
        for leaf, flag in zip(leaves, jax.tree.leaves(is_batched), strict=True)
    ]
    tables, new, place, stored = jax.tree.unflatten(tree, whole)
    slots = tables["order"].size // members
    first = jnp.arange(members, dtype=jnp.int32)[:, None] * slots
    place = jnp.where(stored, place + first, members * slots)
    made = _put_in_tables(
        {name: table.reshape(-1, *table.shape[2:]) for name, table in tables.items()},
        {name: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1) for name, x in new.items()},
        place.reshape(-1),
        stored.reshape(-1),
    )
    made = {name: table.reshape(tables[name].shape) for name, table in made.items()}
    return made, dict.fromkeys(made, True)


def _fields(
    memory: LatentMemory, arranged: Sorted, order: Int32[jax.Array, " m"]
) -> dict[str, Shaped[jax.Array, "k m"]]:
    """Return what the tables of rows get."""
    rows = arranged.rows
    fields = {"positions": rows.positions.T, "origin": rows.origin.T}
    lines = {"order": order, "depth": rows.depth, "time": rows.time}
    if memory.weight.size:
        lines["weight"] = arranged.weight
    if rows.axes is not None:
        fields["axes"] = rows.axes.T
    return fields | {name: values[None] for name, values in lines.items()}


@dataclasses.dataclass(frozen=True)
class _Blocks:
    """Tables of rows as they are: a page after the other."""

    pages: int

    def of_table(self, table: Shaped[jax.Array, "V pages *k P"]) -> Shaped[jax.Array, "n k P"]:
        return table.reshape(self.pages, -1, table.shape[-1])

    def to_table(self, blocks: Shaped[jax.Array, "n k P"]) -> Shaped[jax.Array, "n k P"]:
        return blocks

    def page(self, blocks: Shaped[jax.Array, "n k P"], page: jax.Array) -> jax.Array:
        return jax.lax.dynamic_index_in_dim(blocks, page, 0, keepdims=False)

    def with_page(self, blocks: jax.Array, page: jax.Array, slots: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_index_in_dim(blocks, slots, page, 0)


@dataclasses.dataclass(frozen=True)
class _Planes:
    """Tables of rows as planes, one under the other: then TPUs do not turn them over."""

    pages: int

    def of_table(self, table: Shaped[jax.Array, "V pages *k P"]) -> Shaped[jax.Array, "k*n P"]:
        size = table.shape[-1]
        return jnp.moveaxis(table.reshape(self.pages, -1, size), 1, 0).reshape(-1, size)

    def to_table(self, planes: Shaped[jax.Array, "k*n P"]) -> Shaped[jax.Array, "n k P"]:
        return jnp.moveaxis(planes.reshape(-1, self.pages, planes.shape[-1]), 0, 1)

    def page(self, planes: Shaped[jax.Array, "k*n P"], page: jax.Array) -> jax.Array:
        places = range(0, planes.shape[0], self.pages)
        return jnp.concatenate(
            [jax.lax.dynamic_slice_in_dim(planes, first + page, 1) for first in places]
        )

    def with_page(self, planes: jax.Array, page: jax.Array, slots: jax.Array) -> jax.Array:
        for k, first in enumerate(range(0, planes.shape[0], self.pages)):
            planes = jax.lax.dynamic_update_index_in_dim(planes, slots[k], first + page, 0)
        return planes


def _put(old: dict, part: dict, mine: Bool[jax.Array, " P"]) -> dict:
    """Return the slots of one page, [k, P] of each table, with the rows that are its own."""
    size = mine.shape[0]
    into = (part["place"][0] % size == jnp.arange(size)[:, None]) & mine
    taken = into.any(axis=1)

    def pick(values: jax.Array) -> jax.Array:
        # One term of each sum is not zero, so it is exact.
        return jnp.sum(jnp.where(into, values[:, None], 0), axis=2, dtype=values.dtype)

    return {name: jnp.where(taken, pick(part[name]), table) for name, table in old.items()}


def _widen(known: dict, part: dict, mine: Bool[jax.Array, " P"], size: int) -> dict:
    """Return what is known of one page after it got the rows that are its own."""

    def reach(old: jax.Array, values: jax.Array) -> jax.Array:
        least = jnp.min(jnp.where(mine, values, jnp.inf), axis=1)
        most = jnp.max(jnp.where(mine, values, -jnp.inf), axis=1)
        return jnp.stack([jnp.minimum(old[0], least), jnp.maximum(old[1], most)])

    # Pages are filled from the first slot on.
    filled = jnp.max(jnp.where(mine, part["place"][0] % size + 1, 0))
    return {
        "bounds": reach(known["bounds"], part["positions"]),
        "views": reach(known["views"], jnp.concatenate([part["origin"], part["depth"]])),
        "newest": jnp.maximum(known["newest"], jnp.max(jnp.where(mine, part["order"][0], -1))),
        "used": jnp.maximum(known["used"], filled),
    }
