"""Bytes of a 20-chunk rollout that comes back to where it was, beside a cache of pixels.

The camera walks round a procedural room for five chunks and back, and once more: the second lap
takes the same poses, or in *between* those halfway. Depth is exact, on the release's grid (44x80
cells of 16x16 pixels); every fourth frame is a latent frame.

Coverage is measured in views a quarter of a step off the poses: the share of still cells that show
a row within 5 % of the true depths inside the cell, so that what is seen through a hole does not
count. The RGB cache appends, as RGB pipelines do, every pixel of each latent frame: xyz in float32
and rgb in uint8, 15 bytes. Its coverage is measured in the same views on the same cells, from a
quarter of its pixels. *First way* is that cache after the first walk out, as if coming back cost
nothing; *deduplicated* one of just the pixels whose cells ours holds.

Read next: `balance.py`.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.memory import scenes, stored
from benchmarks.memory.read_speed import read_jit
from mirage_jax.data import procedural
from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.projection import project, unproject
from mirage_jax.memory.files import nbytes
from mirage_jax.memory.state import LatentMemory, MemoryConfig
from mirage_jax.memory.write import write_frames

CHUNKS, REVISIT = 20, 10
_NEW_FRAMES, _LEG_CHUNKS = 8, 5
# Latent frames until the camera first turns back.
FIRST_WAY = 1 + _LEG_CHUNKS * _NEW_FRAMES
_PIXELS_PER_CELL, _PIXEL_BYTES = 256, 15
_RIGHT_DEPTH = 0.05
_SEED = 3
# Rays per cell side from which the range of depths inside a cell is known.
_FINE = 4


_write = jax.jit(write_frames, static_argnums=5, donate_argnums=0)


class Frames(NamedTuple):
    """Cameras [f], their depth [f, h, w] in metres, and what stands still."""

    camera: Camera
    depth: np.ndarray
    static: np.ndarray


class Views(NamedTuple):
    """Cameras [f] to measure coverage in, the depths inside each cell, and what stands still."""

    camera: Camera
    least: np.ndarray
    greatest: np.ndarray
    static: np.ndarray


class Usage(NamedTuple):
    """What a memory took: rows and bytes after each chunk."""

    rows: list[int]
    bytes: list[int]


def policies() -> dict[str, MemoryConfig]:
    """Return the configs that are compared; the first is the one the ratios are stated for."""
    capacity = (1 + CHUNKS * _NEW_FRAMES) * scenes.GRID_HW[0] * scenes.GRID_HW[1]
    plain = MemoryConfig(capacity, scenes.CHANNELS, token_dtype="bfloat16")
    unseen = dataclasses.replace(plain, write_where="unseen", seen_by="extent")
    return {"unseen": unseen, "append": plain}


def measure(names: tuple[str, ...], views: int, quick: bool = False) -> dict[str, Any]:
    """Run the rollout under each policy and compare bytes and coverage with the RGB cache.

    Args:
        names: of `policies`.
        views: views in which coverage is measured.
        quick: leave out the second lap between the poses.

    Returns:
        Figures by policy, and of the RGB cache.
    """
    walk = render(walk_poses(), scenes.GRID_HW)
    between = None if quick else render(walk_poses(second_lap=0.5), scenes.GRID_HW)
    places = walk_poses(shift=0.25)
    held_out = views_of(places[np.linspace(0, len(places) - 2, views).astype(int)])
    pixels = int(walk.static.sum()) * _PIXELS_PER_CELL
    rgb = {"bytes": pixels * _PIXEL_BYTES, "coverage": round(rgb_coverage(walk, held_out), 4)}
    print(f"rollout: {CHUNKS} chunks, out and back twice; rgb cache {_described(rgb)}")
    result: dict[str, Any] = {"rgb": rgb}
    for name in names:
        config = policies()[name]
        memory, usage = remember(walk, config)
        shown, closed = coverage(memory, held_out, config)
        result[name] = _figures(usage, shown, rgb["bytes"])
        result[name]["coverage_holes_closed"] = round(closed, 4)
        if between is not None:
            result[name]["revisit_growth_between"] = _growth(remember(between, config)[1])
        once = int(walk.static[:FIRST_WAY].sum()) * _PIXELS_PER_CELL * _PIXEL_BYTES
        result[name]["ratio_vs_rgb_first_way"] = round(once / usage.bytes[-1], 1)
        print(f"  {name}: {_described(result[name])}")
    return result


def walk_poses(shift: float = 0.0, second_lap: float = 0.0) -> np.ndarray:
    """Return camera poses [161, 4, 4] of a walk out and back, twice.

    Args:
        shift: steps by which all poses are later on the path.
        second_lap: further steps of the second lap.
    """
    config = procedural.ProceduralConfig()
    count, leg = 1 + CHUNKS * _NEW_FRAMES, _LEG_CHUNKS * _NEW_FRAMES
    step = np.arange(count) + shift + second_lap * (np.arange(count) >= 2 * leg)
    along = 1 - np.abs(step % (2 * leg) - leg) / leg
    angle = 0.4 + 2.6 * along
    yaw = angle + math.pi / 2 + 0.7 + 0.5 * np.sin(2 * np.pi * along)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, 0, 3] = config.room[0] * (0.5 + 0.3 * np.cos(angle))
    poses[:, 1, 3] = config.room[1] * (0.5 + 0.3 * np.sin(angle))
    poses[:, 2, 3] = 1.5
    poses[:, :3, 0] = np.stack([np.sin(yaw), -np.cos(yaw), 0 * yaw], axis=-1)
    poses[:, :3, 1] = (0, 0, -1)
    poses[:, :3, 2] = np.stack([np.cos(yaw), np.sin(yaw), 0 * yaw], axis=-1)
    return poses


def render(poses: np.ndarray, hw: tuple[int, int]) -> Frames:
    """Return exact depth of the room on an h x w grid."""
    config = procedural.ProceduralConfig(height=hw[0], width=hw[1], supersample=1, focal=0.75)
    scene = procedural.make_scene(_SEED, config)
    views = [procedural.render_depth(scene, pose, config) for pose in poses]
    intrinsics = np.broadcast_to(config.intrinsics, (len(poses), 3, 3))
    return Frames(
        Camera(poses.astype(np.float32), np.ascontiguousarray(intrinsics)),
        np.stack([depth for depth, _ in views]).astype(np.float32),
        np.stack([~moving for _, moving in views]),
    )


def views_of(poses: np.ndarray) -> Views:
    """Return views on the grid, with the range of depths inside each cell."""
    height, width = scenes.GRID_HW
    fine = render(poses, (_FINE * height, _FINE * width))
    cells = (len(poses), height, _FINE, width, _FINE)
    depth, static = fine.depth.reshape(cells), fine.static.reshape(cells)
    camera = render(poses[:1], scenes.GRID_HW).camera
    intrinsics = np.repeat(camera.intrinsics, len(poses), axis=0)
    return Views(
        Camera(poses.astype(np.float32), intrinsics),
        depth.min(axis=(2, 4)),
        depth.max(axis=(2, 4)),
        static.all(axis=(2, 4)),
    )


def remember(walk: Frames, config: MemoryConfig) -> tuple[LatentMemory, Usage]:
    """Write a walk chunk by chunk."""
    memory = stored.empty(config)
    rows, size = [], []
    for chunk in range(CHUNKS):
        first = chunk * _NEW_FRAMES
        part = jax.tree.map(lambda leaf, i=first: leaf[i : i + _NEW_FRAMES + 1], walk)
        # Later chunks start with the last frame of the one before, which is stored already.
        keep = part.static & ((np.arange(_NEW_FRAMES + 1) > 0) | (chunk == 0))[:, None, None]
        latents = np.zeros((*part.depth.shape, config.channels), np.float32)
        times = np.arange(first, first + _NEW_FRAMES + 1, dtype=np.int32)
        memory, _ = _write(memory, latents, part.depth, keep, part.camera, config, times)
        rows.append(int(memory.count))
        size.append(nbytes(memory).used)
    return memory, Usage(rows, size)


def coverage(memory: LatentMemory, views: Views, config: MemoryConfig) -> tuple[float, float]:
    """Return the share of still cells that show a row at the right depth, and with holes closed."""
    closing = dataclasses.replace(config, close_holes=True)
    depth, closed = np.zeros_like(views.least), np.zeros_like(views.least)
    for i in range(len(depth)):
        camera = jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], views.camera)
        found = read_jit(memory, camera, scenes.GRID_HW, closing)
        closed[i] = found.depth[0]
        # Closed cells have no row.
        depth[i] = np.where(found.index[0] >= 0, closed[i], 0.0)
    return share_right(depth, views), share_right(closed, views)


def rgb_coverage(walk: Frames, views: Views) -> float:
    """Return the same share for a cache of pixels, from a quarter of each frame's sides."""
    fine = tuple(_FINE * side for side in scenes.GRID_HW)
    nearest = np.full((len(views.least), views.least[0].size), np.inf, np.float32)
    # The second lap and the ways back repeat the poses of the first way out.
    for pose in np.asarray(walk.camera.cam_to_world[:FIRST_WAY]):
        frame = render(pose[None], fine)
        points = unproject(frame.depth, frame.camera)[frame.static]
        for i in range(len(nearest)):
            camera = Camera(*(leaf[i] for leaf in views.camera))
            _nearest_depth(nearest[i], points, camera, scenes.GRID_HW)
    return share_right(nearest.reshape(views.least.shape), views)


