"""What other views looked through: a ball in a room, a wall that comes into view, and no proof."""

import numpy as np
import pytest

from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.free_space import views_through

HW = (12, 16)


def views(places):
    """Cameras that look along z, moved right by `places`."""
    matrix = np.array([[12.0, 0, 8], [0, 12, 6], [0, 0, 1]])
    camera = Camera(np.tile(np.eye(4), (len(places), 1, 1)), np.tile(matrix, (len(places), 1, 1)))
    camera.cam_to_world[:, 0, 3] = places
    return camera


def slow_views_through(points, camera, depth, margin):
    """Count them one by one."""
    counts = np.zeros(len(points), int)
    for view, seen in enumerate(depth):
        for number, point in enumerate(points):
            x, y, z = point - camera.cam_to_world[view, :3, 3]
            if not (np.isfinite([x, y, z]).all() and z > 0):
                continue
            u, v = 12 * x / z + 8, 12 * y / z + 6
            if not (0.5 <= u < HW[1] - 0.5 and 0.5 <= v < HW[0] - 0.5):
                continue
            column, row = int(u - 0.5), int(v - 0.5)
            around = seen[row : row + 2, column : column + 2]
            known = np.isfinite(around) & (around > 0)
            counts[number] += bool(known.all() and (around > z * (1 + margin)).all())
    return counts


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_a_loop(seed):
    rng = np.random.default_rng(seed)
    camera = views(rng.uniform(-1, 1, 3))
    depth = rng.uniform(2, 6, (3, *HW)).repeat(1, axis=0)
    depth[rng.random(depth.shape) < 0.05] = rng.choice([0, np.nan, np.inf, -1])
    points = rng.uniform([-4, -3, -1], [4, 3, 6], (300, 3))
    points[:3] = [[np.nan, 0, 2], [0, np.inf, 2], [0, 0, -np.inf]]
    got = views_through(points, camera, depth, 0.1)
    np.testing.assert_array_equal(got, slow_views_through(points, camera, depth, 0.1))
    assert 0 < got.sum() < got.size


def test_what_stands_where_a_wall_was_seen_behind_was_looked_through():
    camera, depth = views([0.0, 0.5]), np.full((2, *HW), 4.0)
    ball = np.array([[0.2, 0.1, 2.0]])
    assert views_through(ball, camera, depth, 0.2) == 2
    # Nearer than the wall by less than the margin, on the wall, and behind it: no proof.
    for z in (3.6, 4.0, 5.0):
        assert views_through(np.array([[0.2, 0.1, z]]), camera, depth, 0.2) == 0


def test_what_no_view_looked_at_is_left_in_doubt():
    camera, depth = views([0.0]), np.full((1, *HW), 4.0)
    beside, behind_the_camera = [3.0, 0.0, 2.0], [0.0, 0.0, -2.0]
    assert not views_through(np.array([beside, behind_the_camera]), camera, depth, 0.2).any()
    depth[0, 6, 8] = 0.0  # unknown
    assert views_through(np.array([[0.0, 0.0, 2.0]]), camera, depth, 0.2) == 0


def test_a_grid_of_one_row_is_all_border_and_proves_nothing():
    camera = views([0.0])
    camera.intrinsics[:, 1, 2] = 0.5
    assert views_through(np.array([[0.0, 0.0, 2.0]]), camera, np.full((1, 1, 16), 4.0), 0.2) == 0
