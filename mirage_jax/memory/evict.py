"""Giving up whole pages of a full memory: the oldest, or those farthest from the camera.

Pages, not rows, are given up, so that what follows fills them whole. A page that holds the voxel of
a new row, and the page that is being filled, are never given up. Choosing costs a pass over the
pages (not the rows), and only when there is no room.

Read next: `place.py`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int32

from mirage_jax.memory import directory
from mirage_jax.memory.config import MemoryConfig
from mirage_jax.memory.merge import Decision, Sorted
from mirage_jax.memory.state import NO_ROW, LatentMemory


class Evicted(NamedTuple):
    """Pages given up.

    Attributes:
        page: Pages of each partition in the order they are given up; only the first `count` count.
        count: How many each partition gives up.
    """

    page: Int32[jax.Array, "V k"]
    count: Int32[jax.Array, " V"]  # type: ignore[assignment]  # shadows tuple.count


def evict(
    memory: LatentMemory,
    arranged: Sorted,
    decision: Decision,
    wanted: Int32[jax.Array, " V"],
    config: MemoryConfig,
) -> tuple[LatentMemory, Evicted]:
    """Empty as many pages as `wanted` newcomers of each partition need.

    Args:
        memory: One memory.
        arranged: The new rows.
        decision: What becomes of them.
        wanted: Newcomers of each partition.
        config: The rules.

    Returns:
        The memory without the rows of those pages, and the pages.
    """
    size = config.page_size
    most = min(-(-arranged.rank.shape[0] // size), config.pages)
    needed = -(-jnp.maximum(wanted - (config.room - memory.filled), 0) // size)

    def choose() -> Evicted:
        keep = _keep_score(memory, arranged, decision, config)
        score, page = jax.lax.top_k(-keep, most)
        count = jnp.minimum(needed, jnp.sum(score > -jnp.inf, axis=1, dtype=jnp.int32))
        return Evicted(page.astype(jnp.int32), count)

    def choose_none() -> Evicted:
        return Evicted(jnp.zeros((needed.shape[0], most), jnp.int32), jnp.zeros_like(needed))

    evicted = jax.lax.cond(jnp.any(needed > 0), choose, choose_none)
    return _clear(memory, evicted, config), evicted


def _keep_score(
    memory: LatentMemory, arranged: Sorted, decision: Decision, config: MemoryConfig
) -> Float[jax.Array, "V pages"]:
    """Return how much each page is worth keeping; infinite where it must be kept."""
    partitions, pages = memory.used.shape
    must_stay = (memory.used == 0) | (jnp.arange(pages) == memory.tail[:, None])
    part = jnp.where(decision.old >= 0, arranged.part, partitions)
    page = jnp.maximum(decision.old, 0) // config.page_size
    must_stay |= _named(part * pages + page, memory.used.size).reshape(partitions, pages)
    if config.when_full == "oldest":
        # Ranks, since float32 cannot tell large orders apart.
        worth = jnp.argsort(jnp.argsort(memory.newest, axis=1), axis=1).astype(jnp.float32)
    else:
        middle = (memory.bounds[..., 0, :] + memory.bounds[..., 1, :]) / 2
        worth = -jnp.sum((middle - arranged.camera) ** 2, axis=-1)
    return jnp.where(must_stay, jnp.inf, worth)


def _named(page: Int32[jax.Array, " m"], count: int) -> Bool[jax.Array, " count"]:
    """Return which of the pages 0 to count - 1 are among those named."""
    ordered = jnp.sort(page)
    place = jnp.searchsorted(ordered, jnp.arange(count, dtype=page.dtype))
    return ordered.at[place].get(mode="fill", fill_value=count) == jnp.arange(count)


def _clear(memory: LatentMemory, evicted: Evicted, config: MemoryConfig) -> LatentMemory:
    """Empty pages: no rows, no bounds, no entries in the directory."""
    partitions, pages = memory.used.shape
    turn = jnp.arange(evicted.page.shape[1], dtype=jnp.int32)
    gone = turn < evicted.count[:, None]
    part = jnp.broadcast_to(jnp.arange(partitions)[:, None], gone.shape)
    cleared = memory.directory
    if config.merges:
        size = config.page_size
        row = (evicted.page[..., None] * size + jnp.arange(size)).reshape(-1)
        wanted = (memory.order[part, evicted.page] != NO_ROW) & gone[..., None]
        owner = jnp.repeat(part.reshape(-1), size)
        cleared = directory.remove_rows(memory, owner, row, wanted.reshape(-1), config.voxel_size)
    lost = jnp.sum(jnp.where(gone, memory.used[part, evicted.page], 0), axis=1, dtype=jnp.int32)
    memory = memory._replace(filled=memory.filled - lost, directory=cleared)
    return _empty_pages(memory, evicted)


def _empty_pages(memory: LatentMemory, evicted: Evicted) -> LatentMemory:
    """Empty pages one after the other, in place: there are few, and most often none."""
    nowhere = jnp.array([[jnp.inf] * 4, [-jnp.inf] * 4])
    blank = {
        "order": jnp.full(memory.order.shape[-1:], NO_ROW, jnp.int32),
        "bounds": nowhere[:, :3],
        "views": nowhere,
        "used": jnp.zeros((), jnp.int32),
        "newest": jnp.full((), -1, jnp.int32),
    }

    def step(state: tuple[jax.Array, dict]) -> tuple[jax.Array, dict]:
        turn, tables = state
        owner = jnp.sum(ends <= turn, dtype=jnp.int32)
        before = jnp.where(owner > 0, ends[jnp.maximum(owner - 1, 0)], 0)
        page = evicted.page[owner, turn - before]
        tables = {
            name: jax.lax.dynamic_update_slice(
                table, blank[name][None, None], (owner, page, *[0] * blank[name].ndim)
            )
            for name, table in tables.items()
        }
        return turn + 1, tables

    ends = jnp.cumsum(evicted.count)
    start = (jnp.zeros((), jnp.int32), {name: getattr(memory, name) for name in blank})
    _, tables = jax.lax.while_loop(lambda state: state[0] < ends[-1], step, start)
    return memory._replace(**tables)
