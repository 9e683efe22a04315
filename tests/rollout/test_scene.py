"""Scenes: where they come from, how they are fitted, and how bad input is named."""

import cv2
import numpy as np
import pytest
from tiny_world import flat_scene

from mirage_jax.geometry.camera import Camera, index_camera
from mirage_jax.geometry.projection import project
from mirage_jax.rollout.new_scene import SceneRequest, open_scene
from mirage_jax.rollout.photo import Lens
from mirage_jax.rollout.scene import PictureOptions, Scene, fit_scene, load_scene
from mirage_jax.rollout.video import read_video, write_video


def _parts(**changes):
    scene = flat_scene()
    parts = {name: getattr(scene, name) for name in ("name", "image", "depth", "keep", "camera")}
    return parts | changes


def from_picture(picture, depth, **lens):
    options = PictureOptions(lens=Lens(**lens))
    return open_scene(picture, SceneRequest(depth and str(depth), picture=options))


def _tilted():
    pose = np.eye(4, dtype=np.float32)
    pose[0, 0] = 1.2
    return Camera(pose, flat_scene().camera.intrinsics)


def _with_nan():
    depth = flat_scene().depth.copy()
    depth[3, 4] = np.nan
    return depth


BAD = {
    "an image of floats": (_parts(image=np.zeros((32, 48, 3))), r"image: got float64"),
    "an image without colour": (_parts(image=np.zeros((32, 48), np.uint8)), r"image: got uint8"),
    "depth of another size": (
        _parts(depth=np.ones((16, 48), np.float32)),
        r"depth: got shape \(16, 48\), expected \(32, 48\).*resize",
    ),
    "NaN depth": (_parts(depth=_with_nan()), r"depth .*not finite.*\(3, 4\).*Set unknown depth"),
    "all-zero depth": (_parts(depth=np.zeros((32, 48), np.float32)), r"depth is zero everywhere"),
    "negative depth": (_parts(depth=-np.ones((32, 48), np.float32)), r"depth is negative"),
    "a mask of another size": (
        _parts(keep=np.ones((32, 40), bool)),
        r"mask: got shape \(32, 40\), expected \(32, 48\)",
    ),
    "a mask that keeps nothing": (_parts(keep=np.zeros((32, 48), bool)), r"mask: .*invert"),
    "a rotation that is not one": (_parts(camera=_tilted()), r"camera\.cam_to_world"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_scene_names_the_argument_and_the_cure(case):
    parts, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        Scene(**parts)


def test_fitting_a_scene_keeps_where_points_are_seen():
    scene = flat_scene(hw=(60, 100))
    fitted = fit_scene(scene, (24, 32))
    point = np.array([[0.7, -0.4, 4.0]], np.float32)
    before, _ = project(point, scene.camera)
    after, _ = project(point, fitted.camera)
    # 100 wide is cropped to 80 (aspect 4:3), then scaled by 0.4.
    np.testing.assert_allclose(after, (before - [10, 0]) * 0.4, atol=1e-4)
    assert fitted.image.shape == (24, 32, 3)
    assert fitted.depth.shape == fitted.keep.shape == (24, 32)


def test_picture_with_depth_and_field_of_view_makes_a_scene(tmp_path):
    scene = flat_scene()
    cv2.imwrite(str(tmp_path / "room.png"), scene.image[..., ::-1])
    np.save(tmp_path / "depth.npy", scene.depth)
    loaded = from_picture(tmp_path / "room.png", tmp_path / "depth.npy", fov=90.0)
    np.testing.assert_array_equal(loaded.image, scene.image)
    np.testing.assert_allclose(loaded.camera.intrinsics, scene.camera.intrinsics, rtol=1e-6)


def test_geometry_file_makes_a_scene_with_its_recorded_path(tmp_path):
    _write_geometry(tmp_path / "geometry.npz", frames=5)
    scene = load_scene(tmp_path)
    assert scene.frames.shape == (5, 32, 48, 3)
    assert index_camera(scene.path, 0).cam_to_world.shape == (4, 4)


def test_missing_pieces_of_a_picture_scene_are_asked_for(tmp_path):
    picture = tmp_path / "room.png"
    cv2.imwrite(str(picture), flat_scene().image)
    np.save(tmp_path / "depth.npy", flat_scene().depth)
    with pytest.raises(ValueError, match="--depth: got nothing"):
        from_picture(picture, None, fov=60)
    with pytest.raises(ValueError, match="--intrinsics/--fov: got neither"):
        from_picture(picture, tmp_path / "depth.npy")
    with pytest.raises(FileNotFoundError, match=r"none.npy: no such file of depth"):
        from_picture(picture, tmp_path / "none.npy", fov=60)
    with pytest.raises(FileNotFoundError, match="--scene"):
        load_scene(tmp_path / "nowhere.png")


def test_pickled_arrays_are_refused(tmp_path):
    picture = tmp_path / "room.png"
    cv2.imwrite(str(picture), flat_scene().image)
    np.save(tmp_path / "depth.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"depth.npy.*holds Python objects"):
        from_picture(picture, tmp_path / "depth.npy", fov=60)


def test_truncated_video_is_reported_with_both_counts(tmp_path):
    frames = np.repeat(flat_scene().image[None], 9, axis=0)
    write_video(tmp_path / "clip.mp4", frames)
    assert read_video(tmp_path / "clip.mp4", 9).shape == frames.shape
    with pytest.raises(ValueError, match=r"video: got 9 frames in .*, expected 17.*truncated"):
        read_video(tmp_path / "clip.mp4", 17)
    whole = (tmp_path / "clip.mp4").read_bytes()
    (tmp_path / "clip.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated"):
        read_video(tmp_path / "clip.mp4")


def test_geometry_file_with_too_short_a_clip_beside_it_is_refused(tmp_path):
    _write_geometry(tmp_path / "geometry.npz", frames=5, with_frames=False)
    write_video(tmp_path / "clip.mp4", np.repeat(flat_scene().image[None], 3, axis=0))
    with pytest.raises(ValueError, match="truncated"):
        load_scene(tmp_path)


def _write_geometry(path, frames, with_frames=True):
    scene = flat_scene()
    arrays = {
        "depths": np.repeat(scene.depth[None], frames, axis=0),
        "intrinsics": np.repeat(scene.camera.intrinsics[None], frames, axis=0),
        "poses_c2w": np.repeat(np.eye(4, dtype=np.float32)[None], frames, axis=0),
    }
    if with_frames:
        arrays["frames"] = np.repeat(scene.image[None], frames, axis=0)
    np.savez(path, **arrays)
