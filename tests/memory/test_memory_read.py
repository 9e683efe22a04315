"""Properties of reading: the right row wins, what is told about it, and where gradients go."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from memory.slow_memory import (
    by_age,
    make_camera,
    make_rows,
    random_cameras,
    random_memory,
    room_depth,
    slow_cells,
    slow_project,
    slow_read,
)

from mirage_jax.geometry.camera import index_camera
from mirage_jax.memory import read, state, write
from mirage_jax.memory.rows import rows_in_order

HW = (6, 8)
CONFIG = state.MemoryConfig(capacity=600, channels=3, page_rows=80)
RELEASE = dataclasses.replace(CONFIG, half_cell=False, rounding="nearest_even")
BEST = dataclasses.replace(CONFIG, select="best_view")
fast_read = jax.jit(read.read, static_argnums=(2, 3))
fast_candidates = jax.jit(read.read, static_argnums=(2, 3, 4))
write_frames = jax.jit(write.write_frames, static_argnums=5)


def write_room(places, hw, config, seed=0):
    """Write one frame of a room per place and return memory, cameras and the latents."""
    camera = make_camera(places, hw)
    depth = room_depth(camera, hw)
    shape = (*depth.shape, config.channels)
    latents = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    times = jnp.arange(len(places))
    keep = np.ones(depth.shape, bool)
    # How a memory is read does not matter here; one config for all compiles once.
    same = dataclasses.replace(config, select="nearest")
    memory, report = write_frames(state.empty(same), latents, depth, keep, camera, same, times)
    assert int(report.dropped) == 0
    return memory, camera, latents, depth


@pytest.mark.parametrize("config", [CONFIG, RELEASE])
@pytest.mark.parametrize("count", [0, 1, 550])
def test_read_matches_the_slow_oracle_on_random_rows_with_ties(config, count):
    rng = np.random.default_rng(count)
    memory, camera = random_memory(rng, config, count), random_cameras(rng, 3, HW)
    found = fast_read(memory, camera, HW, config)
    for frame in range(3):
        index, unsure = slow_read(memory, camera, frame, HW, config.half_cell)
        assert unsure.mean() < 0.1
        got = by_age(memory, found.index[frame])
        np.testing.assert_array_equal(got[~unsure], index[~unsure])
    visible = np.asarray(found.visibility)
    np.testing.assert_array_equal(visible, np.asarray(found.index) >= 0)
    winners = rows_in_order(memory).tokens[by_age(memory, found.index)[visible]]
    np.testing.assert_array_equal(np.asarray(found.tokens)[visible], winners)


def test_empty_cells_are_zero_in_every_field():
    rng = np.random.default_rng(7)
    memory, camera = random_memory(rng, CONFIG, 40), random_cameras(rng, 2, HW)
    found = fast_read(memory, camera, HW, CONFIG)
    empty = ~np.asarray(found.visibility)
    assert empty.any()
    np.testing.assert_array_equal(found.index[empty], -1)
    for field in found._replace(index=found.visibility):
        np.testing.assert_array_equal(np.asarray(field)[empty], 0)


def test_read_tells_how_the_winning_row_was_seen():
    rng = np.random.default_rng(8)
    memory, camera = random_memory(rng, CONFIG, 500), random_cameras(rng, 2, HW)
    found = jax.tree.map(np.asarray, fast_read(memory, camera, HW, CONFIG))
    rows, index = rows_in_order(memory), by_age(memory, found.index)
    for frame, v, u in np.argwhere(found.visibility):
        row = index[frame, v, u]
        pose, place = camera.cam_to_world[frame], np.float64(rows.positions[row])
        x, y, z = (part[0] for part in slow_project(place[None], pose, camera.intrinsics[frame]))
        cell = (frame, v, u)
        np.testing.assert_allclose(found.depth[cell], z, rtol=1e-4)
        np.testing.assert_allclose(found.offset[cell], [x - u - 0.5, y - v - 0.5], atol=1e-3)
        np.testing.assert_allclose(found.scale[cell], np.log(rows.depth[row] / z), atol=1e-4)
        then, now = place - rows.origin[row], place - pose[:3, 3]
        cosine = then @ now / np.linalg.norm(then) / np.linalg.norm(now)
        np.testing.assert_allclose(np.cos(found.angle[cell]), cosine, atol=1e-5)
        assert found.age[cell] == rows.time.max() - rows.time[row]
    assert np.abs(found.offset).max() <= 0.5 + 1e-5


@pytest.mark.parametrize("config", [CONFIG, RELEASE, BEST])
def test_source_view_reads_back_its_tokens_exactly(config):
    memory, camera, latents, depth = write_room([(0.2, 0.1, -0.3, 0.15)], HW, config)
    found = fast_read(memory, camera, HW, config)
    if config.half_cell:
        np.testing.assert_array_equal(found.tokens, latents)
        np.testing.assert_allclose(found.depth, depth, rtol=1e-5)
        np.testing.assert_allclose(found.offset, 0, atol=1e-4)
        np.testing.assert_allclose(found.scale, 0, atol=1e-5)
        np.testing.assert_allclose(found.angle, 0, atol=1e-6)
    assert found.visibility.all()


def test_source_view_visibility_equals_what_was_kept():
    rng = np.random.default_rng(2)
    camera = make_camera([(0, 0, 0, 0.3)], HW)
    latents, keep = rng.normal(size=(1, *HW, 3)), rng.random((1, *HW)) < 0.6
    depth = room_depth(camera, HW)
    memory, _ = write_frames(state.empty(CONFIG), latents, depth, keep, camera, CONFIG, 0)
    found = fast_read(memory, camera, HW, CONFIG)
    np.testing.assert_array_equal(found.visibility, keep)


def test_read_does_not_depend_on_row_order_where_depths_differ():
    rng = np.random.default_rng(3)
    rows, camera = make_rows(rng, 600, 3), random_cameras(rng, 3, HW)
    order = rng.permutation(600)
    shuffled = jax.tree.map(lambda leaf: leaf[order], rows)
    found, again = (
        fast_read(write.write(state.empty(CONFIG), one, CONFIG)[0], camera, HW, CONFIG)
        for one in (rows, shuffled)
    )
    assert found.visibility.any()
    np.testing.assert_array_equal(found.tokens, again.tokens)
    np.testing.assert_array_equal(found.visibility, again.visibility)


def test_two_reads_are_equal_bit_for_bit():
    rng = np.random.default_rng(4)
    memory, camera = random_memory(rng, BEST, 600), random_cameras(rng, 2, HW)
    first, second = (fast_read(memory, camera, HW, BEST) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)


NEARBY = [(0, 0, 0, 0), (0, 0, 0.4, 0), (0, 0, 0, 0.1), (0.1, 0, -0.3, 0), (0, 0.02, 0.1, 0.02)]


def test_best_view_returns_source_tokens_after_other_nearby_views_were_written():
    source = 1
    memory, camera, latents, _ = write_room(
        NEARBY, (12, 16), dataclasses.replace(BEST, capacity=960)
    )
    views = index_camera(camera, slice(source, source + 1))
    config = dataclasses.replace(BEST, capacity=960)
    found = fast_read(memory, views, (12, 16), config)
    np.testing.assert_array_equal(found.tokens[0], latents[source])
    nearest = fast_read(memory, views, (12, 16), dataclasses.replace(config, select="nearest"))
    assert (np.asarray(nearest.tokens[0]) != latents[source]).any(-1).mean() > 0.3


def test_best_view_prefers_the_older_row_of_equal_views():
    memory, camera, latents, _ = write_room([(0, 0, 0, 0), (0, 0, 0, 0)], HW, BEST)
    found = fast_read(memory, camera, HW, BEST)
    np.testing.assert_array_equal(found.tokens[1], latents[0])


def test_best_view_winner_is_the_most_similar_view_of_the_front_surface():
    rng = np.random.default_rng(11)
    memory, camera = random_memory(rng, BEST, 600), random_cameras(rng, 1, HW)
    index = by_age(memory, fast_read(memory, camera, HW, BEST).index[0])
    stored = rows_in_order(memory)
    cell, z, unsure = slow_cells(memory, camera, 0, HW)
    assert (index[~unsure] >= 0).sum() > 10
    for v, u in np.argwhere(~unsure):
        rows = np.flatnonzero(cell == v * HW[1] + u)
        if not len(rows):
            assert index[v, u] == -1
            continue
        center = np.float64(camera.cam_to_world[0, :3, 3])
        place, origin = np.float64(stored.positions[rows]), np.float64(stored.origin[rows])
        x, y, _ = slow_project(place, camera.cam_to_world[0], camera.intrinsics[0])
        then, now = place - origin, place - center
        lengths = np.linalg.norm(then, axis=1) * np.linalg.norm(now, axis=1)
        score = np.arccos(np.clip((then * now).sum(1) / lengths, -1, 1))
        score += np.abs(np.log(stored.depth[rows] / z[rows]))
        score += BEST.offset_weight * np.hypot(x - u - 0.5, y - v - 0.5)
        front = z[rows] <= z[rows].min() * (1 + BEST.shell)
        front |= np.linalg.norm(origin - center, axis=1) <= BEST.same_place * stored.depth[rows]
        (chosen,) = np.flatnonzero(rows == index[v, u])
        assert front[chosen]
        assert score[chosen] <= score[front].min() + 1.1e-3


@pytest.mark.parametrize("select", ["nearest", "best_view"])
def test_read_under_vmap_equals_a_loop(select):
    config = dataclasses.replace(CONFIG, select=select)
    rng = np.random.default_rng(5)
    memories = [random_memory(rng, config, count) for count in (600, 300, 10)]
    cameras = [random_cameras(rng, 2, HW) for _ in memories]
    stacked = [
        jax.tree.map(lambda *leaves: np.stack(leaves), *part) for part in (memories, cameras)
    ]
    batched = jax.jit(jax.vmap(lambda m, c: read.read(m, c, HW, config)))(*stacked)
    for i, (memory, camera) in enumerate(zip(memories, cameras, strict=True)):
        alone = fast_read(memory, camera, HW, config)
        np.testing.assert_array_equal(batched.index[i], alone.index)
        np.testing.assert_array_equal(batched.tokens[i], alone.tokens)
        np.testing.assert_allclose(batched.angle[i], alone.angle, atol=1e-5)


@pytest.mark.parametrize("retention", ["append", "newest", "mean"])
def test_token_gradient_through_write_and_read_matches_finite_differences(retention):
    config = dataclasses.replace(CONFIG, retention=retention, voxel_size=0.4, select="best_view")
    rng = np.random.default_rng(6)
    camera, views = make_camera([(0, 0, 0, 0), (0.2, 0, 0.3, 0.1)], HW), random_cameras(rng, 2, HW)
    depth = room_depth(camera, HW)
    weight = rng.normal(size=(2, *HW, 3)).astype(np.float32)

    @jax.jit
    def loss(latents):
        rows = write.unproject_rows(latents, depth, depth > 0, camera, config, 0)
        memory, _ = write.write(state.empty(config), rows, config)
        return jnp.sum(weight * jnp.tanh(read.read(memory, views, HW, config).tokens))

    latents, step = rng.normal(size=(2, 2, *HW, 3)).astype(np.float32)
    slope = (loss(latents + 1e-2 * step) - loss(latents - 1e-2 * step)) / 2e-2
    gradient = jax.jit(jax.grad(loss))(latents)
    assert np.abs(slope) > 0.1
    np.testing.assert_allclose(np.sum(np.asarray(gradient) * step), slope, rtol=5e-3)


def test_no_gradient_flows_through_the_choice_of_rows():
    rng = np.random.default_rng(9)
    memory, camera = random_memory(rng, BEST, 500), random_cameras(rng, 2, HW)

    def total(positions, origin, pose):
        moved = memory._replace(positions=positions, origin=origin)
        found = read.read(moved, camera._replace(cam_to_world=pose), HW, BEST)
        return found.tokens.sum() + found.angle.sum() + found.offset.sum()

    arguments = [jnp.asarray(x) for x in (memory.positions, memory.origin, camera.cam_to_world)]
    for gradient in jax.jit(jax.grad(total, (0, 1, 2)))(*arguments):
        np.testing.assert_array_equal(gradient, 0)


def test_read_rejects_a_memory_or_camera_of_another_shape():
    camera = random_cameras(np.random.default_rng(0), 2, HW)
    with pytest.raises(ValueError, match=r"read: memory.tokens .*, 24\] .*expected .*, 32\]"):
        read.read(state.empty(CONFIG), camera, HW, dataclasses.replace(CONFIG, channels=4))
    with pytest.raises(ValueError, match=r"expected \[t, 4, 4\]"):
        read.read(state.empty(CONFIG), index_camera(camera, 0), HW, CONFIG)


@pytest.mark.parametrize("select", ["nearest", "best_view"])
def test_one_candidate_is_the_read_bit_for_bit_and_more_begin_with_it(select):
    rng = np.random.default_rng(11)
    config = dataclasses.replace(CONFIG, select=select)
    memory, camera = random_memory(rng, config, 500), random_cameras(rng, 2, HW)
    found = fast_read(memory, camera, HW, config)
    one = fast_candidates(memory, camera, HW, config, 1)
    four = fast_candidates(memory, camera, HW, config, 4)
    for name, want, alone, first in zip(found._fields, found, one, four, strict=True):
        np.testing.assert_array_equal(alone[:, 0], want, err_msg=name)
        np.testing.assert_array_equal(first[:, 0], want, err_msg=name)
    assert four.visibility[:, 1].any()
    # A cell without a second row has no third; what is empty is zero.
    seen = np.asarray(four.visibility)
    assert (seen[:, :-1] >= seen[:, 1:]).all()
    for field in four._replace(index=four.visibility):
        np.testing.assert_array_equal(np.asarray(field)[~seen], 0)


def test_candidates_of_a_cell_are_the_nearest_rows_of_its_surface_with_ties_to_the_older():
    rng = np.random.default_rng(12)
    config = dataclasses.replace(CONFIG, shell=0.4)
    memory, camera = random_memory(rng, config, 550), random_cameras(rng, 2, HW)
    found = fast_candidates(memory, camera, HW, config, 4)
    rows, compared = rows_in_order(memory), 0
    for frame in range(2):
        cell, z, unsure = slow_cells(memory, camera, frame, HW)
        got = by_age(memory, found.index[frame]).reshape(4, -1)
        for place in np.flatnonzero(~unsure.reshape(-1)):
            here = np.flatnonzero(cell == place)
            here = here[np.argsort(np.float32(z[here]), kind="stable")]
            limit = 1.4 * z[here].min(initial=np.inf)
            if np.any(np.abs(z[here] - limit) < 1e-4) or _nearly_tied(z[here]):
                continue
            want = here[z[here] < limit][:4]
            np.testing.assert_array_equal(got[: len(want), place], want)
            np.testing.assert_array_equal(got[len(want) :, place], -1)
            compared += len(want) > 1
    assert compared > 10
    shown = np.asarray(found.visibility)
    tokens = rows.tokens[by_age(memory, found.index)[shown]]
    np.testing.assert_array_equal(np.asarray(found.tokens)[shown], tokens)


def _nearly_tied(depths):
    """Tell whether float32 may order two of the ascending depths otherwise; exact ties are sure."""
    gaps = np.diff(depths)
    return bool(np.any((gaps > 1e-12) & (gaps < 1e-5)))


@pytest.mark.parametrize("count", [0, 9])
def test_a_number_of_candidates_out_of_range_is_refused(count):
    memory, camera = state.empty(CONFIG), make_camera([(0, 0, 0, 0)], HW)
    with pytest.raises(ValueError, match=f"candidates is {count}, expected 1 to 8"):
        read.read(memory, camera, HW, CONFIG, count)
