"""The geometry of the check on photographs, on surfaces whose answer is known."""

import cv2
import numpy as np

from benchmarks import castel
from mirage_jax.geometry.camera import Camera
from mirage_jax.rollout.scene import Scene


def test_depth_of_a_wall_arrives_at_the_colour_camera_without_holes():
    turn, _ = cv2.Rodrigues(castel.TURN)
    found = castel.registered(np.full(castel.HW, 0.3))
    inside = found[60:-60, 100:-100]
    assert (inside > 0).all()
    # The plane z = 0.3 of the depth camera, met by the colour camera's rays.
    normal = turn[:, 2]
    column, row = np.meshgrid(np.arange(640), np.arange(480))
    rays = np.stack([column, row, np.ones_like(row)], -1) @ np.linalg.inv(castel.COLOUR).T
    expected = (0.3 + normal @ castel.SHIFT) / (rays @ normal)
    np.testing.assert_allclose(inside, expected[60:-60, 100:-100], rtol=1e-4)


def test_pixels_arrive_where_the_other_camera_sees_them_and_hidden_ones_do_not():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (24, 32, 3)).astype(np.uint8)
    lens = np.array([[16, 0, 16], [0, 16, 12], [0, 0, 1]], np.float32)
    depth = np.full((24, 32), 2.0, np.float32)
    depth[:, 20:] = 1.0
    first = Scene("s", picture, depth, np.ones((24, 32), bool), Camera(np.eye(4), lens))
    pose = np.eye(4)
    pose[0, 3] = 0.5  # the far half moves 4 pixels to the left
    sampled, valid = castel.reproject(first, np.full((24, 32), 2.0), Camera(pose, lens))
    np.testing.assert_array_equal(sampled[:, :16], picture[:, 4:20])
    assert valid[:, :16].all()
    assert not valid[:, 16:].any()
