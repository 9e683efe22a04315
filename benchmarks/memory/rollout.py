"""Bytes of a 20-chunk rollout that comes back to where it was, beside a cache of pixels.

The camera walks round a procedural room for five chunks and back, twice. No pose repeats exactly:
on every lap it looks a little elsewhere from a little beside. Depth is exact, on the release's grid
(44x80 cells of 16x16 pixels); every fourth frame is a latent frame.

Coverage is the share of cells of views between the rollout's own, every second lap's poses shifted
by half a step, that show a row within 5 % of the true depth: a row seen through a hole does not
count. The RGB cache keeps xyz in float32 and rgb in uint8, 15 bytes, of every pixel of each latent
frame, which is what RGB pipelines append; its coverage is measured on a quarter of the resolution
in views of that resolution. *Deduplicated* is the cache that holds only pixels of the cells our
memory holds.

Read next: `balance.py`.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.memory import scenes
from benchmarks.memory.read_speed import read_jit
from mirage_jax.data import procedural
from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.projection import project, unproject
from mirage_jax.memory.files import nbytes
from mirage_jax.memory.state import LatentMemory, MemoryConfig, empty
from mirage_jax.memory.write import write_frames

CHUNKS, REVISIT = 20, 10
_NEW_FRAMES, _LEG_CHUNKS = 8, 5
_PIXELS_PER_CELL, _PIXEL_BYTES = 256, 15
_RIGHT_DEPTH = 0.05
_SEED = 3
_QUARTER = 4


class Frames(NamedTuple):
    """Cameras [f], their depth [f, h, w] in metres, and what stands still."""

    camera: Camera
    depth: np.ndarray
    static: np.ndarray


class Usage(NamedTuple):
    """What a memory took: rows and bytes after each chunk, and its coverage of the views."""

    rows: list[int]
    bytes: list[int]
    coverage: float


def policies() -> dict[str, MemoryConfig]:
    """Return the configs that are compared; the first is the one the ratios are stated for."""
    capacity = (1 + CHUNKS * _NEW_FRAMES) * scenes.GRID_HW[0] * scenes.GRID_HW[1]
    plain = MemoryConfig(capacity, scenes.CHANNELS, token_dtype="bfloat16")
    return {
        "unseen": dataclasses.replace(plain, write_where="unseen"),
        "voxel": dataclasses.replace(plain, retention="voxel", voxel_size=0.08),
        "append": plain,
    }


def measure(names: tuple[str, ...] = ("unseen", "voxel", "append"), views: int = 24) -> dict:
    """Run the rollout under each policy and compare bytes and coverage with the RGB cache.

    Args:
        names: of `policies`.
        views: views in which coverage is measured.

    Returns:
        Figures by policy, and of the RGB cache.
    """
    walk = render(walk_places(CHUNKS * _NEW_FRAMES + 1), scenes.GRID_HW)
    places = walk_places(CHUNKS * _NEW_FRAMES + 1, shift=0.5)
    places = places[np.linspace(0, len(places) - 2, views).astype(int)]
    held_out = render(places, scenes.GRID_HW)
    used = {name: remember(walk, held_out, policies()[name]) for name in names}
    pixels = int(walk.static.sum()) * _PIXELS_PER_CELL
    rgb = {"bytes": pixels * _PIXEL_BYTES, "coverage": round(rgb_coverage(walk, places), 4)}
    print(f"rollout: {CHUNKS} chunks, out and back twice; rgb cache {_described(rgb)}")
    result: dict[str, Any] = {"rgb": rgb}
    for name, usage in used.items():
        result[name] = _figures(usage, rgb["bytes"])
        print(f"  {name}: {_described(result[name])}")
    return result


def walk_places(count: int, shift: float = 0.0) -> np.ndarray:
    """Return camera poses [count, 4, 4] of a walk out and back, twice, never quite the same."""
    config = procedural.ProceduralConfig()
    step = np.arange(count) + shift
    leg = _LEG_CHUNKS * _NEW_FRAMES
    along = leg - np.abs(step % (2 * leg) - leg)
    lap = step // leg
    angle = 0.4 + 2.6 * along / leg
    radius = 0.30 + 0.004 * np.sin(1.7 * lap + 0.05 * step)
    yaw = angle + math.pi / 2 + 0.7 + 0.5 * np.sin(2 * np.pi * along / leg) + 0.03 * np.sin(lap)
    size = np.array(config.room)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, 0, 3] = size[0] * (0.5 + radius * np.cos(angle))
    poses[:, 1, 3] = size[1] * (0.5 + radius * np.sin(angle))
    poses[:, 2, 3] = 1.5 + 0.02 * np.sin(lap)
    poses[:, :3, 0] = np.stack([np.sin(yaw), -np.cos(yaw), 0 * yaw], axis=-1)
    poses[:, :3, 1] = (0, 0, -1)
    poses[:, :3, 2] = np.stack([np.cos(yaw), np.sin(yaw), 0 * yaw], axis=-1)
    return poses


def render(poses: np.ndarray, hw: tuple[int, int]) -> Frames:
    """Return exact depth of the room on an h x w grid."""
    config = procedural.ProceduralConfig(height=hw[0], width=hw[1], supersample=1, focal=0.75)
    scene = procedural.make_scene(_SEED, config)
    views = [procedural.render_view(scene, pose, config) for pose in poses]
    intrinsics = np.broadcast_to(config.intrinsics, (len(poses), 3, 3))
    return Frames(
        Camera(poses.astype(np.float32), np.ascontiguousarray(intrinsics)),
        np.stack([view.depth for view in views]).astype(np.float32),
        np.stack([~view.moving for view in views]),
    )


def remember(walk: Frames, held_out: Frames, config: MemoryConfig) -> Usage:
    """Write the walk chunk by chunk and read the held-out views at the end."""
    write = jax.jit(write_frames, static_argnums=5, donate_argnums=0)
    memory = empty(config)
    rows, size = [], []
    for chunk in range(CHUNKS):
        first = chunk * _NEW_FRAMES
        part = jax.tree.map(lambda leaf, i=first: leaf[i : i + _NEW_FRAMES + 1], walk)
        # Later chunks start with the last frame of the one before, which is stored already.
        keep = part.static & ((np.arange(_NEW_FRAMES + 1) > 0) | (chunk == 0))[:, None, None]
        latents = np.zeros((*part.depth.shape, config.channels), np.float32)
        times = np.arange(first, first + _NEW_FRAMES + 1, dtype=np.int32)
        memory, _ = write(memory, latents, part.depth, keep, part.camera, config, times)
        rows.append(int(memory.count))
        size.append(nbytes(memory).used)
    return Usage(rows, size, coverage(memory, held_out, config))


def coverage(memory: LatentMemory, views: Frames, config: MemoryConfig) -> float:
    """Return the share of still cells that show a row within 5 % of the true depth."""
    right, total = 0, 0
    for i in range(len(views.depth)):
        camera = jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], views.camera)
        found = read_jit(memory, camera, scenes.GRID_HW, config)
        shown = np.asarray(found.visibility[0]) & _right(found.depth[0], views.depth[i])
        right += int((shown & views.static[i]).sum())
        total += int(views.static[i].sum())
    return right / total


def rgb_coverage(walk: Frames, places: np.ndarray, every: int = 8) -> float:
    """Return the coverage of a cache of all pixels, at a quarter of the resolution.

    Args:
        walk: the rollout.
        places: poses of the held-out views.
        every: only each so-manieth view is measured, since each looks at every pixel stored.
    """
    hw = tuple(_QUARTER * side for side in scenes.GRID_HW)
    views = render(places[::every], hw)
    nearest = np.full((len(views.depth), hw[0] * hw[1]), np.inf, np.float32)
    for start in range(0, len(walk.depth), 8):
        frames = render(np.asarray(walk.camera.cam_to_world[start : start + 8]), hw)
        points = unproject(frames.depth, frames.camera)[frames.static]
        for i in range(len(views.depth)):
            _nearest_depth(nearest[i], points, Camera(*(leaf[i] for leaf in views.camera)), hw)
    shown = _right(nearest.reshape(views.depth.shape), views.depth) & views.static
    return float(shown.sum() / views.static.sum())


def _nearest_depth(
    nearest: np.ndarray, points: np.ndarray, camera: Camera, hw: tuple[int, int]
) -> None:
    """Lower `nearest` [cells] in place to the depth of the points that fall there."""
    uv, depth = project(points, camera)
    corner = np.floor(uv)
    inside = (depth > 0) & (corner >= 0).all(axis=-1) & (corner < hw[::-1]).all(axis=-1)
    cell = (corner[inside, 1] * hw[1] + corner[inside, 0]).astype(np.int64)
    np.minimum.at(nearest, cell, depth[inside])


def _right(depth: Any, truth: np.ndarray) -> np.ndarray:
    return np.abs(np.asarray(depth) - truth) <= _RIGHT_DEPTH * truth


def _figures(usage: Usage, rgb_bytes: int) -> dict[str, Any]:
    row_bytes = usage.bytes[-1] / usage.rows[-1]
    return {
        "bytes": usage.bytes[-1],
        "bytes_per_chunk": usage.bytes,
        "row_bytes": round(row_bytes, 1),
        "coverage": round(usage.coverage, 4),
        "revisit_growth": round(usage.rows[-1] / usage.rows[REVISIT - 1] - 1, 4),
        "ratio_vs_rgb": round(rgb_bytes / usage.bytes[-1], 1),
        "ratio_vs_rgb_deduplicated": round(_PIXELS_PER_CELL * _PIXEL_BYTES / row_bytes, 1),
    }


def _described(figures: dict[str, Any]) -> str:
    shown = {name: value for name, value in figures.items() if not isinstance(value, list)}
    return ", ".join(f"{name} {value:,}" for name, value in shown.items())
