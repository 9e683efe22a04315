"""Things that move are kept out of memory, and walls that come into view are not."""

import dataclasses

import jax
import numpy as np
import pytest
from memory.slow_memory import make_camera, room_depth

from mirage_jax.memory import state, write

HW = (12, 16)
UNSEEN = state.MemoryConfig(4000, 3, write_where="unseen", moved_margin=0.2)
ALL = dataclasses.replace(UNSEEN, write_where="all")
write_frames = jax.jit(write.write_frames, static_argnums=5)


def with_ball(depth, frame, column, distance=2.0):
    """Put a ball of four by four cells before the wall of a frame; return depth and its cells."""
    depth, ball = depth.copy(), np.zeros(depth.shape, bool)
    ball[frame, 4:8, column : column + 4] = True
    depth[ball] = distance
    return depth, ball


def put(memory, depth, camera, config, keep=None):
    latents = np.zeros((*depth.shape, 3), np.float32)
    keep = np.ones(depth.shape, bool) if keep is None else keep
    return write_frames(memory, latents, depth, keep, camera, config, 0)


@pytest.mark.parametrize("config", [UNSEEN, ALL])
def test_what_moves_between_the_frames_of_a_write_is_not_written(config):
    camera = make_camera([(0, 0, 0, 0)] * 3, HW)
    depth = room_depth(camera, HW)
    for frame, column in enumerate((1, 6, 11)):
        depth, _ = with_ball(depth, frame, column)
    memory, report = put(state.empty(config), depth, camera, config)
    assert int(report.moved) == 3 * 16
    assert not (np.asarray(memory.depth) == 2.0).any()
    off = dataclasses.replace(config, moved_margin=0.0)
    memory, report = put(state.empty(off), depth, camera, off)
    assert int(report.moved) == 0
    assert (np.asarray(memory.depth) == 2.0).any()


def test_what_stands_where_memory_was_seen_through_is_not_written():
    camera = make_camera([(0, 0, 0, 0)], HW)
    clear = room_depth(camera, HW)
    memory, _ = put(state.empty(UNSEEN), clear, camera, UNSEEN)
    depth, ball = with_ball(clear, 0, 6)
    for config, moved in ((UNSEEN, 16), (dataclasses.replace(UNSEEN, moved_margin=0.0), 0)):
        after, report = put(memory, depth, camera, config)
        assert int(report.moved) == moved
        assert int(report.written) == 16 - moved
        assert int(after.count) == int(memory.count) + 16 - moved


def test_cells_that_are_not_to_be_kept_are_not_counted():
    camera = make_camera([(0, 0, 0, 0)], HW)
    clear = room_depth(camera, HW)
    memory, _ = put(state.empty(UNSEEN), clear, camera, UNSEEN)
    depth, ball = with_ball(clear, 0, 6)
    _, report = put(memory, depth, camera, UNSEEN, keep=~ball)
    assert int(report.moved) == 0


def test_a_wall_that_comes_into_view_from_another_side_is_written():
    # From the right, a wall stands where rows seen from far left show through.
    left, right = make_camera([(-3, 0, 0, 0)], HW), make_camera([(3, 0, 0, 0)], HW)
    memory, _ = put(state.empty(UNSEEN), np.full((1, *HW), 8.0, np.float32), left, UNSEEN)
    wall = np.full((1, *HW), 3.0, np.float32)
    _, report = put(memory, wall, right, UNSEEN)
    assert int(report.moved) == 0
    assert int(report.written) == HW[0] * HW[1]


def test_a_static_room_is_written_whole():
    places = [(0.1 * i, 0, 0.15 * i, 0.05 * i) for i in range(9)]
    camera = make_camera(places, HW)
    _, report = put(state.empty(UNSEEN), room_depth(camera, HW), camera, UNSEEN)
    assert int(report.moved) == 0
