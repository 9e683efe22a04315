"""Put rows into the slots they were given, and widen the bounds of their pages.

Every slot occurs once, so nothing depends on the order of writing, and with a donated memory the
tables are written in place. Gradients flow to the tokens; everything else is constant.

Read next: `write.py`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int32

from mirage_jax.memory.merge import Sorted
from mirage_jax.memory.state import NO_ROW, LatentMemory


def put_rows(
    memory: LatentMemory,
    arranged: Sorted,
    part: Int32[jax.Array, " m"],
    row: Int32[jax.Array, " m"],
    stored: Bool[jax.Array, " m"],
    order: Int32[jax.Array, " m"],
    few: bool,
) -> LatentMemory:
    """Return the memory with rows in their slots.

    Args:
        memory: One memory.
        arranged: New rows.
        part: Partition of each.
        row: Row of its partition that each becomes; all different where stored.
        stored: Rows to put; others are left out.
        order: Insertion number of each.
        few: Measure all pages anew, which is cheaper where there are few. To be decided by the
            whole memory, not by one device's share of it: bounds come out tighter.
    """
    rows = arranged.rows
    partitions, pages, size = memory.order.shape
    m = part.shape[0]
    # Rows that stay out get distinct places past the end, so that no place occurs twice.
    outside = partitions * pages * size + jnp.arange(m, dtype=jnp.int32)
    place = jnp.where(stored, part * (pages * size) + row, outside)
    page, slot = place // size, place % size

    def put(table: jax.Array, values: jax.Array) -> jax.Array:
        flat = table.reshape(-1, *table.shape[2:])
        flat = flat.at[place].set(values.astype(table.dtype), mode="drop", unique_indices=True)
        return flat.reshape(table.shape)

    positions = memory.positions.reshape(-1, 3, size)
    positions = positions.at[page, :, slot].set(rows.positions, mode="drop", unique_indices=True)
    orders = memory.order.reshape(-1, size)
    orders = orders.at[page, slot].set(order, mode="drop", unique_indices=True)
    memory = memory._replace(
        positions=positions.reshape(memory.positions.shape),
        order=orders.reshape(memory.order.shape),
        tokens=put(memory.tokens, rows.tokens),
        origin=put(memory.origin, rows.origin),
        depth=put(memory.depth, rows.depth),
        time=put(memory.time, rows.time),
        weight=put(memory.weight, arranged.weight) if memory.weight.size else memory.weight,
    )
    if few:
        return measure_pages(memory)
    views = jnp.concatenate([rows.origin, rows.depth[:, None]], axis=-1)
    newest = memory.newest.reshape(-1).at[page].max(order, mode="drop")
    return memory._replace(
        bounds=_widen(memory.bounds, page, rows.positions),
        views=_widen(memory.views, page, views),
        newest=newest.reshape(partitions, pages),
    )


def measure_pages(memory: LatentMemory) -> LatentMemory:
    """Return the memory with bounds, views and newest rows taken from all its rows anew."""
    present = memory.order != NO_ROW
    seen = jnp.concatenate([memory.origin, memory.depth[..., None]], axis=-1)
    seen = jnp.moveaxis(seen.reshape(*present.shape, 4), -1, -2)

    def span(values: jax.Array) -> jax.Array:
        low = jnp.where(present[:, :, None], values, jnp.inf).min(-1)
        return jnp.stack([low, jnp.where(present[:, :, None], values, -jnp.inf).max(-1)], axis=-2)

    return memory._replace(
        bounds=span(memory.positions),
        views=span(seen),
        newest=jnp.where(present, memory.order, -1).max(-1),
    )


def _widen(table: jax.Array, page: Int32[jax.Array, " m"], values: jax.Array) -> jax.Array:
    """Let bounds reach the values; least and greatest do not depend on the order of rows."""
    flat = table.reshape(-1, *table.shape[2:])
    flat = flat.at[page, 0].min(values, mode="drop").at[page, 1].max(values, mode="drop")
    return flat.reshape(table.shape)
