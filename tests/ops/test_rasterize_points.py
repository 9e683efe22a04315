"""The points rasterizer against a slow float64 loop, and every implementation against the truth."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirage_jax.geometry.camera import Camera
from mirage_jax.ops.rasterize_points import (
    EMPTY,
    CellGrid,
    Pages,
    WorkList,
    list_pages,
    page_bounds,
    rasterize_points,
)
from mirage_jax.ops.rasterize_points.arg_specs import SPECS, ArgSpec, make_arguments, pack_pages
from mirage_jax.ops.rasterize_points.project import camera_numbers, project_rows
from mirage_jax.ops.rasterize_points.walk import RUN_PAGES, run_bounds
from mirage_jax.ops.rasterize_points.work_list import box_span
from mirage_jax.ops.rasterize_points.xla import rasterize_in_steps

SMALL = sorted(name for name, spec in SPECS.items() if spec.num_rows < 8000)


@functools.cache
def compiled(implementation, grid):
    return jax.jit(
        lambda pages, camera: rasterize_points(pages, camera, grid, implementation=implementation)
    )


def rows_and_orders(pages):
    points = np.asarray(pages.positions, np.float64).transpose(0, 2, 1).reshape(-1, 3)
    return points, np.asarray(pages.order).reshape(-1)


def exact_projection(points, camera, view):
    """Return float64 (u, v, z) of each row, NaN where it is not in front of the camera."""
    pose = np.asarray(camera.cam_to_world[view], np.float64)
    lens = np.asarray(camera.intrinsics[view], np.float64)
    with np.errstate(all="ignore"):
        local = (points - pose[:3, 3]) @ pose[:3, :3]
        homogeneous = local @ lens.T
        uv = homogeneous[:, :2] / homogeneous[:, 2:]
    uv[~(local[:, 2] > 0)] = np.nan
    return uv, local[:, 2]


def slow_nearest(pages, camera, view, grid):
    """Visit the rows one by one in float64 and keep the lowest (depth, order, row)."""
    points, order = rows_and_orders(pages)
    uv, depth = exact_projection(points, camera, view)
    best = {}
    for row in np.flatnonzero((order != EMPTY) & np.isfinite(uv).all(1) & np.isfinite(depth)):
        u, v = (np.floor if grid.rounding == "floor" else np.round)(uv[row])
        if 0 <= u < grid.width and 0 <= v < grid.height:
            key = (depth[row], order[row], row)
            best[int(v), int(u)] = min(best.get((int(v), int(u)), key), key)
    return best


def without_doubtful_rows(pages, camera, grid):
    """Take out rows so close to a cell's edge that float32 may put them on the other side."""
    points, order = rows_and_orders(pages)
    shift = 0.0 if grid.rounding == "floor" else 0.5
    for view in range(len(camera.cam_to_world)):
        uv, _ = exact_projection(points, camera, view)
        edge = np.abs(uv + shift - np.round(uv + shift)) < 1e-3
        order = np.where(edge.any(1), EMPTY, order)
    return pages._replace(order=order.reshape(pages.order.shape).astype(np.int32))


@pytest.mark.parametrize("name", [name for name in SMALL if name != "ties"])
def test_reference_equals_a_slow_float64_loop(name):
    pages, camera, grid = make_arguments(SPECS[name], seed=3)
    pages = without_doubtful_rows(pages, camera, grid)
    found = jax.tree.map(np.asarray, compiled("reference", grid)(pages, camera))
    for view in range(SPECS[name].num_views):
        best = slow_nearest(pages, camera, view, grid)
        visible = sorted(zip(*np.nonzero(found.row[view] >= 0), strict=True))
        assert visible == sorted(best)
        points, _ = rows_and_orders(pages)
        _, depth = exact_projection(points, camera, view)
        for cell, (least, _, row) in best.items():
            got = found.row[view][cell]
            # Another row may win only where float32 cannot tell the two apart.
            assert got == row or depth[got] <= least * (1 + 1e-6)
            np.testing.assert_allclose(found.depth[view][cell], least, rtol=1e-5)


def test_equal_depths_go_to_the_lower_order():
    spec = ArgSpec(900, (4, 5), 1, "lattice", 32)
    pages, camera, grid = make_arguments(spec, seed=1)
    found = compiled("reference", grid)(pages, camera)
    best = slow_nearest(pages, camera, 0, grid)  # the lattice projects exactly: ties are ties
    assert len(best) == 20
    for cell, (_, _, row) in best.items():
        assert found.row[0][cell] == row


