"""The choice of rows against a slow float64 loop, and the fast version against the reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirage_jax.ops.choose_rows import SeenFrom, ViewRule, choose_rows, seen_from
from mirage_jax.ops.rasterize_points import EMPTY, rasterize_points
from mirage_jax.ops.rasterize_points.arg_specs import SPECS, make_arguments

RULE = ViewRule(shell=0.3, same_place=0.05, offset_weight=0.05)


def scene(name, seed):
    """Return arguments of a case whose rows were seen from one of five places."""
    pages, camera, grid = make_arguments(SPECS[name], seed)
    rng = np.random.default_rng(seed)
    places = np.concatenate(
        [np.asarray(camera.cam_to_world)[:1, :3, 3], rng.uniform(-1, 1, (4, 3))]
    ).astype(np.float32)
    origin = places[rng.integers(0, 5, pages.order.shape)].transpose(0, 2, 1)
    depth = rng.uniform(0.5, 9, pages.order.shape).astype(np.float32)
    views = seen_from(jnp.asarray(origin), jnp.asarray(depth), jnp.asarray(pages.order))
    return pages, views, camera, grid


def run(pages, views, camera, grid, implementation):
    @jax.jit
    def both(pages, views, camera):
        surface = rasterize_points(pages, camera, grid).depth
        return surface, choose_rows(
            pages, views, camera, grid, surface, RULE, implementation=implementation
        )

    return jax.tree.map(np.asarray, both(pages, views, camera))


def difference_of_views(pages, views, camera, view, grid):
    """Return in float64 each row's cell, depth, difference, and whether it shares the place."""
    points = np.asarray(pages.positions, np.float64).transpose(0, 2, 1).reshape(-1, 3)
    origin = np.asarray(views.origin, np.float64).transpose(0, 2, 1).reshape(-1, 3)
    then_depth = np.asarray(views.depth, np.float64).reshape(-1)
    pose = np.asarray(camera.cam_to_world[view], np.float64)
    lens = np.asarray(camera.intrinsics[view], np.float64)
    with np.errstate(all="ignore"):
        local = (points - pose[:3, 3]) @ pose[:3, :3]
        uv = (local @ lens.T)[:, :2] / local[:, 2:]
        corner = np.floor(uv) if grid.rounding == "floor" else np.round(uv)
        a, b = points - origin, points - pose[:3, 3]
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        difference = np.arccos(np.clip(cosine, -1, 1))
        difference += np.abs(np.log(then_depth / local[:, 2]))
        difference += 0.05 * np.linalg.norm(uv - corner - grid.center, axis=1)
        inside = (corner >= 0).all(1) & (corner < [grid.width, grid.height]).all(1)
        inside &= (local[:, 2] > 0) & (np.asarray(pages.order).reshape(-1) != EMPTY)
    same = np.linalg.norm(origin - pose[:3, 3], axis=1) <= 0.05 * then_depth
    return corner, inside, local[:, 2], difference, same


@pytest.mark.parametrize("name", ["tiny_train", "release_rounding", "hole"])
def test_the_chosen_row_differs_least_among_those_that_may_be_shown(name):
    pages, views, camera, grid = scene(name, seed=2)
    surface, (rank, order, chosen) = run(pages, views, camera, grid, "xla")
    none = chosen < 0
    np.testing.assert_array_equal(order[none], EMPTY)
    np.testing.assert_array_equal(rank[none], EMPTY)
    np.testing.assert_array_equal(order[~none], np.asarray(pages.order).reshape(-1)[chosen[~none]])
    for view in range(len(chosen)):
        corner, inside, depth, difference, same = difference_of_views(
            pages, views, camera, view, grid
        )
        np.testing.assert_array_equal(chosen[view] >= 0, np.isfinite(surface[view]))
        for line, column in zip(*np.nonzero(chosen[view] >= 0), strict=True):
            here = np.flatnonzero(inside & (corner == [column, line]).all(1))
            limit = 1.3 * surface[view, line, column]
            allowed = here[same[here] | (depth[here] <= limit * (1 + 1e-6))]
            winner = chosen[view, line, column]
            assert winner in allowed
            # A step is 1e-3, and rounding may put a row a step off.
            assert difference[winner] <= difference[allowed].min() + 1.1e-3
            assert abs(rank[view, line, column] - 1 - difference[winner] / 1e-3) < 0.6


@pytest.mark.parametrize("name", ["no_rows", "one_row", "all_bad", "ties", "tiny_train", "wall"])
def test_xla_equals_the_reference(name):
    arguments = scene(name, seed=4)
    want, got = run(*arguments, "reference")[1], run(*arguments, "xla")[1]
    for name, one, other in zip(want._fields, want, got, strict=True):
        np.testing.assert_array_equal(other, one, err_msg=name)


def test_rows_seen_from_this_place_compete_behind_the_shell():
    pages, views, camera, grid = scene("hole", seed=4)
    elsewhere = jnp.full_like(views.origin, 50.0)
    here = jnp.zeros_like(views.origin)
    order = jnp.asarray(pages.order)
    far = jnp.asarray(pages.positions[:, 2:3] > 10)
    origin = jnp.where(far, here, elsewhere)
    near_only = seen_from(elsewhere, views.depth, order)
    mixed = seen_from(origin, views.depth, order)
    without = run(pages, near_only, camera, grid, "xla")[1].row
    chosen = run(pages, mixed, camera, grid, "xla")[1].row
    depth = pages.positions[:, 2].reshape(-1)
    # The far wall stands behind the near one and is seen only where it was seen from here.
    both = (chosen[0] >= 0) & (depth[without[0]] < 5)
    assert np.mean(depth[chosen[0][both]] > 10) > 0.5


def test_the_wrong_shape_is_named():
    pages, views, camera, grid = scene("one_row", seed=0)
    with pytest.raises(ValueError, match="surface has shape"):
        choose_rows(pages, views, camera, grid, jnp.zeros((1, 2, 2)), RULE)
    broken = SeenFrom(views.origin[:, :2], views.depth, views.bounds, views.farthest)
    with pytest.raises(ValueError, match="views.origin"):
        choose_rows(pages, broken, camera, grid, jnp.zeros((1, 1, 1)), RULE)
