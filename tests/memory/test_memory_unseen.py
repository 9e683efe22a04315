"""What "unseen" holds back: what the memory shows within the extent of a cell, and nothing else."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from memory.slow_memory import make_camera, random_cameras, room_depth, slow_unseen

from mirage_jax.memory import read, state, write
from mirage_jax.memory.unseen import unseen

HW = (12, 16)
CONFIG = state.MemoryConfig(2000, 3, write_where="unseen", seen_by="extent")
write_frames = jax.jit(write.write_frames, static_argnums=5)
fast_read = jax.jit(read.read, static_argnums=(2, 3))


@functools.partial(jax.jit, static_argnums=3)
def fast_unseen(memory, depth, camera, config):
    return unseen(read.read(memory, camera, HW, config), depth, config)


def post_depth(camera):
    """Return the depth of the room with a post in it, 1 wide, at z = 4."""
    ray = (np.arange(HW[1]) + 0.5 - HW[1] / 2) / (0.8 * HW[1])
    x, z = camera.cam_to_world[:, 0, 3, None, None], camera.cam_to_world[:, 2, 3, None, None]
    post = np.abs(x + ray * (4 - z)) < 0.5
    return np.where(post, np.minimum(room_depth(camera, HW), 4 - z), room_depth(camera, HW))


def remember(camera, depth, memory=None):
    memory = state.empty(CONFIG) if memory is None else memory
    latents = np.zeros((*depth.shape, 3), np.float32)
    return write_frames(memory, latents, depth, depth > 0, camera, CONFIG, 0)


def test_unseen_equals_a_loop_over_cells():
    rng = np.random.default_rng(0)
    camera = make_camera([(0, 0, 0, 0)], HW)
    memory, _ = remember(camera, post_depth(camera))
    shares = []
    for view in range(4):
        camera = random_cameras(rng, 1, HW)
        depth = (room_depth(camera, HW) * rng.choice([0.5, 1, 1, 1, 2], (1, *HW))).astype("f4")
        depth[0, 2, 3:6], depth[0, 5, 5], depth[0, 7, 8] = 0, np.nan, np.inf
        found = fast_read(memory, camera, HW, CONFIG)
        want = slow_unseen(
            np.asarray(found.depth[0]), np.asarray(found.visibility[0]), depth[0], CONFIG.shell
        )
        got = np.asarray(fast_unseen(memory, depth, camera, CONFIG))[0]
        np.testing.assert_array_equal(got, want, err_msg=f"view {view}")
        assert got[~np.isfinite(depth[0]) | (depth[0] == 0)].all()
        shares.append(got.mean())
    assert 0.1 < np.mean(shares) < 0.95


def test_something_new_in_front_of_or_behind_what_is_known_is_unseen():
    camera = make_camera([(0, 0, 0, 0)], HW)
    depth = room_depth(camera, HW)
    memory, _ = remember(camera, depth)
    assert not fast_unseen(memory, depth, camera, CONFIG).any()
    for factor in (0.5, 0.8, 2.0):
        assert fast_unseen(memory, depth * np.float32(factor), camera, CONFIG).mean() > 0.3
    wide = dataclasses.replace(CONFIG, shell=1.5)
    assert not fast_unseen(memory, depth * np.float32(0.8), camera, wide).any()


@pytest.mark.parametrize(("select", "most"), [("nearest", 0.05), ("best_view", 0.02)])
def test_walking_the_same_round_again_adds_next_to_nothing(select, most):
    # Large cells on floors at a slant: by the depth at the centre most of the round is written
    # again. The bounds are the aim for revisits, and less where older rows may pass the surface.
    around = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    places = [(1.5 * np.sin(a), 0.3 * np.sin(2 * a), np.sin(a + 1) - 1, 0) for a in around]
    camera = make_camera(places, HW)
    depth = post_depth(camera)
    config = dataclasses.replace(CONFIG, capacity=4000, select=select)
    latents = np.zeros((*depth.shape, 3), np.float32)
    memory, counts = state.empty(config), []
    for _ in range(2):
        memory, _ = write_frames(memory, latents, depth, depth > 0, camera, config, 0)
        counts.append(int(memory.count))
    assert counts[0] > 500
    assert counts[1] <= (1 + most) * counts[0]
