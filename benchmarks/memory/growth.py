"""Does a read or a write slow down with what is stored but not seen?

A city of equal rooms; the camera stands in the first and sees nothing but its walls. The memory
grows room by room. One read looks at the wall with the whole city *behind* it, from where the room
was seen, one the other way, with the city at the camera's *back*. A third is from so near to a wall
that it shows *holes* between its rows: more is seen through them, the more is stored. A write adds
a chunk of nine frames.

Read next: `rollout.py` (bytes).
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import timing
from benchmarks.memory import scenes, stored
from benchmarks.memory.read_speed import read_jit
from mirage_jax.geometry.camera import Camera
from mirage_jax.memory.state import LatentMemory, MemoryConfig
from mirage_jax.memory.write import WriteReport, write_frames

_ROOM_ROWS = 100_000
_FRAMES = 9
# A read takes about a millisecond, so it is timed in more rounds than a write.
_READ_ROUNDS = 4


@functools.partial(jax.jit, static_argnums=5, donate_argnums=0)
def _write_frames(
    memory: LatentMemory,
    latents: jax.Array,
    depth: jax.Array,
    keep: jax.Array,
    camera: Camera,
    config: MemoryConfig,
) -> tuple[LatentMemory, WriteReport]:
    return write_frames(memory, latents, depth, keep, camera, config, 1)


class City(NamedTuple):
    """A memory of whole rooms, and its config."""

    memory: LatentMemory
    config: MemoryConfig


def prepare(count: int, rounds: int) -> City:
    """Fill a memory, and compile what `measure` runs on it.

    It has room for its rows and for the chunks that the timed writes add.

    Args:
        count: rows to store, a multiple of 1e5.
        rounds: timed rounds.
    """
    spare = 5 * (rounds + 2) * _FRAMES * scenes.GRID_HW[0] * scenes.GRID_HW[1]
    config = MemoryConfig(count + spare, scenes.CHANNELS, token_dtype="bfloat16")
    # A write uses the memory up, so it is compiled on another one.
    _write_frames(stored.empty(config), *_chunk(), config)
    memory = city(count, config)
    read_jit(memory, scenes.room_camera(), scenes.GRID_HW, config)
    return City(memory, config)


def measure(cities: dict[int, City], rounds: int) -> dict[str, Any]:
    """Time reads and writes at each number of stored rows.

    Args:
        cities: by rows stored, ascending; their memories are used up.
        rounds: timed rounds.

    Returns:
        Milliseconds by count (`behind`, `back`, `holes`, `write`), and their growth from the first
        count to the last (`growth`).
    """
    print("growth: rooms of 1e5 rows, bfloat16 tokens; the camera sees one room")
    ms = _time_reads(cities, _READ_ROUNDS * rounds)
    for count, (memory, config) in cities.items():
        times = ms[f"{count:.0e}"]
        times["write"] = _time_write(memory, config, rounds)
        print(f"  {count:>10,} rows: " + _listed(times) + " ms")
    first, last = (list(ms.values())[i] for i in (0, -1))
    growth = {name: round(last[name] / first[name], 2) for name in first}
    print(f"  last over first: {_listed(growth)}")
    return {"ms": ms, "growth": growth}


def city(rows: int, config: MemoryConfig) -> LatentMemory:
    """Return a memory of whole rooms, 1e5 rows each."""
    memory = stored.empty(config)
    for number in range(rows // _ROOM_ROWS):
        points = scenes.city_room(number, _ROOM_ROWS)
        memory = stored.extend(memory, points, config, number * _ROOM_ROWS)
    return memory


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in values.items())


def _time_reads(cities: dict[int, City], rounds: int) -> dict[str, dict[str, float]]:
    """Return the milliseconds of each read, by rows stored; all of them take turns."""
    behind = scenes.room_camera()
    near = behind.cam_to_world + 0
    near[:, :3, 3] += 5 * near[:, :3, 2]
    cameras = {
        "behind": behind,
        "back": scenes.turned(behind, 180),
        "holes": Camera(near, behind.intrinsics),
    }
    calls = {
        f"{count:.0e} {name}": functools.partial(read_jit, memory, camera, scenes.GRID_HW, config)
        for count, (memory, config) in cities.items()
        for name, camera in cameras.items()
    }
    times = timing.interleave(calls, rounds)
    return {f"{n:.0e}": {name: times[f"{n:.0e} {name}"] for name in cameras} for n in cities}


def _time_write(memory: LatentMemory, config: MemoryConfig, rounds: int) -> float:
    """Return the milliseconds of adding a chunk in place; uses the memory up."""
    arguments = _chunk()

    def add() -> WriteReport:
        nonlocal memory
        memory, report = _write_frames(memory, *arguments, config)
        return report

    return timing.interleave({"write": add}, rounds)["write"]


def _chunk() -> tuple[jax.Array, jax.Array, jax.Array, Camera]:
    """Return latents, depth, mask and cameras of nine frames."""
    shape = (_FRAMES, *scenes.GRID_HW)
    return jax.device_put(
        (
            np.zeros((*shape, scenes.CHANNELS), np.float32),
            np.linspace(1, 6, int(np.prod(shape)), dtype=np.float32).reshape(shape),
            np.ones(shape, bool),
            scenes.cameras_along(scenes.room_camera(), _FRAMES),
        )
    )
