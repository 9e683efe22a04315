"""How evenly recorded Doom levels spread over partitions of space.

Clips of each level are played and their exact depth is written clip by clip, on the grid of the
recorded picture's 8x8 blocks, one row a voxel. The first write sets the partitions' boundaries;
after a clip that leaves the fullest above 1.3 times the mean, `rebalance` moves them to quantiles
of what is stored. Needs the extra `doom`.

Read next: `traffic.py`.
"""

from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import numpy as np

from mirage_jax.geometry.camera import Camera, rescale_intrinsics
from mirage_jax.geometry.depth import resize_depth
from mirage_jax.memory.rows import balance, rebalance
from mirage_jax.memory.state import MemoryConfig, empty
from mirage_jax.memory.write import write_frames

_CELL, _FRAMES, _STEP = 8, 81, 2
_FAR, _LIMIT = 60.0, 1.3

_write = jax.jit(write_frames, static_argnums=5, donate_argnums=0)


def can_play() -> bool:
    """Return whether the game is installed."""
    return all(find_spec(name) is not None for name in ("vizdoom", "numba"))


class Balance(NamedTuple):
    """Fullest over mean partition: largest after any clip and at the end; rebalances on the way."""

    worst: float
    last: float
    rebalances: int


def measure(levels: tuple[str, ...], clips: int, partitions: tuple[int, ...]) -> dict[str, Any]:
    """Play levels and return, by number of partitions, how even they are.

    Args:
        levels: such as "freedoom2/MAP01".
        clips: of each level.
        partitions: numbers of partitions to try.

    Returns:
        Level -> {"rows", number of partitions: `Balance` as a dict}.
    """
    from mirage_jax.data.doom.engine import Engine
    from mirage_jax.data.doom.levels import parse_level
    from mirage_jax.data.doom.record import RecordConfig, record_clip

    print(f"balance: fullest over mean partition, {clips} clips of each level, one row a voxel")
    result: dict[str, Any] = {}
    with Engine() as engine:
        for level in levels:
            config = RecordConfig(frames=_FRAMES)
            played = [
                record_clip(engine, parse_level(level), number, 0, config)[0]
                for number in range(clips)
            ]
            result[level] = {"rows": 0}
            for count in partitions:
                rows, even = _remember(played, count)
                result[level] |= {"rows": rows, str(count): even._asdict()}
                print(f"  {level}, {rows:,} rows, {count} partitions: {even}")
    return result


def _remember(clips: list[dict[str, Any]], partitions: int) -> tuple[int, Balance]:
    """Write all clips of a level; each partition could take a whole clip, so nothing is dropped."""
    height, width = clips[0]["depth"].shape[1:]
    grid = (height // _CELL, width // _CELL)
    rows = len(range(0, _FRAMES, _STEP)) * grid[0] * grid[1]
    capacity = (partitions + 2 * len(clips)) * rows
    config = MemoryConfig(
        capacity, 1, retention="newest", voxel_size=0.25, partitions=partitions, page_rows=64
    )
    memory, worst, rebalances = empty(config), 1.0, 0
    for clip in clips:
        depth = resize_depth(clip["depth"][::_STEP].astype(np.float32), grid)
        matrix = rescale_intrinsics(clip["intrinsics"], (height, width), grid)
        camera = Camera(clip["cam_to_world"][::_STEP], np.repeat(matrix[None], len(depth), axis=0))
        keep = (depth > 0) & (depth < _FAR)
        tokens = np.zeros((*depth.shape, 1), np.float32)
        memory, report = _write(memory, tokens, depth, keep, camera, config, 0)
        if int(report.dropped):
            raise RuntimeError(f"balance: {int(report.dropped)} rows dropped; raise the capacity.")
        worst = max(worst, balance(memory))
        if balance(memory) > _LIMIT:
            memory, rebalances = rebalance(memory, config), rebalances + 1
    return int(memory.count), Balance(round(worst, 3), round(balance(memory), 3), rebalances)
