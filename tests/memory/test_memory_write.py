"""Properties of writing: bounded, ordered, filtered, and honest about what was left out."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from memory.slow_memory import make_camera, make_rows, room_depth, slow_merge

from mirage_jax.memory import read, state, write
from mirage_jax.memory.rows import rows_in_order

HW = (6, 8)
APPEND = state.MemoryConfig(capacity=100, channels=3, page_rows=16)
VOXEL = dataclasses.replace(APPEND, retention="newest", voxel_size=0.5)
LENGTH = 80  # rows per write: one length for all tests compiles once
compiled_write = jax.jit(write.write, static_argnums=2)
unproject_rows = jax.jit(write.unproject_rows, static_argnums=4)
unseen = jax.jit(write.unseen, static_argnums=2)
fast_read = jax.jit(read.read, static_argnums=(2, 3))
write_frames = jax.jit(write.write_frames, static_argnums=5)


def fast_write(memory, rows, config):
    """Write with rows padded to one length by rows that are not kept."""
    missing = LENGTH - len(rows.keep)
    padded = jax.tree.map(lambda x: np.pad(x, [(0, missing)] + [(0, 0)] * (np.ndim(x) - 1)), rows)
    return compiled_write(memory, padded, config)


def concatenate_rows(*parts):
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def assert_holds(memory, rows, kept):
    """Check that the memory holds exactly these rows, in order."""
    assert int(memory.count) == len(kept)
    stored = rows_in_order(memory)
    for name in ("positions", "tokens", "origin", "depth", "time"):
        np.testing.assert_array_equal(getattr(stored, name), np.asarray(getattr(rows, name))[kept])


def test_append_is_bounded_and_reports_drops():
    rng = np.random.default_rng(0)
    memory, kept, seen, offset = state.empty(APPEND), [], [], 0
    for count in (40, 0, 50, 30, 20):
        rows = make_rows(rng, count, 3)._replace(keep=rng.random(count) < 0.8)
        seen.append(rows)
        storable = np.flatnonzero(rows.keep)
        room = APPEND.capacity - len(kept)
        memory, report = fast_write(memory, rows, APPEND)
        assert int(report.written) == min(room, len(storable))
        assert int(report.dropped) == max(len(storable) - room, 0)
        assert int(report.merged) == 0
        kept += (offset + storable[:room]).tolist()
        offset += count
    assert len(kept) == APPEND.capacity
    assert_holds(memory, concatenate_rows(*seen), kept)
    total = sum(int(rows.keep.sum()) for rows in seen)
    assert int(memory.dropped) == total - APPEND.capacity


@pytest.mark.parametrize("capacity", [100, 17])
@pytest.mark.parametrize("spread", [0.3, 1.0, 4.0])
def test_voxel_keeps_the_newest_row_of_each_voxel(capacity, spread):
    config = dataclasses.replace(VOXEL, capacity=capacity)
    rng = np.random.default_rng(int(spread * 10))
    memory, stored, dropped_so_far = state.empty(config), make_rows(rng, 0, 3), 0
    for count in (30, 60, 1, 80):
        rows = make_rows(rng, count, 3, spread)
        kept, merged, dropped = slow_merge(
            stored.positions, rows.positions, config.voxel_size, capacity
        )
        joined = concatenate_rows(stored, rows)
        new_kept = sum(i >= len(stored.keep) for i in kept)
        memory, report = fast_write(memory, rows, config)
        assert_holds(memory, joined, kept)
        assert [int(x) for x in report] == [new_kept, merged, dropped, 0, 0]
        dropped_so_far += dropped
        assert int(memory.dropped) == dropped_so_far
        stored = jax.tree.map(lambda leaf, kept=kept: leaf[kept], joined)


def test_voxel_memory_does_not_grow_when_the_same_view_is_written_again():
    camera = make_camera([(0.1, 0.2, 0.3, 0.2)], HW)
    depth = room_depth(camera, HW)
    memory, counts = state.empty(VOXEL), []
    for value in (1.0, 2.0):
        latents = np.full((1, *HW, 3), value, np.float32)
        rows = unproject_rows(latents, depth, depth > 0, camera, VOXEL, int(value))
        memory, _ = fast_write(memory, rows, VOXEL)
        counts.append(int(memory.count))
    assert counts[0] == counts[1] > 0
    np.testing.assert_array_equal(rows_in_order(memory).time, 2)
    np.testing.assert_array_equal(rows_in_order(memory).tokens, 2.0)


@pytest.mark.parametrize("config", [APPEND, VOXEL])
def test_unusable_rows_are_never_written(config):
    rows = make_rows(np.random.default_rng(1), 12, 3, spread=50.0)
    rows.depth[:5] = [0.0, -1.0, np.nan, np.inf, -np.inf]
    rows.tokens[5, 1], rows.tokens[6, 2] = np.nan, np.inf
    rows.positions[7, 0], rows.positions[8, 2] = np.nan, -np.inf
    rows.keep[9] = False
    memory, report = fast_write(state.empty(config), rows, config)
    assert [int(x) for x in report] == [2, 0, 0, 0, 0]
    assert_holds(memory, rows, [10, 11])


def test_far_sky_rows_are_written_like_others():
    camera = make_camera([(0, 0, 0, 0)], HW)
    depth = np.full((1, *HW), 1000.0, np.float32)
    latents = np.random.default_rng(0).normal(size=(1, *HW, 3)).astype(np.float32)
    for config in (APPEND, VOXEL):
        memory, report = write_frames(
            state.empty(config), latents, depth, depth > 0, camera, config, 0
        )
        assert int(report.written) == HW[0] * HW[1]
        np.testing.assert_array_equal(fast_read(memory, camera, HW, config).tokens, latents)


def test_unprojected_rows_carry_frame_order_origin_depth_and_time():
    camera = make_camera([(0, 0, 0, 0), (1, -0.2, 2, 0.4)], HW)
    depth = room_depth(camera, HW)
    latents = np.arange(2 * 48 * 3, dtype=np.float32).reshape(2, *HW, 3)
    rows = unproject_rows(
        latents, depth, np.ones(depth.shape, bool), camera, APPEND, jnp.array([5, 9])
    )
    np.testing.assert_array_equal(rows.tokens, latents.reshape(-1, 3))
    np.testing.assert_array_equal(rows.time, np.repeat([5, 9], 48))
    np.testing.assert_allclose(rows.origin, np.repeat(camera.cam_to_world[:, :3, 3], 48, axis=0))
    np.testing.assert_array_equal(rows.depth, depth.reshape(-1))
    assert rows.keep.all()
    # All points lie on the room they were measured in: floor, ceiling or back wall.
    x, y, z = np.asarray(rows.positions).T
    np.testing.assert_array_less(np.minimum(abs(abs(y) - 1), abs(z - 9)), 1e-4)


def test_edge_window_leaves_out_depth_steps():
    config = dataclasses.replace(APPEND, edge_window=3)
    depth = np.full((1, *HW), 4.0, np.float32)
    depth[..., 4:] = 2.0
    camera = make_camera([(0, 0, 0, 0)], HW)
    latents = np.zeros((1, *HW, 3), np.float32)
    rows = unproject_rows(latents, depth, depth > 0, camera, config, 0)
    kept = np.asarray(rows.keep).reshape(HW)
    assert not kept[:, 3:5].any()
    assert kept[:, :3].all()
    assert kept[:, 5:].all()


def test_writing_frames_at_once_equals_writing_them_one_by_one():
    places = [(0, 0, 0, 0), (0.2, 0, 0.4, 0.1), (0, 0, 1, -0.2)]
    camera = make_camera(places, HW)
    depth = room_depth(camera, HW)
    latents = np.random.default_rng(3).normal(size=(3, *HW, 3)).astype(np.float32)
    keep = np.random.default_rng(4).random(depth.shape) < 0.7
    for config in (APPEND, dataclasses.replace(VOXEL, capacity=400)):
        whole, _ = write_frames(
            state.empty(config), latents, depth, keep, camera, config, jnp.arange(3)
        )
        steps = state.empty(config)
        for i in range(3):
            part = [x[i : i + 1] for x in (latents, depth, keep)]
            view = jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], camera)
            steps, _ = write_frames(steps, *part, view, config, i)
        parts = rows_in_order(whole), rows_in_order(steps)
        jax.tree.map(np.testing.assert_array_equal, *parts)


def test_unseen_adds_only_what_the_memory_does_not_show():
    config = dataclasses.replace(APPEND, capacity=300, write_where="unseen")
    places = [(0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 1.2)]
    camera = make_camera(places, HW)
    depth = room_depth(camera, HW)
    latents = np.random.default_rng(5).normal(size=(3, *HW, 3)).astype(np.float32)
    first, report = write_frames(
        state.empty(config), latents[:2], depth[:2], depth[:2] > 0,
        jax.tree.map(lambda leaf: leaf[:2], camera), config, jnp.arange(2),
    )  # fmt: skip
    assert [int(x) for x in report] == [48, 48, 0, 0, 0]
    np.testing.assert_array_equal(rows_in_order(first).tokens, latents[0].reshape(-1, 3))
    turned = jax.tree.map(lambda leaf: leaf[2:], camera)
    fresh = np.asarray(unseen(read.read(first, turned, HW, config), depth[2:], config))
    _, report = write_frames(first, latents[2:], depth[2:], depth[2:] > 0, turned, config, 2)
    assert 0 < fresh.sum() == int(report.written) < 48 + 1
    assert int(report.merged) == 48 - fresh.sum()
    # A nearer surface in front of what is known counts as unseen.
    start = jax.tree.map(lambda x: x[:1], camera)
    assert unseen(read.read(first, start, HW, config), depth[:1] / 2, config).all()


@pytest.mark.parametrize("config", [APPEND, VOXEL])
def test_write_under_vmap_equals_a_loop(config):
    rng = np.random.default_rng(6)
    batches = [make_rows(rng, 70, 3)._replace(keep=rng.random(70) < share) for share in (0.3, 1.0)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *batches)
    empties = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), state.empty(config))
    step = jax.jit(jax.vmap(lambda memory, rows: write.write(memory, rows, config)))
    memories, _ = step(empties, stacked)
    memories, reports = step(memories, stacked)
    for i, rows in enumerate(batches):
        memory, _ = fast_write(state.empty(config), rows, config)
        memory, report = fast_write(memory, rows, config)
        batched = jax.tree.map(lambda leaf, i=i: leaf[i], (memories, reports))
        jax.tree.map(np.testing.assert_array_equal, batched, (memory, report))


def test_tokens_are_stored_in_the_configured_type():
    config = dataclasses.replace(APPEND, token_dtype="bfloat16")
    rows = make_rows(np.random.default_rng(7), 10, 3)
    memory, _ = fast_write(state.empty(config), rows, config)
    assert memory.tokens.dtype == jnp.bfloat16
    stored = rows_in_order(memory).tokens
    np.testing.assert_array_equal(stored, rows.tokens.astype(jnp.bfloat16))


def test_wrong_shapes_are_named():
    camera = make_camera([(0, 0, 0, 0)], HW)
    latents, depth = np.zeros((1, *HW, 3), np.float32), np.ones((1, *HW), np.float32)
    keep = depth > 0
    with pytest.raises(ValueError, match=r"depth has shape \[1, 6, 7\], expected \[1, 6, 8\]"):
        write.unproject_rows(latents, depth[..., 1:], keep, camera, APPEND, 0)
    with pytest.raises(ValueError, match=r"keep has shape \[1, 3, 8\]"):
        write.unproject_rows(latents, depth, keep[:, :3], camera, APPEND, 0)
    with pytest.raises(ValueError, match=r"latents have shape .*, 2\], expected .*config.channels"):
        write.unproject_rows(latents[..., :2], depth, keep, camera, APPEND, 0)
    two = make_camera([(0, 0, 0, 0)] * 2, HW)
    with pytest.raises(ValueError, match="one camera per latent frame"):
        write.unproject_rows(latents, depth, keep, two, APPEND, 0)
    with pytest.raises(ValueError, match=r"rows.tokens has shape \[4, 2\], expected \[m, 3\]"):
        write.write(state.empty(APPEND), make_rows(np.random.default_rng(0), 4, 2), APPEND)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"capacity": 0}, "capacity is 0, expected 1 or more"),
        ({"voxel_size": 0.0}, "voxel_size is 0.0"),
        ({"edge_window": 4}, "edge_window is 4, expected 0 .off. or an odd"),
        ({"retention": "ring"}, "retention is 'ring', expected one of"),
        ({"half_cell": False}, "rounding is 'floor', expected 'nearest_even'"),
        ({"shell": -0.1}, "shell is -0.1"),
    ],
)
def test_config_names_the_field_that_breaks_its_rule(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(APPEND, **change)
