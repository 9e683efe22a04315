"""What the K best rows of each cell cost: reads of one 44x80x48 view for K = 1, 2, 4 and 8.

The scenes are those of `benchmarks/memory`: a full frustum, where near points hide far ones, and
one surface, where every point competes; both by the paper's rule and by the most similar view.

    python -m benchmarks.candidates [--quick]

Read next: `mirage_jax/memory/read.py`.
"""

import dataclasses
import functools
import sys

import jax

from benchmarks import timing
from benchmarks.memory import scenes, stored
from mirage_jax.memory.read import read

_COUNTS = (None, 1, 2, 4, 8)


def main(quick: bool) -> None:
    """Time and print."""
    count, rounds = (100_000, 5) if quick else (1_000_000, 15)
    print(f"{count:,} rows, 44x80 cells, 48 channels, float32; median ms a read")
    for name, make in (("volume", scenes.frustum_volume), ("surface", scenes.single_surface)):
        points = make(count)
        config = stored.config_for(count)
        memory = stored.filled(points.positions, config)
        for select in ("nearest", "best_view"):
            rules = dataclasses.replace(config, select=select)
            calls = {
                "winner" if k is None else f"K={k}": functools.partial(
                    _read, memory, points.camera, scenes.GRID_HW, rules, k
                )
                for k in _COUNTS
            }
            ms = timing.interleave(calls, rounds)
            print(f"{name} {select}: " + ", ".join(f"{k} {value:.1f}" for k, value in ms.items()))


_read = jax.jit(read, static_argnums=(2, 3, 4))

if __name__ == "__main__":
    main("--quick" in sys.argv)