@pytest.mark.parametrize("implementation", ["xla"])
@pytest.mark.parametrize("name", [*SMALL, "rows_1e5"])
def test_implementations_equal_the_reference_bit_for_bit(name, implementation):
    pages, camera, grid = make_arguments(SPECS[name], seed=5)
    want = compiled("reference", grid)(pages, camera)
    got = compiled(implementation, grid)(pages, camera)
    np.testing.assert_array_equal(got.row, want.row)
    np.testing.assert_array_equal(got.depth, want.depth)


# One grid and two sizes of table keep the number of compilations down.
HYPOTHESIS_GRID = CellGrid(3, 5)
coordinate = st.one_of(
    st.sampled_from([0.0, -0.0, 0.5, 1.0, np.nan, np.inf, -np.inf, 1e30, -1e30, 1e-30]),
    st.floats(-4, 4, width=32),
)
scene_row = st.tuples(coordinate, coordinate, coordinate, st.integers(0, 6))


@pytest.mark.parametrize("implementation", ["xla"])
@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(
    rows=st.lists(scene_row, min_size=1, max_size=48),
    shift=st.tuples(*[st.floats(-3, 3, width=32)] * 3),
    turn=st.floats(-3.2, 3.2),
)
def test_any_scene_gives_the_reference_result(implementation, rows, shift, turn):
    table = np.array([row[:3] for row in rows], np.float32)
    order = np.array([row[3] for row in rows], np.int32)
    table = np.concatenate([table, np.zeros((48 - len(rows), 3), np.float32)])
    order = np.concatenate([order, np.full(48 - len(rows), EMPTY, np.int32)])
    positions = jnp.asarray(table.reshape(6, 8, 3).transpose(0, 2, 1))
    order = jnp.asarray(order.reshape(6, 8))
    pages = Pages(positions, order, page_bounds(positions, order))
    pose = np.tile(np.eye(4, dtype=np.float32), (2, 1, 1))
    pose[1, :3, 3] = shift
    pose[1, 0, [0, 2]], pose[1, 2, [0, 2]] = (
        (np.cos(turn), np.sin(turn)),
        (-np.sin(turn), np.cos(turn)),
    )
    lens = np.tile(np.float32([[3, 0.25, 2.5], [0, 3, 1.5], [0, 0, 1]]), (2, 1, 1))
    camera = Camera(pose, lens)
    want = compiled("reference", HYPOTHESIS_GRID)(pages, camera)
    got = compiled(implementation, HYPOTHESIS_GRID)(pages, camera)
    np.testing.assert_array_equal(got.row, want.row)
    np.testing.assert_array_equal(got.depth, want.depth)


def test_work_list_leaves_out_no_page_that_holds_a_visible_row_and_bounds_its_depth():
    for name in ("hole", "tiny_train", "release_rounding"):
        pages, camera, grid = make_arguments(SPECS[name], seed=6)
        points, order = rows_and_orders(pages)
        work = jax.tree.map(np.asarray, list_pages(pages.bounds, camera, grid))
        page_of = np.arange(len(order)) // pages.order.shape[1]
        low = 0.0 if grid.rounding == "floor" else -0.5
        for view, count in enumerate(work.count):
            uv, depth = exact_projection(points, camera, view)
            inside = (uv >= low).all(1) & (uv < np.array([grid.width, grid.height]) + low).all(1)
            inside &= (depth > 0) & (order != EMPTY)
            listed, near = work.page[view, :count], work.near[view, :count]
            assert set(page_of[inside]) <= set(listed)
            assert len(set(listed)) == count
            assert np.all(np.diff(near) >= 0)
            front = dict(zip(listed.tolist(), near.tolist(), strict=True))
            assert all(front[page_of[row]] <= depth[row] for row in np.flatnonzero(inside))


def test_pages_outside_the_view_are_not_listed():
    # The second page lies beside the view, the third behind the camera, the fourth is empty.
    points = np.array([[0, 0, 3], [50, 0, 3], [0, 0, -3]], np.float32)
    positions = jnp.asarray(np.concatenate([points, points[:1]]))[:, :, None]
    order = jnp.asarray([[0], [1], [2], [EMPTY]], jnp.int32)
    camera = Camera(
        np.eye(4, dtype=np.float32)[None], np.eye(3, dtype=np.float32)[None] * [2, 2, 1]
    )
    work = list_pages(page_bounds(positions, order), camera, CellGrid(4, 4))
    assert work.count.tolist() == [1]
    assert work.page[0, 0] == 0