def _nearest_depth(
    nearest: np.ndarray, points: np.ndarray, camera: Camera, hw: tuple[int, int]
) -> None:
    """Lower `nearest` [cells] in place to the depth of the points that fall there."""
    uv, depth = project(points, camera)
    corner = np.floor(uv)
    inside = (depth > 0) & (corner >= 0).all(axis=-1) & (corner < hw[::-1]).all(axis=-1)
    cell = (corner[inside, 1] * hw[1] + corner[inside, 0]).astype(np.int64)
    np.minimum.at(nearest, cell, depth[inside])


def share_right(depth: np.ndarray, views: Views) -> float:
    """Return the share of still cells whose depth is among those inside the cell, 5 % about."""
    right = depth >= (1 - _RIGHT_DEPTH) * views.least
    right &= depth <= (1 + _RIGHT_DEPTH) * views.greatest
    return float((right & views.static).sum() / views.static.sum())


def _growth(usage: Usage) -> float:
    """Return how many rows the second lap added, as a share of those before it."""
    return round(usage.rows[-1] / usage.rows[REVISIT - 1] - 1, 4)


def _figures(usage: Usage, shown: float, rgb_bytes: int) -> dict[str, Any]:
    row_bytes = usage.bytes[-1] / usage.rows[-1]
    return {
        "bytes": usage.bytes[-1],
        "bytes_per_chunk": usage.bytes,
        "row_bytes": round(row_bytes, 1),
        "coverage": round(shown, 4),
        "revisit_growth": _growth(usage),
        "ratio_vs_rgb": round(rgb_bytes / usage.bytes[-1], 1),
        "ratio_vs_rgb_deduplicated": round(_PIXELS_PER_CELL * _PIXEL_BYTES / row_bytes, 1),
    }


def _described(figures: dict[str, Any]) -> str:
    shown = {name: value for name, value in figures.items() if not isinstance(value, list)}
    return ", ".join(f"{name} {value:,}" for name, value in shown.items())
