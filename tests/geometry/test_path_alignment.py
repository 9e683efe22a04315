"""Paths are brought onto each other exactly where they can be, and the rest is reported."""

import dataclasses

import numpy as np
import pytest
from camera_path_cases import random_path
from scipy.spatial.transform import Rotation

from mirage_jax.geometry.camera_files import CameraPath
from mirage_jax.geometry.path_alignment import (
    Similarity,
    align,
    align_first_view,
    rescaled_lengths,
    umeyama,
)


def similarity(seed: int = 5, scale: float = 3.0) -> Similarity:
    rng = np.random.default_rng(seed)
    return Similarity(scale, Rotation.random(rng=rng).as_matrix(), 10 * rng.normal(size=3))


@pytest.mark.parametrize("scale", [1 / 3, 1.0, 1000.0])
def test_a_similarity_is_found_again(scale):
    path, moved = random_path(9), similarity(scale=scale)
    found = align(path, moved.apply(path))
    assert found.similarity.scale == pytest.approx(scale, rel=1e-9)
    np.testing.assert_allclose(found.similarity.rotation, moved.rotation, atol=1e-9)
    assert found.relative_rms < 1e-9
    assert found.rotation_max < 1e-6
    np.testing.assert_allclose(found.path.centers, moved.apply(path).centers, rtol=1e-9)


def test_noise_is_reported_and_no_other_similarity_is_better():
    rng = np.random.default_rng(0)
    path = random_path(40)
    target = similarity().apply(path)
    noisy = target.cam_to_world.copy()
    noisy[:, :3, 3] += 0.3 * rng.normal(size=(40, 3))
    reference = dataclasses.replace(target, cam_to_world=noisy)
    found = align(path, reference)
    assert found.similarity.scale == pytest.approx(3.0, rel=0.02)
    assert 0.3 < found.position_rms < 0.6
    best = found.similarity
    for _ in range(30):
        turn = Rotation.from_rotvec(1e-2 * rng.normal(size=3)).as_matrix() @ best.rotation
        other = Similarity(best.scale * (1 + 1e-2 * rng.normal()), turn,
                           best.translation + 1e-2 * rng.normal(size=3))  # fmt: skip
        rest = other.apply(path).centers - reference.centers
        assert np.sqrt((rest**2).sum(axis=1).mean()) > found.position_rms


def test_a_reflection_is_not_taken_for_a_rotation():
    source = np.random.default_rng(1).normal(size=(20, 3))
    found = umeyama(source, source * [1, 1, -1])
    assert np.linalg.det(found.rotation) == pytest.approx(1.0)


@pytest.mark.parametrize("step", [0.2, 0.0])
def test_on_a_line_the_cameras_rotations_decide(step):
    path = random_path(6)
    straight = path.cam_to_world.copy()
    straight[:, :3, 3] = step * np.arange(6)[:, None] * [1, 2, 3]
    path = dataclasses.replace(path, cam_to_world=straight)
    found = align(path, similarity().apply(path))
    assert found.rotation_max < 1e-6
    assert found.position_rms < 1e-9
    assert found.similarity.scale == pytest.approx(3.0 if step else 1.0)
    assert any("positions lie on a line" in note for note in found.path.notes)


def test_lengths_can_be_kept():
    path = random_path(9)
    found = align(path, similarity().apply(path), with_scale=False)
    assert found.similarity.scale == 1.0
    assert found.relative_rms > 0.5


def test_cameras_correspond_by_name_then_by_time_then_in_order():
    path = random_path(9)
    target = similarity().apply(path)
    shuffled = target.taken(np.array([4, 2, 8, 1, 7]))
    assert align(path, shuffled).matched_by == "names"
    assert align(path, shuffled).position_rms < 1e-9
    unnamed = dataclasses.replace(shuffled, names=None)
    assert align(path, unnamed).matched_by == "times"
    assert align(path, unnamed).matched == 5
    assert align(path, unnamed).position_rms < 1e-9
    bare = CameraPath(target.cam_to_world)
    assert align(path, bare).matched_by == "order"
    with pytest.raises(ValueError, match="no correspondence: got 9 cameras against 4"):
        align(path, bare.taken(slice(4)))


def test_the_first_view_goes_where_it_should_and_the_rest_follows():
    path = random_path(5)
    found = align_first_view(path)
    np.testing.assert_array_equal(found.cam_to_world[0], np.eye(4))
    between = np.linalg.inv(path.cam_to_world[0]) @ path.cam_to_world[3]
    np.testing.assert_allclose(found.cam_to_world[3], between, atol=1e-12)
    goal = random_path(5, seed=9).cam_to_world[0]
    np.testing.assert_array_equal(align_first_view(path, goal).cam_to_world[0], goal)


def test_another_unit_changes_lengths_only():
    path = random_path(5)
    found = rescaled_lengths(path, 4.0)
    np.testing.assert_allclose(found.centers, 4 * path.centers)
    np.testing.assert_array_equal(found.cam_to_world[:, :3, :3], path.cam_to_world[:, :3, :3])
    with pytest.raises(ValueError, match=r"scale is out of range: got -1"):
        rescaled_lengths(path, -1.0)
