"""Properties of the hole-filled read."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from memory.slow_memory import make_camera, room_depth

from mirage_jax.memory import read, state, write
from mirage_jax.memory.fill import close_holes, fill_holes

fill = jax.jit(fill_holes)
SHAPES = [(1, 1), (1, 7), (5, 13)]


@pytest.mark.parametrize("hw", SHAPES)
def test_known_cells_stay_exact_and_holes_stay_within_their_range(hw):
    rng = np.random.default_rng(0)
    tokens, known = rng.normal(size=(3, *hw, 4)).astype(np.float32), rng.random((3, *hw)) < 0.3
    known[:, 0, 0] = True
    filled = np.asarray(fill(np.where(known[..., None], tokens, np.nan), known))
    np.testing.assert_array_equal(filled[known], tokens[known])
    for one, mask, given in zip(filled, known, tokens, strict=True):
        assert (one <= given[mask].max(0) + 1e-5).all()
        assert (one >= given[mask].min(0) - 1e-5).all()


def test_a_constant_is_filled_with_itself_and_nothing_with_zero():
    known = np.random.default_rng(1).random((6, 8)) < 0.2
    filled = fill(jnp.full((6, 8, 2), 3.5), known)
    np.testing.assert_allclose(filled, 3.5, rtol=1e-6)
    np.testing.assert_array_equal(fill(jnp.full((6, 8, 2), 3.5), np.zeros((6, 8), bool)), 0)


def test_single_holes_in_a_smooth_field_are_filled_closely():
    v, u = np.mgrid[:12, :16].astype(np.float32)
    field = np.stack([u / 16, v / 12, (u + v) / 28], -1)
    known = np.random.default_rng(2).random((12, 16)) < 0.8
    error = np.abs(np.asarray(fill(jnp.asarray(field), known)) - field)
    assert error[~known].mean() < 0.05


def test_batches_are_filled_one_by_one_and_the_type_is_kept():
    rng = np.random.default_rng(3)
    tokens = jnp.asarray(rng.normal(size=(2, 3, 5, 6, 2)), jnp.bfloat16)
    known = rng.random((2, 3, 5, 6)) < 0.4
    filled = fill(tokens, known)
    assert filled.dtype == jnp.bfloat16
    alone = fill(tokens[1, 2], known[1, 2])
    np.testing.assert_array_equal(filled[1, 2], alone)


def test_only_holes_whose_neighbours_lie_on_one_surface_are_closed():
    rng = np.random.default_rng(4)
    depth = np.full((9, 12), 4.0, np.float32)
    depth[:, 6:] = 2.0
    known = rng.random(depth.shape) < 0.7
    tokens = np.where(known[..., None], rng.normal(size=(9, 12, 2)), 0).astype(np.float32)
    filled, deep, closed = map(np.asarray, jax.jit(close_holes)(tokens, depth * known, known, 0.05))
    assert closed.any()
    for v, u in np.argwhere(~known):
        near = [
            (a, b)
            for a in range(max(v - 1, 0), min(v + 2, 9))
            for b in range(max(u - 1, 0), min(u + 2, 12))
            if known[a, b]
        ]
        one_surface = len({depth[cell] for cell in near}) == 1
        assert closed[v, u] == (len(near) >= 3 and one_surface)
        if closed[v, u]:
            mean = np.mean([tokens[cell] for cell in near], axis=0)
            np.testing.assert_allclose(filled[v, u], mean, atol=1e-6)
            np.testing.assert_allclose(deep[v, u], depth[near[0]], rtol=1e-6)
    np.testing.assert_array_equal(filled[~closed], tokens[~closed])
    np.testing.assert_array_equal(deep[~closed], (depth * known)[~closed])


def test_closing_holes_of_a_nearer_view_is_more_accurate_than_filling_across_edges():
    hw = (24, 32)
    config = state.MemoryConfig(2048, 3, close_holes=True, shell=0.1)

    def look(x, z):
        """Depth and colour of a room with a post in the middle, as a camera at (x, z) sees them."""
        camera = make_camera([(x, 0, z, 0)], hw)
        depth, ray = room_depth(camera, hw), (np.arange(32) + 0.5 - 16) / (0.8 * 32)
        post = np.abs(x + ray * (4 - z)) < 0.5
        depth = np.where(post, np.minimum(depth, np.float32(4 - z)), depth)
        place = x + ray * depth, depth + z
        color = np.stack([np.sin(place[0]), np.cos(place[1]), 1.0 * (depth == 4 - z)], -1)
        return camera, depth, color.astype(np.float32)

    camera, depth, color = look(0.0, 0.0)
    memory, _ = write.write_frames(state.empty(config), color, depth, depth > 0, camera, config, 0)
    camera, _, truth = look(0.1, 1.0)
    found = jax.jit(read.read, static_argnums=(2, 3))(memory, camera, hw, config)
    found = jax.tree.map(np.asarray, found)
    closed = found.visibility & (found.index < 0)
    across = np.asarray(fill_holes(found.tokens, found.index >= 0))
    assert closed.sum() > 40
    error, worse = (np.abs(x - truth)[closed].mean() for x in (found.tokens, across))
    assert error < 0.9 * worse
    assert error < 0.1
    # What the memory shows already is decided without closed holes.
    config = dataclasses.replace(config, write_where="unseen", moved_margin=0.0)
    keep = found.visibility
    _, report = write.write_frames(memory, color, found.depth, keep, camera, config, 1)
    assert int(report.written) == closed.sum()