def test_hidden_pages_are_not_looked_at():
    pages, camera, grid = make_arguments(SPECS["rows_1e5"], seed=8)
    work = jax.tree.map(np.asarray, list_pages(pages.bounds, camera, grid))
    rasterize = jax.jit(lambda pages, work: rasterize_points(pages, camera, grid, work, "xla"))
    want = rasterize(pages, work)
    farthest = float(jnp.max(want.depth))
    assert np.isfinite(farthest)
    count = work.count[0]
    hidden = work.page[0, :count][work.near[0, :count] > farthest]
    # The last group of pages is picked from 128 entries before its own rows are known.
    hidden = hidden[128:]
    assert len(hidden) > 50
    positions = pages.positions.copy()
    positions[hidden, :2], positions[hidden, 2] = 0.0, 0.01  # would win, were they looked at
    got = rasterize(pages._replace(positions=positions), work)
    np.testing.assert_array_equal(got.row, want.row)


@pytest.mark.parametrize("layout", ["volume", "surface", "shell", "lattice"])
def test_tables_of_many_runs_give_the_reference_result(layout):
    spec = ArgSpec(20_000, (17, 30), 3, layout, 8, 0.05)
    pages, camera, grid = make_arguments(spec, seed=11)
    want = compiled("reference", grid)(pages, camera)
    got = compiled("xla", grid)(pages, camera)
    np.testing.assert_array_equal(got.row, want.row)
    np.testing.assert_array_equal(got.depth, want.depth)


@pytest.mark.parametrize("num_pages", [1, RUN_PAGES, 2 * RUN_PAGES + 5])
def test_a_run_encloses_its_pages(num_pages):
    rng = np.random.default_rng(num_pages)
    bounds = np.sort(rng.normal(size=(num_pages, 2, 3)).astype(np.float32), axis=1)
    bounds[rng.random(num_pages) < 0.3] = [[np.inf] * 3, [-np.inf] * 3]
    got = np.asarray(run_bounds(jnp.asarray(bounds)))
    for number, corners in enumerate(got):
        mine = bounds[number * RUN_PAGES : (number + 1) * RUN_PAGES]
        np.testing.assert_array_equal(corners, [mine[:, 0].min(0), mine[:, 1].max(0)])


@functools.cache
def counted(grid):
    return jax.jit(functools.partial(rasterize_in_steps, grid=grid))


def wall_and(rows, place):
    """Return pages of a wall without a hole, and of that many rows behind it or elsewhere."""
    rng = np.random.default_rng(2)
    _, camera, grid = make_arguments(ArgSpec(1))
    v, u = np.indices((44, 80)).reshape(2, -1)
    depth = 6 + rng.random(u.shape)
    focal = 0.6 * 80
    wall = np.stack([(u - 39.5) / focal * depth, (v - 21.5) / focal * depth, depth], axis=1)
    far = rng.uniform(-30, 30, (rows, 3)) + np.array(place)
    near_pages, far_pages = (
        pack_pages(part.astype(np.float32), np.arange(len(part)), 64) for part in (wall, far)
    )
    pages = Pages(*map(np.concatenate, zip(near_pages, far_pages, strict=True)))
    return pages, len(near_pages.order), camera, grid


