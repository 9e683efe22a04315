"""Rows that know how their cells lay: what a read says of it, against planes traced one by one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from memory.slow_memory import make_camera, room_depth

from mirage_jax.geometry.projection import unproject
from mirage_jax.memory import files, read, state, write
from mirage_jax.memory.axes import pack_axes, unpack_axes

HW = (12, 16)
CONFIG = state.MemoryConfig(capacity=192, channels=2, axes=True)
PLACES = [(0.0, 0.0, 0.0, 0.2), (0.5, 0.1, 1.0, -0.1)]
fast_read = jax.jit(read.read, static_argnums=(2, 3))


def remembered_room(config=CONFIG):
    """Write one frame of a room; return the memory, both cameras and the frame's depth."""
    cameras = make_camera(PLACES, HW)
    first = jax.tree.map(lambda leaf: leaf[:1], cameras)
    depth = room_depth(first, HW)
    latents, keep = np.ones((*depth.shape, 2), np.float32), np.ones(depth.shape, bool)
    memory, _ = write.write_frames(state.empty(config), latents, depth, keep, first, config, 0)
    return memory, cameras, depth


def traced_axes(points, cameras, step=1e-4):
    """Move the picture of each point a little in the first camera; see where it is in the second.

    The surface is that plane of the room on which the point lies; in float64.
    """
    pose, later = np.float64(cameras.cam_to_world)
    matrix = np.float64(cameras.intrinsics[0])
    planes = ((1, 1.0), (1, -1.0), (2, 9.0))
    found = np.zeros((len(points), 3, 2))
    for number, point in enumerate(np.float64(points)):
        axis, level = min(planes, key=lambda plane: abs(point[plane[0]] - plane[1]))
        local = np.linalg.inv(pose) @ [*point, 1.0]
        pixel = matrix @ local[:3] / local[2]
        ends = []
        for moved in ((0, 0), (step, 0), (0, step)):
            ray = pose[:3, :3] @ np.linalg.inv(matrix) @ (pixel + [*moved, 0.0])
            place = pose[:3, 3] + ray * (level - pose[axis, 3]) / ray[axis]
            seen = np.linalg.inv(later) @ [*place, 1.0]
            ends.append([*(matrix @ seen[:3] / seen[2])[:2], np.log(seen[2])])
        found[number] = (np.array(ends[1:]) - ends[0]).T / step
    return found


def test_axes_in_another_view_are_those_of_traced_planes():
    memory, cameras, depth = remembered_room()
    found = jax.tree.map(np.asarray, fast_read(memory, cameras, HW, CONFIG))
    seen = found.visibility[1]
    assert seen.sum() > 15
    # Rows are stored in the order of their cells.
    points = unproject(depth, jax.tree.map(lambda leaf: leaf[:1], cameras)).reshape(-1, 3)
    expected = traced_axes(points[found.index[1][seen]], cameras)
    error = np.abs(found.axes[1][seen] - expected).max((1, 2))
    # Cells beside a corner of the room may lean to the other plane.
    assert np.median(error) < 2e-3
    assert np.mean(error < 0.02) > 0.7
    assert np.abs(expected - np.eye(3, 2)).max((1, 2)).min() > 0.05


def test_in_their_own_view_cells_are_unit_squares():
    memory, cameras, _ = remembered_room()
    found = fast_read(memory, cameras, HW, CONFIG)
    assert found.visibility[0].all()
    square = np.broadcast_to(np.eye(2), (*HW, 2, 2))
    np.testing.assert_allclose(found.axes[0, ..., :2, :], square, atol=2e-3)


def test_rows_that_do_not_know_face_the_camera(tmp_path):
    plain = dataclasses.replace(CONFIG, axes=False)
    memory, cameras, _ = remembered_room(plain)
    assert memory.axes.nbytes == 0
    files.save(tmp_path / "old.safetensors", memory, plain)
    loaded, _ = files.load(tmp_path / "old.safetensors", CONFIG)
    for known, config in ((memory, plain), (loaded, CONFIG)):
        found = fast_read(known, cameras, HW, config)
        facing = jnp.exp(found.scale)[..., None, None] * jnp.eye(3, 2)
        facing = jnp.where(found.visibility[..., None, None], facing, 0.0)
        np.testing.assert_allclose(found.axes, facing, atol=1e-6)


def test_files_keep_axes_bit_for_bit(tmp_path):
    memory, cameras, _ = remembered_room()
    assert np.asarray(memory.axes).any()
    files.save(tmp_path / "m.safetensors", memory, CONFIG)
    loaded, config = files.load(tmp_path / "m.safetensors")
    one, other = (fast_read(known, cameras, HW, config).axes for known in (memory, loaded))
    np.testing.assert_array_equal(one, other)


def test_packed_axes_are_the_numbers_rounded_to_half_precision():
    axes = np.random.default_rng(0).normal(size=(50, 3, 2)).astype(np.float32)
    rounded = axes.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(unpack_axes(pack_axes(jnp.asarray(axes))), rounded)
