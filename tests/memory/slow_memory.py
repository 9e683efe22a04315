"""Slow float64 NumPy twins of the memory's operations, and random scenes to compare them on.

Written from the definitions (matrix inverse, one row at a time), not from the package's code.
"""

import numpy as np

from mirage_jax.geometry.camera import Camera
from mirage_jax.memory import rows as rows_lib
from mirage_jax.memory import write

EDGE = 1e-4  # float32 may put a projection this close to a cell's edge into either cell


def rotation(yaw, pitch=0.0):
    """Return a world-from-camera rotation: turn right by yaw, then look down by pitch."""
    c, s, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ np.array(
        [[1, 0, 0], [0, cp, -sp], [0, sp, cp]]
    )


def make_camera(places, hw, focal=0.8):
    """Return cameras [t] from a list of (x, y, z, yaw)."""
    poses = np.tile(np.eye(4), (len(places), 1, 1))
    for pose, (x, y, z, yaw) in zip(poses, places, strict=True):
        pose[:3, :3], pose[:3, 3] = rotation(yaw), (x, y, z)
    h, w = hw
    matrix = np.array([[focal * w, 0, w / 2], [0, focal * w, h / 2], [0, 0, 1]])
    tiled = np.tile(matrix, (len(places), 1, 1))
    return Camera(poses.astype(np.float32), tiled.astype(np.float32))


def random_cameras(rng, count, hw):
    """Return cameras near the origin that look roughly forward."""
    places = [(*rng.normal(size=3) * 0.4, rng.normal() * 0.3) for _ in range(count)]
    return make_camera(places, hw)


def room_depth(camera, hw, half=0.5):
    """Return z-depth [t, h, w] of a floor 1 below, a ceiling 1 above, and a wall at z = 9."""
    v, u = np.meshgrid(np.arange(hw[0]) + half, np.arange(hw[1]) + half, indexing="ij")
    pixel = np.stack([u, v, np.ones_like(u)], -1)
    depths = []
    for pose, matrix in zip(np.float64(camera[0]), np.float64(camera[1]), strict=True):
        ray = pixel @ np.linalg.inv(matrix).T @ pose[:3, :3].T
        with np.errstate(divide="ignore", invalid="ignore"):
            hits = [
                (1 - pose[1, 3]) / ray[..., 1],
                (-1 - pose[1, 3]) / ray[..., 1],
                (9 - pose[2, 3]) / ray[..., 2],
            ]
        depths.append(np.min([np.where(hit > 0, hit, np.inf) for hit in hits], axis=0))
    return np.stack(depths).astype(np.float32)


