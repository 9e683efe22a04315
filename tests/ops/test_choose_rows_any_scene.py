"""The choice of rows on drawn scenes: ties of rank and order, empty slots, what is no number."""

import dataclasses
import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from mirage_jax.geometry.camera import Camera
from mirage_jax.ops.choose_rows import Surface, ViewRule, choose_rows, seen_from
from mirage_jax.ops.rasterize_points import EMPTY, CellGrid, Pages, page_bounds, rasterize_points
from mirage_jax.ops.rasterize_points.project import NEVER

# One grid, one rule and one size of table keep the number of compilations down.
GRID = CellGrid(3, 5)
RULE = ViewRule(shell=0.3, same_place=0.05, offset_weight=0.05)
PAGES, SLOTS = 6, 8

# Few values, so that rows share cells, ranks and orders; some are no places.
odd = st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -1e30, 1e-30, -0.0])
coordinate = st.one_of(st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.floats(-4, 4, width=32), odd)
place = st.one_of(st.just((0.0, 0.0, 0.0)), st.tuples(*[coordinate] * 3))
seen_depth = st.one_of(
    st.sampled_from([0.0, 1.0, 2.0, 100.0, -1.0]), st.floats(0.125, 9, width=32), odd
)
order = st.one_of(st.integers(0, 6), st.just(EMPTY))
ahead = st.one_of(st.sampled_from([1.0, 2.0, 3.0]), coordinate)
row = st.tuples(st.tuples(coordinate, coordinate, ahead), place, seen_depth, order)


def by_depth(rows):
    """Return rows as neighbours are stored, so that pages hide each other."""
    return sorted(rows, key=lambda row: np.nan_to_num(row[0][2]))


rows_drawn = st.lists(row, max_size=PAGES * SLOTS)
scene = st.one_of(rows_drawn, rows_drawn.map(by_depth))

any_scene = hypothesis.settings(max_examples=100, deadline=None, derandomize=True)


def tables(rows):
    """Return pages and views of drawn rows, in this order, the rest of the slots empty."""
    count = PAGES * SLOTS
    rows = [*rows, *[((0, 0, 2), (0, 0, 0), 1.0, EMPTY)] * (count - len(rows))]
    points, origin = (
        jnp.asarray(np.array([row[k] for row in rows], np.float32))
        .reshape(PAGES, SLOTS, 3)
        .transpose(0, 2, 1)
        for k in range(2)
    )
    depth = jnp.asarray(np.array([row[2] for row in rows], np.float32)).reshape(PAGES, SLOTS)
    orders = jnp.asarray(np.array([row[3] for row in rows], np.int32)).reshape(PAGES, SLOTS)
    pages = Pages(points, orders, page_bounds(points, orders))
    return pages, seen_from(origin, depth, orders)


def cameras(shift, turn):
    """Return one camera at the origin and one beside it."""
    pose = np.tile(np.eye(4, dtype=np.float32), (2, 1, 1))
    pose[1, :3, 3] = shift
    pose[1, 0, [0, 2]] = np.cos(turn), np.sin(turn)
    pose[1, 2, [0, 2]] = -np.sin(turn), np.cos(turn)
    lens = np.tile(np.float32([[3, 0.25, 2.5], [0, 3, 1.5], [0, 0, 1]]), (2, 1, 1))
    return Camera(pose, lens)


@functools.cache
def compiled(implementation):
    @jax.jit
    def choose(pages, views, camera, nearer):
        # Another device may hold a nearer surface.
        surface = nearer * rasterize_points(pages, camera, GRID, implementation="reference").depth
        return choose_rows(
            pages, views, camera, GRID, surface, RULE, implementation=implementation
        ), surface

    return lambda *arguments: jax.tree.map(np.asarray, choose(*arguments))


camera = st.builds(cameras, st.tuples(*[st.floats(-3, 3, width=32)] * 3), st.floats(-3.2, 3.2))


@any_scene
@hypothesis.given(rows=scene, camera=camera, nearer=st.sampled_from([1.0, 0.9, 0.5]))
def test_any_scene_gives_the_reference_result(rows, camera, nearer):
    arguments = (*tables(rows), camera, nearer)
    want, _ = compiled("reference")(*arguments)
    got, _ = compiled("xla")(*arguments)
    for name, one, other in zip(want._fields, want, got, strict=True):
        np.testing.assert_array_equal(other, one, err_msg=name)


