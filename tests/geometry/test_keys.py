"""Paths typed as keys."""

import numpy as np
import pytest

from mirage_jax.geometry.camera import Camera, camera_center, validate_camera
from mirage_jax.geometry.keys import parse_keys, trajectory_from_keys
from mirage_jax.geometry.trajectories import TrajectoryOptions

START = Camera(np.eye(4, dtype=np.float32), np.diag([64.0, 64.0, 1.0]).astype(np.float32))


def walk(text: str, **options) -> Camera:
    return trajectory_from_keys(text, START, 5.0, TrajectoryOptions(**options))


def test_the_grammar_counts_frames():
    assert parse_keys("w*3 wl . l*2") == ("w", "w", "w", "wl", ".", "l", "l")


def test_one_action_is_one_frame_after_the_start():
    path = walk("w*16 l*24")
    assert path.cam_to_world.shape == (41, 4, 4)
    np.testing.assert_array_equal(path.cam_to_world[0], START.cam_to_world)
    validate_camera(path, "path")


def test_walking_covers_its_documented_distance():
    np.testing.assert_allclose(camera_center(walk("w*16"))[-1], [0, 0, 1.6], atol=1e-6)
    np.testing.assert_allclose(camera_center(walk("d*10", amplitude=2))[-1], [2, 0, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("l*30", [1, 0, 0]), ("j*30", [-1, 0, 0]), ("i*10", [0, -0.5, np.sqrt(0.75)]),
     ("k*40", [0, np.sqrt(0.75), 0.5])],
)  # fmt: skip
def test_turning_follows_the_keys_and_pitch_is_limited(text, expected):
    np.testing.assert_allclose(walk(text).cam_to_world[-1, :3, 2], expected, atol=1e-6)


def test_walking_stays_level_while_looking_up():
    assert (camera_center(walk("i*10 w*10"))[:, 1] == 0).all()


def test_walking_after_a_turn_follows_the_heading():
    np.testing.assert_allclose(camera_center(walk("l*30 w*10"))[-1], [1, 0, 0], atol=1e-6)


@pytest.mark.parametrize("text", ["wl*9 sj*9", "wa*5 sd*5", "l*7 j*7", "wdl*4 saj*4"])
def test_undoing_the_keys_leads_back_to_the_start(text):
    path = walk(text).cam_to_world
    np.testing.assert_allclose(path[-1], path[0], atol=1e-6)
    half = len(path) // 2
    np.testing.assert_allclose(path[: half + 1], path[half:][::-1], atol=1e-6)


def test_a_longer_request_is_filled_up_by_staying():
    path = trajectory_from_keys("w*4", START, 5.0, frames=9)
    assert len(path.cam_to_world) == 9
    np.testing.assert_array_equal(path.cam_to_world[4], path.cam_to_world[8])
    with pytest.raises(ValueError, match="frames is too small for the keys: got 4, expected at"):
        trajectory_from_keys("w*4", START, 5.0, frames=4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("w*4 x*3", "action 2 is not understood: got 'x\\*3'"),
        ("w-4", "action 1 is not understood"),
        ("ww", "expected different keys"),
        ("w*", "action 1 is not understood"),
        ("w. l", "action 1 is not understood"),
        ("w*0", "action 1 has a count out of range"),
        ("w*99999999999999999999", "action 1 has a count out of range"),
        ("  ", "nothing to do"),
    ],
)
def test_mistyped_keys_are_named_with_their_place(text, message):
    with pytest.raises(ValueError, match=message):
        parse_keys(text)