def random_memory(rng, config, count):
    """Return a memory of random rows, some exactly doubled so that depths tie."""
    c = config.channels
    positions = rng.normal(size=(count, 3)) * [2, 1.5, 3] + [0, 0, 3]
    if count:
        twins = rng.integers(0, count, count // 4)
        positions[rng.integers(0, count, count // 4)] = positions[twins]
    return rows_lib.from_rows(
        rows_lib.StoredRows(
            positions=positions.astype(np.float32),
            tokens=rng.normal(size=(count, c)).astype(np.float32),
            origin=(rng.normal(size=(count, 3)) * 0.3).astype(np.float32),
            depth=rng.uniform(1, 6, count).astype(np.float32),
            time=rng.integers(0, 50, count).astype(np.int32),
            weight=np.ones(count, np.float32),
            axes=make_axes(count),
        ),
        config,
    )


def by_age(memory, index):
    """Turn row numbers into places in `rows_in_order`; -1 stays -1."""
    places = np.full(memory.order.size + 1, -1)
    number = rows_lib.row_numbers(memory)
    places[number] = np.arange(len(number))
    return places[np.asarray(index)]


def make_axes(count):
    """Return steps in the world of as many rows."""
    return np.random.default_rng(count).normal(size=(count, 3, 2)).astype(np.float16)


def make_rows(rng, count, channels, spread=1.0):
    """Return storable random rows."""
    return write.Rows(
        positions=(rng.normal(size=(count, 3)) * spread).astype(np.float32),
        tokens=rng.normal(size=(count, channels)).astype(np.float32),
        origin=rng.normal(size=(count, 3)).astype(np.float32),
        depth=rng.uniform(0.5, 9, count).astype(np.float32),
        time=np.arange(count, dtype=np.int32),
        keep=np.ones(count, bool),
        axes=rows_lib.words_of(make_axes(count)),
    )


def slow_project(points, pose, matrix):
    """Return (u, v, z) of world points [n, 3] in float64."""
    local = (np.float64(points) - np.float64(pose)[:3, 3]) @ np.linalg.inv(
        np.float64(pose)[:3, :3]
    ).T
    with np.errstate(divide="ignore", invalid="ignore"):
        image = local @ np.float64(matrix).T
        return image[:, 0] / image[:, 2], image[:, 1] / image[:, 2], local[:, 2]


def slow_cells(memory, camera, frame, hw, half_cell=True):
    """Return each row's cell (or -1) and depth, oldest first, and cells with rows on an edge."""
    positions = rows_lib.rows_in_order(memory).positions
    pose, matrix = camera.cam_to_world[frame], camera.intrinsics[frame]
    u, v, z = slow_project(positions, pose, matrix)
    shift = 0.0 if half_cell else 0.5
    column, row = np.floor(u + shift), np.floor(v + shift)
    inside = (z > 0) & (column >= 0) & (column < hw[1]) & (row >= 0) & (row < hw[0])
    cell = np.where(inside, row * hw[1] + column, -1).astype(int)
    near_edge = np.zeros(hw, bool)
    for i in np.flatnonzero(z > -EDGE):
        du, dv = u[i] + shift - np.round(u[i] + shift), v[i] + shift - np.round(v[i] + shift)
        if abs(du) < EDGE or abs(dv) < EDGE:
            for a in {np.floor(v[i] + shift - EDGE), np.floor(v[i] + shift + EDGE)}:
                for b in {np.floor(u[i] + shift - EDGE), np.floor(u[i] + shift + EDGE)}:
                    if 0 <= a < hw[0] and 0 <= b < hw[1]:
                        near_edge[int(a), int(b)] = True
    return cell, z, near_edge


def slow_read(memory, camera, frame, hw, half_cell=True):
    """Return the grid of nearest rows, numbered by age, and where float32 may decide otherwise."""
    cell, z, unsure = slow_cells(memory, camera, frame, hw, half_cell)
    index = np.full(hw[0] * hw[1], -1)
    for row, where in enumerate(cell):
        if where >= 0 and (index[where] < 0 or z[row] < z[index[where]]):
            index[where] = row
    return index.reshape(hw), unsure


def slow_merge(stored, new, size, capacity):
    """Return which rows of stored + new a voxel memory holds, how many merged, how many dropped."""
    last, known = {}, set()
    for i, position in enumerate(np.concatenate([stored, new])):
        voxel = tuple(np.floor(position / np.float32(size)).astype(int))
        last[voxel] = i
        if i < len(stored):
            known.add(voxel)
    room, kept, dropped = capacity - len(known), [], 0
    for voxel, i in sorted(last.items(), key=lambda item: item[1]):
        if voxel in known or room > 0:
            room -= voxel not in known
            kept.append(i)
        else:
            dropped += 1
    return kept, len(stored) + len(new) - len(last), dropped


def slow_unseen(found, visible, depth, shell):
    """Return the unseen cells of one frame, cell by cell, from the depths that a read found."""
    fresh = np.ones(depth.shape, bool)
    for i, j in np.argwhere(visible & np.isfinite(depth) & (depth > 0)):
        around = np.float64(depth[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2])
        around = around[np.isfinite(around) & (around > 0)]
        middles = 2 / (1 / np.float64(depth[i, j]) + 1 / around)
        low, high = [around.min()], [middles.max()]
        height, width = depth.shape
        for place, size, inner in (
            (i, height, (1 if i == 0 else -2, j)),
            (j, width, (i, 1 if j == 0 else -2)),
        ):
            if place in (0, size - 1) and np.isfinite(depth[inner]) and depth[inner] > 0:
                # Half a cell further out, where the slope goes on; no farther than twice as far.
                outer = 1.5 / np.float64(depth[i, j]) - 0.5 / np.float64(depth[inner])
                outer = max(outer, 0.5 / np.float64(depth[i, j]))
                low.append(1 / outer)
                high.append(1 / outer)
        low, high = min(low) * (1 - shell), max(high) * (1 + shell)
        fresh[i, j] = not low <= found[i, j] <= high
    return fresh
