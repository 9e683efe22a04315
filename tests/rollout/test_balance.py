"""Partitions that fill: rows move to those that have room, and nothing that is seen changes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from tiny_world import batched, flat_scene, sideways_and_back, tiny_world

from mirage_jax.eval.views import stack_starts
from mirage_jax.geometry.camera import Camera
from mirage_jax.memory import read, state, write
from mirage_jax.memory.rows import balance, rows_in_order
from mirage_jax.rollout import loop
from mirage_jax.rollout.balance import make_room
from mirage_jax.rollout.chunk import Providers

HW = (6, 8)
CONFIG = state.MemoryConfig(640, 3, partitions=4, page_rows=16, voxel_size=0.2, retention="newest")


def rows_at(rng, count, shift):
    positions = rng.uniform(-1, 1, (count, 3)).astype(np.float32) + np.float32([shift, 0, 4])
    return write.Rows(
        positions=jnp.asarray(positions),
        tokens=jnp.asarray(rng.normal(size=(count, 3)), jnp.float32),
        keep=jnp.ones(count, bool),
        origin=jnp.zeros((count, 3)),
        depth=jnp.asarray(positions[:, 2]),
        time=jnp.zeros(count, jnp.int32),
    )


def walked():
    """Return two memories: one of a walk that leads away, and one that stayed."""
    rng = np.random.default_rng(0)
    away, stayed = state.empty(CONFIG), state.empty(CONFIG)
    add = jax.jit(lambda memory, rows: write.write(memory, rows, CONFIG)[0])
    for step in range(3):
        away = add(away, rows_at(rng, 60, 5.0 * step))
    stayed = add(stayed, rows_at(rng, 60, 0.0))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), away, stayed)


def member(memories, index):
    return jax.tree.map(lambda leaf: leaf[index], memories)


def test_a_full_partition_gives_rows_away_and_shows_the_same():
    memories = walked()
    away = member(memories, 0)
    assert balance(away) > 1.3
    free = int(CONFIG.room - np.asarray(away.filled).max())
    made = make_room(memories, CONFIG, free + 1)
    even = member(made, 0)
    assert balance(even) < 1.3
    jax.tree.map(np.testing.assert_array_equal, rows_in_order(away), rows_in_order(even))
    jax.tree.map(np.testing.assert_array_equal, member(memories, 1), member(made, 1))
    pose = jnp.eye(4)[None].at[0, 0, 3].set(3.0)
    lens = jnp.array([[[6.0, 0, 4], [0, 6.0, 3], [0, 0, 1]]])
    look = jax.jit(lambda memory: read.read(memory, Camera(pose, lens), HW, CONFIG))
    before, after = look(away), look(even)
    assert before.visibility.any()
    for name in ("tokens", "visibility", "depth"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))


def test_memories_with_room_are_left_as_they_are():
    memories = walked()
    assert make_room(memories, CONFIG, 1) is memories


def test_what_cannot_be_shared_is_kept():
    rng = np.random.default_rng(1)
    config = state.MemoryConfig(64, 3, partitions=2, page_rows=8)
    rows = rows_at(rng, 30, 0.0)
    crowd = rows._replace(positions=jnp.broadcast_to(rows.positions[:1], rows.positions.shape))
    memory = write.write(state.empty(config), crowd, config)[0]
    stacked = jax.tree.map(lambda leaf: leaf[None], memory)
    kept = make_room(stacked, config, 40)
    jax.tree.map(np.testing.assert_array_equal, stacked, kept)


def test_a_walk_that_leads_away_loses_no_rows(monkeypatch):
    # The borders are drawn in the first view; all that follows lies beyond the last of them.
    config = state.MemoryConfig(320, tiny_world().spec.memory.channels, partitions=4, page_rows=16)
    spec = dataclasses.replace(tiny_world().spec, memory=config)
    world = dataclasses.replace(tiny_world(), spec=spec)

    def wall(chunk, observation, latents):
        depth = np.full(latents.shape[:-1], 4.0, np.float32)
        return depth, np.ones(depth.shape, bool)

    def noise(chunk, observation, inputs, noise):
        return np.asarray(noise)

    def lost():
        path, start = batched(sideways_and_back(33, reach=30.0)), stack_starts([flat_scene()])
        ways = Providers(latents=noise, depth=wall)
        last = list(loop.rollout(world, start, path, loop.RolloutConfig(), providers=ways))[-1]
        return int(last.dropped[0]), int(last.rows[0])

    dropped, rows = lost()
    assert dropped == 0
    monkeypatch.setattr(loop, "make_room", lambda memory, config, rows: memory)
    without, fewer = lost()
    assert without > 0
    assert rows == fewer + without