@pytest.mark.parametrize("place", [(0, 0, 60), (0, 0, -60)], ids=["behind", "back"])
def test_pages_looked_at_do_not_grow_with_what_is_stored_out_of_sight(place):
    """Counts, not times: ten times the rows behind a wall, or at the camera's back."""
    taken = {}
    for rows in (20_000, 200_000):
        pages, wall_pages, camera, grid = wall_and(rows, place)
        found, steps = counted(grid)(pages, camera)
        assert (found.row >= 0).all()
        assert (found.row // 64 < wall_pages).all()
        taken[rows] = jax.tree.map(int, jax.tree.map(lambda count: count[0], steps))
    # The first 128 pages are taken before any hides another.
    assert wall_pages <= taken[200_000].visits == taken[20_000].visits <= 128
    # A batch of pages is looked at in any case, whether or not there are so many.
    assert taken[200_000].pages <= taken[20_000].pages + 1024
    # Runs are tested 1024 at a time, all of them at most once.
    assert taken[200_000].runs <= 1024


def test_rows_fall_within_the_cells_of_their_box():
    rng = np.random.default_rng(5)
    for rounding in ("floor", "nearest_even"):
        grid = CellGrid(44, 80, rounding)
        _, camera, _ = make_arguments(ArgSpec(1, (44, 80), 8))
        middle = rng.normal(size=(3000, 1, 3)) * rng.choice([1, 10, 1000], (3000, 1, 1))
        size = np.exp(rng.uniform(-9, 2, (3000, 1, 1)))
        points = (middle + size * rng.uniform(-1, 1, (3000, 64, 3))).astype(np.float32)
        box = jnp.stack([points.min(1), points.max(1)], axis=1)
        x, y, z = np.moveaxis(points, -1, 0)
        for numbers in camera_numbers(camera):
            seen = project_rows(x, y, z, numbers, grid)
            span = box_span(box, numbers, grid)
            left, right, top, bottom = (np.asarray(end)[:, None] for end in span)
            within = (seen.column >= left) & (seen.column <= right)
            within &= (seen.line >= top) & (seen.line <= bottom)
            assert within[seen.inside].all()
            # And they say something, but of the boxes that reach behind the camera.
            assert np.mean((right - left < 79) | (bottom - top < 43)) > 0.3


def test_result_does_not_depend_on_how_rows_are_paged():
    spec = SPECS["ties"]
    pages, camera, grid = make_arguments(spec, seed=9)
    points, order = rows_and_orders(pages)
    used = order != EMPTY
    # Rows with their own order only: equal depth and order would be decided by the row number.
    points, order = points[used].astype(np.float32), order[used]
    shuffle = np.random.default_rng(0).permutation(len(order))
    other = pack_pages(points[shuffle], order[shuffle], 16)
    first = compiled("xla", grid)(pages, camera)
    second = compiled("xla", grid)(other, camera)
    np.testing.assert_array_equal(first.depth, second.depth)
    first_order = np.append(pages.order.reshape(-1), -1)[np.asarray(first.row)]
    second_order = np.append(other.order.reshape(-1), -1)[np.asarray(second.row)]
    np.testing.assert_array_equal(first_order, second_order)


def test_vmap_over_scenes_equals_a_loop():
    scenes = [make_arguments(SPECS["tiny_train"], seed=s) for s in range(3)]
    grid = scenes[0][2]
    pages, camera = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[s[:2] for s in scenes])
    together = jax.jit(jax.vmap(lambda p, c: rasterize_points(p, c, grid, implementation="xla")))
    got = together(pages, camera)
    for index, (one_pages, one_camera, _) in enumerate(scenes):
        want = compiled("reference", grid)(one_pages, one_camera)
        np.testing.assert_array_equal(got.row[index], want.row)
        np.testing.assert_array_equal(got.depth[index], want.depth)


def test_gradient_reaches_the_features_of_winning_rows_only():
    pages, camera, grid = make_arguments(SPECS["tiny_train"], seed=6)
    features = np.random.default_rng(1).normal(size=pages.order.size).astype(np.float32)

    def total(features, positions):
        found = rasterize_points(pages._replace(positions=positions), camera, grid)
        return jnp.sum(jnp.where(found.row < 0, 0.0, features[found.row]) ** 2)

    by_feature, by_position = jax.grad(total, (0, 1))(jnp.asarray(features), pages.positions)
    row = np.asarray(compiled("reference", grid)(pages, camera).row)
    wins = np.bincount(row[row >= 0], minlength=len(features))
    np.testing.assert_allclose(by_feature, 2 * wins * features, rtol=1e-6)
    np.testing.assert_array_equal(by_position, 0)


def broken(**changes):
    pages, camera, grid = make_arguments(SPECS["one_row"])
    arguments = {"pages": pages, "camera": camera, "grid": grid}
    for name, change in changes.items():
        arguments[name] = change(arguments[name]) if name in arguments else change
    return arguments


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (broken(pages=lambda p: p._replace(order=p.order[:, :4])), ValueError, "expected .n, 3, P"),
        (
            broken(pages=lambda p: p._replace(positions=p.positions.astype(np.float16))),
            TypeError,
            "positions are float16",
        ),
        (
            broken(camera=lambda c: c._replace(cam_to_world=c.cam_to_world[0])),
            ValueError,
            "add a leading axis",
        ),
        (broken(implementation="fast"), ValueError, "implementation is 'fast'"),
        (
            broken(work=WorkList(np.zeros((2, 1), np.int32), np.zeros((2, 1)), np.zeros(2))),
            ValueError,
            "t = 1 cameras",
        ),
    ],
)
def test_the_wrong_argument_is_named(arguments, error, words):
    with pytest.raises(error, match=words):
        rasterize_points(**arguments)


def test_a_grid_that_is_not_static_is_refused():
    with pytest.raises(ValueError, match="height is 0"):
        CellGrid(0, 4)
    with pytest.raises(ValueError, match="rounding is 'up'"):
        CellGrid(2, 4, "up")


def test_halves_round_to_even_as_numpy_rounds_them():
    values = np.concatenate([np.arange(-9, 90, 0.25), [-0.5, 0.49999997, 1e6 + 0.5]])
    values = values.astype(np.float32)
    zero, one = np.zeros_like(values), np.ones_like(values)
    lens = np.array([1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1, 0], np.float32)
    seen = project_rows(values, zero, one, lens, CellGrid(1, 80, "nearest_even"))
    np.testing.assert_array_equal(seen.column, np.round(values))
