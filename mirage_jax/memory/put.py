"""Put rows into the slots they were given, and widen the bounds of their pages.

Every slot occurs once, so nothing depends on the order of writing, and with a donated memory the
tables are written in place. Gradients flow to the tokens; everything else is constant.

Read next: `put_pages.py` (the same without scattering), `write.py`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int32

from mirage_jax.memory.merge import Sorted
from mirage_jax.memory.put_pages import put_by_page
from mirage_jax.memory.state import NO_ROW, LatentMemory, token_table
from mirage_jax.ops.platform import current_platform
from mirage_jax.ops.put_rows import put_rows as put_lines


def put_rows(
    memory: LatentMemory,
    arranged: Sorted,
    place: Int32[jax.Array, " m"],
    stored: Bool[jax.Array, " m"],
    order: Int32[jax.Array, " m"],
    few: bool,
    by_page: bool | None = None,
) -> LatentMemory:
    """Return the memory with rows in their slots.

    Args:
        memory: One memory.
        arranged: New rows.
        place: Slot of each, counted over all partitions; all different where stored.
        stored: Rows to put; others are left out.
        order: Insertion number of each.
        few: Measure all pages anew, which is cheaper where there are few. To be decided by the
            whole memory, not by one device's share of it: bounds come out tighter.
        by_page: Write page by page instead of scattering rows; None does so on accelerators.
    """
    tokens = arranged.rows.tokens.astype(memory.tokens.dtype)
    tokens = put_lines(token_table(memory), tokens, jnp.where(stored, place, -1))
    memory = memory._replace(tokens=tokens.reshape(memory.tokens.shape))
    # Rows that stay out get distinct places past the end, so that no place occurs twice.
    outside = memory.order.size + jnp.arange(place.shape[0], dtype=jnp.int32)
    place = jnp.where(stored, place, outside)
    if current_platform() != "cpu" if by_page is None else by_page:
        memory = put_by_page(memory, arranged, place, order, stored)
    else:
        memory = _scatter(memory, arranged, place, order)
        if not few:
            memory = _widen(memory, arranged, place, order)
    return measure_pages(memory) if few else memory


def _scatter(
    memory: LatentMemory,
    arranged: Sorted,
    place: Int32[jax.Array, " m"],
    order: Int32[jax.Array, " m"],
) -> LatentMemory:
    """Put everything but tokens and what is known of pages."""
    rows, size = arranged.rows, memory.order.shape[-1]
    page, slot = place // size, place % size

    def put(table: jax.Array, values: jax.Array) -> jax.Array:
        paged = table.reshape(-1, size).at[page, slot]
        return paged.set(values, mode="drop", unique_indices=True).reshape(table.shape)

    def put_points(table: jax.Array, values: jax.Array) -> jax.Array:
        paged = table.reshape(-1, 3, size).at[page, :, slot]
        return paged.set(values, mode="drop", unique_indices=True).reshape(table.shape)

    return memory._replace(
        positions=put_points(memory.positions, rows.positions),
        order=put(memory.order, order),
        origin=put_points(memory.origin, rows.origin),
        depth=put(memory.depth, rows.depth),
        time=put(memory.time, rows.time),
        axes=memory.axes if rows.axes is None else put_points(memory.axes, rows.axes),
        weight=put(memory.weight, arranged.weight) if memory.weight.size else memory.weight,
    )


def _widen(
    memory: LatentMemory, arranged: Sorted, place: Int32[jax.Array, " m"], order: jax.Array
) -> LatentMemory:
    """Let what is known of pages reach the new rows; it does not depend on their order."""
    rows = arranged.rows
    page, slot = place // memory.order.shape[-1], place % memory.order.shape[-1]

    def reach(table: jax.Array, values: jax.Array) -> jax.Array:
        flat = table.reshape(-1, *table.shape[2:])
        flat = flat.at[page, 0].min(values, mode="drop").at[page, 1].max(values, mode="drop")
        return flat.reshape(table.shape)

    def most(table: jax.Array, values: jax.Array) -> jax.Array:
        return table.reshape(-1).at[page].max(values, mode="drop").reshape(table.shape)

    return memory._replace(
        bounds=reach(memory.bounds, rows.positions),
        views=reach(memory.views, jnp.concatenate([rows.origin, rows.depth[:, None]], axis=-1)),
        # Pages are filled from the first slot on.
        used=most(memory.used, slot + 1),
        newest=most(memory.newest, order),
    )


def measure_pages(memory: LatentMemory) -> LatentMemory:
    """Return the memory with what is known of pages taken from all its rows anew."""
    present = memory.order != NO_ROW

    def span(values: jax.Array) -> jax.Array:
        low = jnp.where(present[:, :, None], values, jnp.inf).min(-1)
        return jnp.stack([low, jnp.where(present[:, :, None], values, -jnp.inf).max(-1)], axis=-2)

    return memory._replace(
        bounds=span(memory.positions),
        views=span(jnp.concatenate([memory.origin, memory.depth[:, :, None]], axis=2)),
        used=jnp.sum(present, axis=-1, dtype=jnp.int32),
        newest=jnp.where(present, memory.order, -1).max(-1),
    )
