"""What a latent memory is: pages of rows that lie near each other, in partitions of space.

A *voxel* is a cube of the world grid, the unit of merging. A *partition* is a share of space along
a space-filling curve, with tables of its own; devices divide the partitions among themselves. A
*page* is `page_size` rows of a partition that lie near each other, with the bounds of what it
holds: the unit of culling. A *row* is one token with its place and how it was seen.

Conventions: tables have a leading partition axis V. Slots of a page that hold no row have order
`NO_ROW`. A row's number is counted over all partitions, V * n slots. Positions and origins are
world points in scene units; depth is z-depth. Every function here and in `write.py` / `read.py` is
pure, of static shape, and describes one memory: use `jax.vmap` for a batch of them.

Read next: `write.py`; `rows.py` lists the rows without their pages.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int32, UInt32

from mirage_jax.memory.config import MemoryConfig, release_config
from mirage_jax.ops.choose_rows import SeenFrom
from mirage_jax.ops.rasterize_points.pages import EMPTY, Pages

__all__ = ["NO_ROW", "LatentMemory", "MemoryConfig", "check_memory", "empty", "release_config"]

# Order of a slot without a row: later than any row, so that it loses every comparison.
NO_ROW = EMPTY

# Rows of a line of tokens, buckets of a line of the directory; pages are whole lines.
LINE = 8

# With no more pages than this there is nothing to gain from culling, nor from sorting for it.
FEW_PAGES = 16

# Slots of a directory bucket: one cache line. With at least one bucket for three rows, a bucket
# overflows for less than one row in a hundred million.
BUCKET_SLOTS = 16
_BUCKET_LOAD = 3


class LatentMemory(NamedTuple):
    """Rows in pages of P slots, n = pages * P slots in each of V partitions.

    Attributes:
        positions: World points, scene units.
        order: Insertion number of each row; the lower is the older. `NO_ROW` where there is none.
        tokens: Latent tokens of c channels, in lines of eight rows (see `ops/gather_rows`): TPUs
            would pad shorter lines.
        origin: Camera centre each row was seen from, world, scene units.
        depth: z-depth each row was seen at, scene units.
        time: Stamp given by the writer, such as the frame number.
        axes: How the cell of each row lay in the world, see `axes.py`; k = pages where the config
            keeps it, else 0.
        weight: Tokens each row is the mean of; k = pages with retention "mean", else 0.
        bounds: Least and greatest corner of each page's rows; infinite, the wrong way round, where
            there are none. May be wider than the rows that are left.
        views: Least and greatest (origin x, y, z, depth) of each page's rows, likewise.
        used: Rows of each page.
        newest: Greatest order of each page's rows, -1 where there are none.
        tail: Page that is being filled.
        fresh: First page that was never used.
        filled: Rows of each partition.
        refused: Rows dropped so far because there was no room.
        directory: Rows by voxel; see `directory.py`. No buckets with retention "append".
        boundaries: First key (high, low) of partitions 1 to V - 1; see `grid.py`.
        next_order: Insertion number of the next row.
        latest: Newest stamp written.
    """

    positions: Float[jax.Array, "*batch V pages 3 P"]
    order: Int32[jax.Array, "*batch V pages P"]
    tokens: Float[jax.Array, "*batch V n/8 8*c"]
    origin: Float[jax.Array, "*batch V pages 3 P"]
    depth: Float[jax.Array, "*batch V pages P"]
    time: Int32[jax.Array, "*batch V pages P"]
    axes: UInt32[jax.Array, "*batch V k 3 P"]
    weight: Float[jax.Array, "*batch V k P"]
    bounds: Float[jax.Array, "*batch V pages 2 3"]
    views: Float[jax.Array, "*batch V pages 2 4"]
    used: Int32[jax.Array, "*batch V pages"]
    newest: Int32[jax.Array, "*batch V pages"]
    tail: Int32[jax.Array, "*batch V"]
    fresh: Int32[jax.Array, "*batch V"]
    filled: Int32[jax.Array, "*batch V"]
    refused: Int32[jax.Array, "*batch V"]
    directory: UInt32[jax.Array, "*batch V buckets/8 8*slots"]
    boundaries: UInt32[jax.Array, "*batch V-1 2"]
    next_order: Int32[jax.Array, "*batch"]
    latest: Int32[jax.Array, "*batch"]

    @property
    def count(self) -> Int32[jax.Array, "*batch"]:  # type: ignore[override]
        """Rows in use."""
        return self.filled.sum(-1, dtype=np.int32)

    @property
    def dropped(self) -> Int32[jax.Array, "*batch"]:
        """Rows refused so far because there was no room."""
        return self.refused.sum(-1, dtype=np.int32)


def empty(config: MemoryConfig) -> LatentMemory:
    """Return a memory without rows, of the config's capacity and channels."""
    v, pages, size, n = config.partitions, config.pages, config.page_size, config.rows
    nowhere = jnp.full((v, pages, 1, 4), jnp.inf)
    nowhere = jnp.concatenate([nowhere, -nowhere], axis=2)
    return LatentMemory(
        positions=jnp.zeros((v, pages, 3, size), jnp.float32),
        order=jnp.full((v, pages, size), NO_ROW, jnp.int32),
        tokens=jnp.zeros((v, n // LINE, LINE * config.channels), config.token_dtype),
        origin=jnp.zeros((v, pages, 3, size), jnp.float32),
        depth=jnp.zeros((v, pages, size), jnp.float32),
        time=jnp.zeros((v, pages, size), jnp.int32),
        axes=jnp.zeros((v, pages if config.axes else 0, 3, size), jnp.uint32),
        weight=jnp.zeros((v, pages if config.retention == "mean" else 0, size), jnp.float32),
        bounds=nowhere[..., :3],
        views=nowhere,
        used=jnp.zeros((v, pages), jnp.int32),
        newest=jnp.full((v, pages), -1, jnp.int32),
        tail=jnp.zeros((v,), jnp.int32),
        fresh=jnp.ones((v,), jnp.int32),
        filled=jnp.zeros((v,), jnp.int32),
        refused=jnp.zeros((v,), jnp.int32),
        directory=jnp.zeros((v, _buckets(config) // LINE, LINE * BUCKET_SLOTS), jnp.uint32),
        boundaries=jnp.full((v - 1, 2), jnp.iinfo(jnp.uint32).max, jnp.uint32),
        next_order=jnp.zeros((), jnp.int32),
        latest=jnp.full((), jnp.iinfo(jnp.int32).min, jnp.int32),
    )


def _buckets(config: MemoryConfig) -> int:
    """Return the buckets of a partition's directory: a power of two, or none."""
    needed = max(LINE, -(-config.rows // _BUCKET_LOAD))
    return 1 << (needed - 1).bit_length() if config.merges else 0


def page_table(memory: LatentMemory) -> Pages:
    """Return the pages of all partitions in a row, as the rasterizer takes them; nothing is copied.

    Their row numbers are those of `MemoryRead.index`.
    """
    size = memory.order.shape[-1]
    return Pages(
        positions=memory.positions.reshape(-1, 3, size),
        order=memory.order.reshape(-1, size),
        bounds=memory.bounds.reshape(-1, 2, 3),
    )


def view_table(memory: LatentMemory) -> SeenFrom:
    """Return where the rows of `page_table` were seen from, as the choice of rows takes it."""
    size = memory.order.shape[-1]
    bounds = memory.views.reshape(-1, 2, 4)
    return SeenFrom(
        origin=memory.origin.reshape(-1, 3, size),
        depth=memory.depth.reshape(-1, size),
        bounds=bounds[..., :3],
        farthest=bounds[:, 1, 3],
    )


def token_table(memory: LatentMemory) -> Float[jax.Array, "lines 8*c"]:
    """Return the tokens of all partitions as the gather takes them; nothing is copied."""
    return memory.tokens.reshape(-1, memory.tokens.shape[-1])


def check_memory(memory: LatentMemory, config: MemoryConfig, what: str) -> None:
    """Raise ValueError unless one memory's shapes and token type are those of the config.

    Args:
        memory: One memory; inside `jax.vmap` the leading axis is already gone.
        config: What it should agree with.
        what: The operation that failed, for the message.

    Raises:
        ValueError: Naming the expected and the given tables.
    """
    check_tables(memory, config, what, config.partitions)


def check_tables(memory: LatentMemory, config: MemoryConfig, what: str, partitions: int) -> None:
    """Raise ValueError as `check_memory` for tables that hold only some of the partitions."""
    tokens, pages = memory.tokens, memory.order.shape
    held = (memory.directory.shape[-2] > 0, memory.axes.shape[-3] > 0)
    got = (tokens.shape, str(tokens.dtype), pages, *held)
    expected = (
        (partitions, config.rows // LINE, LINE * config.channels),
        config.token_dtype,
        (partitions, config.pages, config.page_size),
        config.merges,
        config.axes,
    )
    if got != expected:
        raise ValueError(
            f"{what}: memory.tokens is {got[1]}{list(got[0])} in pages {list(pages)}, expected "
            f"{expected[1]}{list(expected[0])} in pages {list(expected[2])} from the config"
            f"{_table_words(got[3], expected[3], 'a directory of voxels')}"
            f"{_table_words(got[4], expected[4], 'axes of its rows')}; make the memory with "
            "empty(config), and use jax.vmap for stacked memories."
        )


def _table_words(got: bool, expected: bool, what: str) -> str:
    """Return what to say of a table that only some memories have, where that is what differs."""
    if got == expected:
        return ""
    return f" without {what}" if got else f" with {what}"