def test_a_seen_depth_that_is_no_number_hides_no_row_of_its_page():
    nothing = ((0, 0, 2), (0, 0, 0), 1.0, EMPTY)
    rows = [nothing] * (PAGES * SLOTS)
    rows[0] = ((0, 0, 1), (3, 3, 0), 1.0, 0)
    # On a page behind it: seen from the camera's place, so shown whatever hides it.
    rows[SLOTS] = ((0, 0, 3), (0, 0, 0), 3.0, 1)
    rows[SLOTS + 1] = ((0, 0, 3), (0, 0, 0), np.nan, 2)
    for implementation in ("reference", "xla"):
        (_, _, shown), _ = compiled(implementation)(*tables(rows), cameras((0, 0, 0), 0.0), 1.0)
        assert shown[0].max() == SLOTS


@any_scene
@hypothesis.given(rows=scene, camera=camera, seed=st.integers(0, 2**32 - 1))
def test_rank_and_order_do_not_depend_on_where_rows_are_stored(rows, camera, seed):
    shuffled = [rows[k] for k in np.random.default_rng(seed).permutation(len(rows))]
    want, _ = compiled("xla")(*tables(rows), camera, 1.0)
    got, _ = compiled("xla")(*tables(shuffled), camera, 1.0)
    np.testing.assert_array_equal(got.rank, want.rank)
    np.testing.assert_array_equal(got.order, want.order)


@any_scene
@hypothesis.given(rows=scene, camera=camera)
def test_only_rows_that_exist_and_lie_in_front_are_shown(rows, camera):
    pages, views = tables(rows)
    (rank, orders, shown), surface = compiled("xla")(pages, views, camera, 1.0)
    # The nearest row competes, so a cell shows something exactly where something falls into it.
    np.testing.assert_array_equal(shown >= 0, np.isfinite(surface))
    found = shown[shown >= 0]
    points = np.asarray(pages.positions).transpose(0, 2, 1).reshape(-1, 3)
    assert np.isfinite(points[found]).all()
    assert (np.asarray(pages.order).reshape(-1)[found] == orders[shown >= 0]).all()
    assert (orders[shown >= 0] != EMPTY).all()
    assert (rank[shown >= 0] < NEVER).all()
    assert (rank[shown < 0] == NEVER).all()
    assert (orders[shown < 0] == EMPTY).all()


@any_scene
@hypothesis.given(
    first=st.integers(0, 47), second=st.integers(0, 47), orders=st.tuples(order, order)
)
def test_equal_rows_go_to_the_lower_order_then_to_the_lower_row(first, second, orders):
    rows = [((0, 0, 2), (0, 0, 0), 1.0, EMPTY)] * 48
    for place, number in zip((first, second), orders, strict=True):
        rows[place] = ((0.1, 0.1, 2.0), (0.0, 0.0, 0.0), 2.0, number)
    (_, _, shown), _ = compiled("xla")(*tables(rows), cameras((0, 0, 0), 0.0), 1.0)
    here = min((rows[place][3], place) for place in (first, second))
    expected = -1 if here[0] == EMPTY else here[1]
    assert shown[0].max() == expected


@functools.cache
def passes(by, count=3):
    """Return a function that gives the best rows of each cell in passes, in three ways.

    The third goes by no bound: it empties the slots of the rows chosen before.
    """
    rule = dataclasses.replace(RULE, by=by)

    @jax.jit
    def choose(pages, views, camera):
        surface = rasterize_points(pages, camera, GRID, implementation="reference").depth
        look = functools.partial(choose_rows, views=views, camera=camera, grid=GRID, rule=rule)
        found = []
        for name in ("reference", "xla"):
            best = [look(pages, surface=surface, implementation=name)]
            while len(best) < count:
                left = Surface(surface, best[-1])
                best.append(look(pages, surface=left, implementation=name))
            found.append(best)
        left, emptied = pages.order.reshape(-1), []
        for _ in range(count):
            without = pages._replace(order=left.reshape(pages.order.shape))
            best = look(without, surface=surface, implementation="reference")
            emptied.append(best)
            left = left.at[jnp.where(best.row >= 0, best.row, left.size)].set(EMPTY, mode="drop")
        return *found, emptied

    return choose


@hypothesis.settings(any_scene, max_examples=60)
@hypothesis.given(rows=scene, camera=camera, by=st.sampled_from(["view", "depth"]))
def test_each_pass_gives_what_wins_once_the_rows_before_it_are_gone(rows, camera, by):
    one = jax.tree.map(lambda leaf: leaf[1:], camera)
    reference, fast, emptied = passes(by)(*tables(rows), one)
    for want, *others in zip(emptied, reference, fast, strict=True):
        for got in others:
            np.testing.assert_array_equal(got.row, want.row)
            np.testing.assert_array_equal(got.rank, want.rank)
