"""Fill a memory with given points as a rollout would: one chunk of nine frames at a time.

Read next: `read_speed.py`, `growth.py`.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.memory.scenes import CHANNELS, GRID_HW, tokens_of
from mirage_jax.memory import state
from mirage_jax.memory.state import LatentMemory, MemoryConfig, release_config
from mirage_jax.memory.write import Rows, write

# Room for the points of any scene (`scenes.py`), as a share of those in view.
_ROOM = 1.05

CHUNK_ROWS = 9 * GRID_HW[0] * GRID_HW[1]

# One program for all tables: by itself each of them would be compiled.
empty = jax.jit(state.empty, static_argnums=0)

_write = functools.partial(jax.jit, static_argnums=2, donate_argnums=0)(write)


def config_for(in_view: int) -> MemoryConfig:
    """Return the release's conventions with room for any scene: they share compiled programs."""
    return release_config(int(_ROOM * in_view), CHANNELS)


def filled(positions: np.ndarray, config: MemoryConfig) -> LatentMemory:
    """Return a memory of the points in their order, tokens as in `scenes.tokens_of`."""
    return extend(empty(config), positions, config)


def extend(
    memory: LatentMemory, positions: np.ndarray, config: MemoryConfig, first: int = 0
) -> LatentMemory:
    """Add points numbered from `first`; the given memory is used up."""
    for rows in _chunks(positions, first):
        memory, _ = _write(memory, rows, config)
    return memory


def _chunks(positions: np.ndarray, first: int) -> Iterator[Rows]:
    """Yield rows in chunks of one size, at least one, filled up with rows that are not kept."""
    for start in range(0, max(len(positions), 1), CHUNK_ROWS):
        part = positions[start : start + CHUNK_ROWS]
        places = np.zeros((CHUNK_ROWS, 3), np.float32)
        places[: len(part)] = part
        yield Rows(
            positions=jnp.asarray(places),
            tokens=jnp.asarray(tokens_of(first + start, CHUNK_ROWS, CHANNELS)),
            origin=jnp.zeros((CHUNK_ROWS, 3), jnp.float32),
            depth=jnp.ones(CHUNK_ROWS, jnp.float32),
            time=jnp.full(CHUNK_ROWS, (first + start) // CHUNK_ROWS, jnp.int32),
            keep=jnp.arange(CHUNK_ROWS) < len(part),
        )
