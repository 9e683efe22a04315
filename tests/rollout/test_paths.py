"""What --path may say, and how lengths are rounded."""

import dataclasses

import numpy as np
import pytest
from tiny_world import flat_scene

from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.camera_files import Reading, save_cameras
from mirage_jax.rollout.paths import closes, resolve_path, typical_depth


def _resolve(text, frames=None, scene=None):
    return resolve_path(text, scene or flat_scene(), frames, default_frames=33)


def test_preset_is_rounded_up_and_still_closes():
    found = _resolve("out-and-back", 30)
    assert len(found.cameras.cam_to_world) == 33
    assert closes(found.cameras)
    assert any("30 frames rounded up to 33" in note for note in found.notes)


def test_preset_of_fitting_length_needs_no_note():
    assert _resolve("orbit").notes == ()


def test_keys_have_the_length_of_their_actions_rounded_up():
    found = _resolve("w*6 l*4")
    assert len(found.cameras.cam_to_world) == 13
    assert not closes(found.cameras)


def test_camera_file_starts_at_the_scenes_camera(tmp_path):
    rng = np.random.default_rng(0)
    pose = np.tile(np.eye(4, dtype=np.float32), (9, 1, 1))
    pose[:, :3, 3] = rng.normal(size=(9, 3))
    scene = flat_scene()
    cameras = Camera(pose, np.tile(scene.camera.intrinsics, (9, 1, 1)))
    save_cameras(tmp_path / "trajectory.npz", cameras, (32, 48))
    found = _resolve(str(tmp_path / "trajectory.npz")).cameras
    np.testing.assert_array_equal(found.cam_to_world[0], scene.camera.cam_to_world)
    step = found.cam_to_world[3, :3, 3] - found.cam_to_world[0, :3, 3]
    np.testing.assert_allclose(step, pose[3, :3, 3] - pose[0, :3, 3], atol=1e-5)


def test_recorded_path_is_the_scenes_own():
    scene = flat_scene()
    path = Camera(
        np.tile(np.eye(4, dtype=np.float32), (5, 1, 1)), np.tile(scene.camera[1], (5, 1, 1))
    )
    found = _resolve("recorded", scene=dataclasses.replace(scene, path=path))
    assert len(found.cameras.cam_to_world) == 5
    with pytest.raises(ValueError, match="--path: got 'recorded'"):
        _resolve("recorded")


def test_presets_of_other_systems_go_by_name():
    found = _resolve("gen3c-right-no-rotation", 9)
    end = found.cameras.cam_to_world[-1, :3, 3] - found.cameras.cam_to_world[0, :3, 3]
    depth = typical_depth(flat_scene())
    assert np.linalg.norm(end) == pytest.approx(0.3 * depth * 8 / 9, rel=1e-5)


def test_bare_matrices_need_to_be_told_which_way_they_go(tmp_path):
    pose = np.tile(np.eye(4), (5, 1, 1))
    pose[:, 0, 3] = np.arange(5)
    np.save(tmp_path / "path.npy", pose)
    with pytest.raises(ValueError, match="--path-as"):
        _resolve(str(tmp_path / "path.npy"))
    for word, side in (("c2w", 1), ("w2c", -1)):
        found = resolve_path(
            str(tmp_path / "path.npy"), flat_scene(), None, default_frames=33,
            reading=Reading(matrices=word),
        ).cameras  # fmt: skip
        step = found.cam_to_world[1, :3, 3] - found.cam_to_world[0, :3, 3]
        right = flat_scene().camera.cam_to_world[:3, 0]
        np.testing.assert_allclose(step, side * right, atol=1e-5)


def test_keyframes_in_a_file_are_passed_smoothly(tmp_path):
    pose = np.tile(np.eye(4, dtype=np.float32), (3, 1, 1))
    pose[:, 2, 3] = [0, 1, 4]
    scene = flat_scene()
    cameras = Camera(pose, np.tile(scene.camera.intrinsics, (3, 1, 1)))
    save_cameras(tmp_path / "keys.npz", cameras, (32, 48))
    found = resolve_path(
        str(tmp_path / "keys.npz"), scene, 17, default_frames=33, smooth=True
    ).cameras.cam_to_world
    way = np.linalg.norm(found[:, :3, 3] - found[0, :3, 3], axis=-1)
    np.testing.assert_allclose(way[[0, 8, 16]], [0, 1, 4], atol=1e-5)
    assert (np.diff(way) > 0).all()


def test_misspelt_preset_suggests_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'out-and-back'"):
        _resolve("out_and_back")
