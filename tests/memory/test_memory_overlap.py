"""Overlap of views against sets built point by point, and which views are picked."""

import numpy as np

from mirage_jax.geometry.camera import Camera
from mirage_jax.memory.overlap import best_views, view_overlaps

HW = (4, 6)


def _cameras(shifts):
    pose = np.tile(np.eye(4, dtype=np.float32), (len(shifts), 1, 1))
    pose[:, 0, 3] = shifts
    matrix = np.array([[3.0, 0, 3.0], [0, 3.0, 2.0], [0, 0, 1]], np.float32)
    return Camera(pose, np.tile(matrix, (len(shifts), 1, 1)))


def _slow_cubes(points, shift, size):
    """Cubes of the points that a camera at (shift, 0, 0) has in its picture of 6 by 4 cells."""
    cubes = set()
    for x, y, z in points.astype(float):
        if z <= 0:
            continue
        u, v = 3 * (x - shift) / z + 3, 3 * y / z + 2
        if 0 <= u < HW[1] and 0 <= v < HW[0]:
            cubes.add((x // size, y // size, z // size))
    return cubes


def test_overlaps_are_those_of_sets_of_cubes():
    rng = np.random.default_rng(0)
    points = rng.uniform((-8, -3, -2), (8, 3, 6), (400, 3)).astype(np.float32)
    history, targets, size = [-6.0, -1.0, 0.0, 2.5, 30.0], [0.5, 1.5], 0.75
    wanted = set().union(*(_slow_cubes(points, shift, size) for shift in targets))
    expected = []
    for shift in history:
        seen = _slow_cubes(points, shift, size)
        expected.append(len(seen & wanted) / len(seen | wanted))
    got = view_overlaps(points, _cameras(history), _cameras(targets), HW, size)
    np.testing.assert_allclose(got, expected, atol=1e-12)
    assert got[-1] == 0 < got[0] < got[2]


def test_an_empty_memory_overlaps_with_nothing():
    nothing = view_overlaps(np.zeros((0, 3)), _cameras([0.0]), _cameras([0.0]), HW, 0.1)
    assert nothing.tolist() == [0.0]
    assert best_views(nothing, 4, 0.04) == ()


def test_the_best_views_come_first_and_weak_ones_not_at_all():
    overlaps = [0.2, 0.9, 0.04, 0.9, 0.03]
    assert best_views(overlaps, 4, 0.04) == (1, 3, 0, 2)
    assert best_views(overlaps, 2, 0.04) == (1, 3)
    assert best_views(overlaps, 0, 0.04) == ()
