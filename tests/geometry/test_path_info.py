"""What a path is like in numbers, and that what is wrong with it is noticed."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mirage_jax.geometry.camera_files import CameraPath
from mirage_jax.geometry.path_info import describe

HW = (100, 200)


def walk(frames: int = 11, step: float = 0.1, turn: float = 2.0, lens: float = 100) -> CameraPath:
    """Forward along z, turning right a little every frame."""
    matrices = np.tile(np.eye(4), (frames, 1, 1))
    angles = turn * np.arange(frames)[:, None]
    matrices[:, :3, :3] = Rotation.from_euler("y", angles, degrees=True).as_matrix()
    matrices[:, 2, 3] = step * np.arange(frames)
    intrinsics = np.array([[lens, 0, 100], [0, lens, 50], [0, 0, 1]])
    return CameraPath(matrices, np.tile(intrinsics, (frames, 1, 1)), HW)


def changed(path: CameraPath, frame: int, matrix: np.ndarray) -> CameraPath:
    matrices = path.cam_to_world.copy()
    matrices[frame] = matrices[frame] @ matrix
    return dataclasses.replace(path, cam_to_world=matrices)


def test_a_known_walk_is_measured():
    found = describe(walk(), depth=5.0)
    assert found.frames == 11
    assert found.first_position == (0, 0, 0)
    np.testing.assert_allclose(found.last_position, (0, 0, 1), atol=1e-12)
    assert found.path_length == pytest.approx(1.0)
    assert found.mean_step == pytest.approx(0.1)
    assert found.largest_turn == pytest.approx(2.0)
    assert found.total_turn == pytest.approx(20.0)
    np.testing.assert_allclose(found.field_of_view, (90.0, 2 * np.degrees(np.arctan(0.5))))
    assert found.step_over_depth == pytest.approx(0.02)
    assert found.warnings == ()


def test_turns_are_exact_from_nothing_to_half_a_turn():
    for angle in (0.0, 1e-6, 0.1, 90.0, 179.9, 180.0):
        found = describe(walk(2, turn=angle))
        assert found.largest_turn == pytest.approx(angle, abs=1e-9)


def test_times_give_a_duration_and_must_increase():
    path = dataclasses.replace(walk(3), times=np.array([1.0, 2.0, 3.5]))
    assert describe(path).seconds == 2.5
    path = dataclasses.replace(path, times=np.array([1.0, 1.0, 0.5]))
    assert any("times do not increase" in text for text in describe(path).warnings)


@pytest.mark.parametrize(
    ("path", "depth", "expected"),
    [
        (
            changed(walk(), 3, np.diag([2, 2, 2, 1.0])),
            None,
            "1 matrices are not rotations",
        ),
        (
            changed(walk(), 4, np.diag([1, -1, 1, 1.0])),
            None,
            "1 matrices are mirrored, the",
        ),
        (changed(walk(), 0, np.diag([1, -1, -1, 1.0])), None, "the first view is not the identity"),
        (walk(step=4.0), 5.0, "a mean step is 0.8 times the depth"),
        (walk(step=1e-5), 5.0, "the whole path is 2e-05 of the depth"),
        (walk(step=-0.1, turn=0.5), None, "the camera moves mostly backward"),
        (walk(turn=60), None, "a turn of 60 degrees after frame"),
        (dataclasses.replace(walk(), intrinsics=None), None, "no intrinsics in the file"),
        (dataclasses.replace(walk(), hw=(704, 1280)), None, "the principal point is"),
        (walk(lens=0.5), None, "a field of view of 179.4"),
        (walk(lens=9000.0), None, "a field of view of 1.27"),
    ],
)
def test_what_looks_wrong_is_said(path, depth, expected):
    found = describe(path, depth)
    assert any(expected in text for text in found.warnings), found.warnings
    assert [line for line in found.lines() if expected in line]


def test_a_jump_is_found():
    matrices = walk(30).cam_to_world.copy()
    matrices[17:, 0, 3] += 9
    found = describe(dataclasses.replace(walk(30), cam_to_world=matrices))
    assert any("jumps by 9.00" in text and "after frame 16" in text for text in found.warnings)


def test_turning_on_the_spot_after_walking_is_no_jump():
    matrices = walk(30).cam_to_world.copy()
    matrices[8:, :3, 3] = matrices[8, :3, 3] + 1e-16 * np.arange(22)[:, None]
    found = describe(dataclasses.replace(walk(30), cam_to_world=matrices))
    assert not [text for text in found.warnings if "jumps" in text]


def test_one_camera_is_a_path():
    found = describe(walk(1), depth=3.0)
    assert (found.path_length, found.mean_step, found.largest_turn) == (0, 0, 0)
