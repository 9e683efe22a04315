"""What a latent memory is: a table of rows with a fixed capacity, and the rules it is kept by.

Conventions: rows `index < count` are in use, in the order they were written, and all other rows are
zero. Positions and origins are world points in scene units; depth is z-depth. Every function here
and in `write.py` / `read.py` is pure, of static shape, and describes one memory: use `jax.vmap` for
a batch of them.

Read next: `write.py`.
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int32


@dataclasses.dataclass(frozen=True)
class MemoryConfig:
    """How a memory is kept and read. Defaults are the paper's conventions.

    Attributes:
        capacity: Rows the memory can hold.
        channels: Latent channels c of a token.
        retention: "append" keeps every row until the memory is full; "voxel" keeps the newest row
            of each cube of side `voxel_size`. Rows that do not fit are dropped and counted.
        voxel_size: Side of the cubes in scene units; read by "voxel" only.
        token_dtype: Type tokens are stored in.
        half_cell: True: a token sits at its cell's centre (i + 0.5). False: at the cell's index i.
        rounding: How a projection picks its cell: "floor" belongs to half_cell=True,
            "nearest_even" to half_cell=False.
        select: Which row a cell shows: the "nearest", or among those at the nearest's depth the
            one seen from the most similar view ("best_view").
        shell: Rows within this relative depth of another count as the same surface.
        same_place: "best_view" lets a row pass without the shell test if it was seen from within
            this fraction of its depth of the reading camera: nothing can hide it from there.
        offset_weight: What a shift of one cell adds to the difference of two views, in radians.
        edge_window: Side in cells of the window in which depth must be continuous for a cell to be
            written; odd, 0 switches the test off.
        edge_range: Largest relative depth range accepted in that window.
        write_where: "all" writes every kept cell; "unseen" those the memory does not show already.
    """

    capacity: int
    channels: int
    retention: Literal["append", "voxel"] = "append"
    voxel_size: float = 0.1
    token_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    half_cell: bool = True
    rounding: Literal["floor", "nearest_even"] = "floor"
    select: Literal["nearest", "best_view"] = "nearest"
    shell: float = 0.05
    same_place: float = 0.01
    offset_weight: float = 0.05
    edge_window: int = 0
    edge_range: float = 0.1
    write_where: Literal["all", "unseen"] = "all"

    def __post_init__(self) -> None:
        """Check each field and the facts that tie fields together."""
        for name in ("capacity", "channels"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        _require(self.voxel_size > 0, "voxel_size", self.voxel_size, "a positive length")
        for name in ("shell", "same_place", "offset_weight", "edge_range"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        odd = self.edge_window == 0 or (self.edge_window > 0 and self.edge_window % 2 == 1)
        _require(odd, "edge_window", self.edge_window, "0 (off) or an odd number of cells")
        for name, choices in _CHOICES.items():
            _require(getattr(self, name) in choices, name, getattr(self, name), f"one of {choices}")
        expected = "floor" if self.half_cell else "nearest_even"
        _require(
            self.rounding == expected,
            "rounding",
            self.rounding,
            f"'{expected}' with half_cell={self.half_cell}, or reads shift by half a cell",
        )


_CHOICES = {
    "retention": ("append", "voxel"),
    "token_dtype": ("float32", "bfloat16", "float16"),
    "rounding": ("floor", "nearest_even"),
    "select": ("nearest", "best_view"),
    "write_where": ("all", "unseen"),
}


def _require(condition: bool, name: str, got: object, expected: str) -> None:
    """Raise ValueError for a config field that breaks its rule."""
    if not condition:
        raise ValueError(f"MemoryConfig: {name} is {got!r}, expected {expected}.")


def release_config(capacity: int, channels: int) -> MemoryConfig:
    """Return the conventions that the released weights were trained with."""
    return MemoryConfig(capacity, channels, half_cell=False, rounding="nearest_even")


class LatentMemory(NamedTuple):
    """A table of n = capacity rows; row order is write order, so the lower index is the older row.

    Attributes:
        positions: World points, scene units.
        tokens: Latent tokens, c channels.
        origin: Camera centre each row was seen from, world, scene units.
        depth: z-depth each row was seen at, scene units.
        time: Stamp given by the writer, such as the frame number.
        count: Rows in use.
        dropped: Rows refused so far because the memory was full.
    """

    positions: Float[jax.Array, "*batch n 3"]
    tokens: Float[jax.Array, "*batch n c"]
    origin: Float[jax.Array, "*batch n 3"]
    depth: Float[jax.Array, "*batch n"]
    time: Int32[jax.Array, "*batch n"]
    count: Int32[jax.Array, "*batch"]  # type: ignore[assignment]  # shadows tuple.count
    dropped: Int32[jax.Array, "*batch"]


def empty(config: MemoryConfig) -> LatentMemory:
    """Return a memory without rows: all zeros, of the config's capacity and channels."""
    n = config.capacity
    return LatentMemory(
        positions=jnp.zeros((n, 3), jnp.float32),
        tokens=jnp.zeros((n, config.channels), config.token_dtype),
        origin=jnp.zeros((n, 3), jnp.float32),
        depth=jnp.zeros((n,), jnp.float32),
        time=jnp.zeros((n,), jnp.int32),
        count=jnp.zeros((), jnp.int32),
        dropped=jnp.zeros((), jnp.int32),
    )


def used_rows(memory: LatentMemory) -> Bool[jax.Array, "*batch n"]:
    """Return True for the rows in use; works on stacked memories too."""
    return jnp.arange(memory.depth.shape[-1]) < memory.count[..., None]


def check_memory(memory: LatentMemory, config: MemoryConfig, what: str) -> None:
    """Raise ValueError unless one memory's shapes and token type are those of the config.

    Args:
        memory: One memory; inside `jax.vmap` the leading axis is already gone.
        config: What it should agree with.
        what: The operation that failed, for the message.

    Raises:
        ValueError: Naming the expected and the given token table.
    """
    got = (memory.tokens.shape, str(memory.tokens.dtype))
    expected = ((config.capacity, config.channels), config.token_dtype)
    if got != expected:
        raise ValueError(
            f"{what}: memory.tokens is {got[1]}{list(got[0])}, expected {expected[1]}"
            f"{list(expected[0])} from the config; make the memory with empty(config), and use "
            "jax.vmap for stacked memories."
        )
