"""Rows of parts of cells: where they lie, and that a camera farther back sees more of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from memory.slow_memory import make_camera
from tiny_world import tiny_spec

from mirage_jax import world_model
from mirage_jax.geometry.camera import Camera
from mirage_jax.memory.read import MemoryRead
from mirage_jax.models.learned_read import LearnedReadConfig
from mirage_jax.world_model.placing import rows_to_place
from mirage_jax.world_model.shares import read_all

GRID = (4, 6)


def test_rows_of_parts_lie_where_the_finer_read_saw_them():
    rng = np.random.default_rng(0)
    shape = (1, 2, 6, 8)
    fields = {name: np.zeros(shape) for name in MemoryRead._fields}
    fields["offset"] = rng.uniform(-0.5, 0.5, (*shape, 2)).astype(np.float32)
    fields["axes"] = rng.normal(size=(*shape, 3, 2)).astype(np.float32)
    rows = rows_to_place(MemoryRead(**fields), parts=2)
    assert rows.depth.shape == (4, 1, 2, 3, 4)

    def places(offset, axis):
        number = np.arange(offset.shape[-3 + axis]) + 0.5
        return np.asarray(offset)[..., 1 - axis] + (number[:, None] if axis == 0 else number)

    for axis in (0, 1):
        whole = np.sort(places(fields["offset"], axis).reshape(-1)) / 2
        parts = np.sort(np.concatenate([places(o, axis).reshape(-1) for o in rows.offset]))
        np.testing.assert_allclose(parts, whole, atol=1e-5)
    # A step along a row spans half as many whole cells as parts of them, and as much depth.
    np.testing.assert_allclose(rows.axes[0][..., :2, :], fields["axes"][..., ::2, ::2, :2, :] / 2)
    np.testing.assert_allclose(rows.axes[3][..., 2, :], fields["axes"][..., 1::2, 1::2, 2, :])


def test_a_camera_farther_back_places_rows_that_one_row_a_cell_leaves_out():
    spec = tiny_spec()
    learned = LearnedReadConfig(latent_channels=8, width=8, blocks=1, placed=True, parts=2)
    memory = dataclasses.replace(spec.memory, axes=True)
    spec = dataclasses.replace(spec, learned_read=learned, memory=memory)
    cameras = make_camera([(0.0, 0.0, 0.0, 0.0), (0.0, 0.0, -4.0, 0.0), (0.0, 0.0, 1.9, 0.0)], GRID)
    cameras = Camera(*(jnp.asarray(leaf)[None] for leaf in cameras))
    first = jax.tree.map(lambda leaf: leaf[:, :1], cameras)
    tokens = jax.random.normal(jax.random.key(0), (1, 1, *GRID, 8))
    depth, keep = jnp.full((1, 1, *GRID), 4.0), jnp.ones((1, 1, *GRID), bool)

    @jax.jit
    def look(tokens):
        held, _ = world_model.remember(
            spec, world_model.empty_memory(spec, 1), tokens, depth, keep, first, 0
        )
        seen = read_all(held, cameras, GRID, spec.memory)
        return seen, world_model.read_rows(spec, held, cameras, seen)

    found, rows = look(tokens)
    # From twice as far up to four rows fall into each of the cells that still see the wall.
    assert int(found.visibility[0, 1].sum()) == 8
    assert int(rows.visibility[:, 0, 1].sum()) == 24
    assert int(rows.visibility[:, 0, 0].sum()) == 24
    tokens_there = np.asarray(rows.tokens)[:, 0, 1][np.asarray(rows.visibility)[:, 0, 1]]
    assert len(np.unique(tokens_there[:, 0])) == 24
    # From about half as far rows lie 1.9 cells apart: two lines of them in view, two out of it.
    around = np.asarray(rows.visibility[:, 0, 2].any(0))
    assert around.shape == (4 + 4, 6 + 4)
    np.testing.assert_array_equal(np.nonzero(around.any(1))[0] - 2, [-1, 1, 2, 4])
