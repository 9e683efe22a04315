"""Resampled paths go through the cameras they were given, smoothly and in time."""

import dataclasses

import numpy as np
import pytest
from camera_path_cases import random_path
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mirage_jax.geometry.camera import Camera, validate_camera
from mirage_jax.geometry.camera_files import CameraPath
from mirage_jax.geometry.interpolation import resample


def circle(frames: int) -> CameraPath:
    """Once round at even speed, facing inward: angular speed and path are known."""
    angle = np.linspace(0, 2 * np.pi, frames)
    matrices = np.tile(np.eye(4), (frames, 1, 1))
    matrices[:, :3, :3] = Rotation.from_rotvec(np.outer(-angle, [0, 1, 0])).as_matrix()
    matrices[:, :3, 3] = np.stack([np.sin(angle), 0 * angle, 1 - np.cos(angle)], axis=-1)
    return CameraPath(matrices, times=angle)


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(count=st.integers(1, 9), frames=st.integers(1, 60), seed=st.integers(0, 99))
def test_ends_are_kept_and_all_between_are_cameras(count, frames, seed):
    path = random_path(count, seed)
    found = resample(path, frames)
    assert len(found) == frames
    validate_camera(Camera(found.cam_to_world, found.intrinsics), "found")
    np.testing.assert_array_equal(found.cam_to_world[0], path.cam_to_world[0])
    if frames > 1:
        np.testing.assert_array_equal(found.cam_to_world[-1], path.cam_to_world[-1])


def test_given_cameras_are_hit_bit_for_bit_at_their_times():
    path = dataclasses.replace(random_path(5), times=np.array([0.0, 1, 2, 3, 4]))
    np.testing.assert_array_equal(resample(path, 17).cam_to_world[::4], path.cam_to_world)


def test_a_circle_stays_one_between_sparse_cameras():
    found, true = resample(circle(17), 161), circle(161)
    # A third of what straight lines between the cameras, 22.5 degrees apart, would miss.
    assert np.abs(found.centers - true.centers).max() < (1 - np.cos(np.radians(11.25))) / 3
    relative = np.swapaxes(found.cam_to_world[:, :3, :3], 1, 2) @ true.cam_to_world[:, :3, :3]
    # The spline's ends are natural, the circle's are not.
    assert np.degrees(Rotation.from_matrix(relative).magnitude()).max() < 0.5
    turns = Rotation.from_matrix(found.cam_to_world[:, :3, :3])
    speed = (turns[1:] * turns[:-1].inv()).magnitude()
    assert np.abs(np.diff(speed)).max() < 0.02 * speed.mean()


def test_standing_still_stays_still():
    matrices = np.tile(np.eye(4), (4, 1, 1))
    matrices[0, 0, 3], matrices[3, 0, 3] = -1, 1
    found = resample(CameraPath(matrices), 31)
    np.testing.assert_allclose(found.centers[10:21], 0, atol=1e-12)
    assert (np.diff(found.centers[:, 0]) >= 0).all()


def test_uneven_times_give_even_ones():
    path = circle(40)
    kept = np.array([0, 1, 2, 5, 9, 10, 14, 17, 20, 24, 28, 30, 33, 36, 39])
    found = resample(path.taken(kept), 40)
    assert np.abs(found.centers - path.centers).max() < 2e-2
    assert found.names is None
    np.testing.assert_allclose(np.diff(found.times), found.times[1])


def test_frames_a_second_keep_the_duration():
    path = dataclasses.replace(random_path(4), times=np.array([1.0, 2.0, 2.5, 3.0]))
    found = resample(path, fps=30)
    assert len(found) == 61
    np.testing.assert_allclose(found.times, 1 + np.arange(61) / 30)
    np.testing.assert_array_equal(found.cam_to_world[-1], path.cam_to_world[-1])
    assert len(resample(CameraPath(path.cam_to_world), fps=8)) == 2  # 4 cameras at 16 a second


def test_intrinsics_are_interpolated():
    path = random_path(3)
    lens = path.intrinsics.copy()
    lens[:, 0, 0] = [100, 200, 300]
    found = resample(dataclasses.replace(path, intrinsics=lens, times=np.arange(3.0)), 5)
    np.testing.assert_allclose(found.intrinsics[:, 0, 0], [100, 150, 200, 250, 300])


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "either frames or fps"),
        ({"frames": 3, "fps": 3}, "either frames or fps"),
        ({"frames": 0}, "frames is out of range: got 0"),
        ({"fps": 1e12}, "fps is out of range"),
        ({"fps": float("nan")}, "fps is out of range"),
    ],
)
def test_bad_requests_are_named(request_, message):
    with pytest.raises(ValueError, match=message):
        resample(random_path(3), **request_)


def test_times_that_do_not_increase_are_named():
    path = dataclasses.replace(random_path(3), times=np.array([0.0, 2.0, 2.0]))
    with pytest.raises(ValueError, match="times must increase: got 2 then 2 at frames 1 and 2"):
        resample(path, 5)
