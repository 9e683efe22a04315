"""Camera files: hand-written examples, round trips, and broken files."""

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mirage_jax.geometry.camera import Camera, rescale_intrinsics
from mirage_jax.geometry.camera_files import (
    Geometry,
    Reading,
    load_cameras,
    load_geometry,
    save_cameras,
    save_geometry,
)

HW = (48, 64)
AS_WRITTEN = Reading(matrices="c2w", world="original")


def cameras(count: int = 5) -> Camera:
    rng = np.random.default_rng(0)
    matrix = np.tile(np.eye(4), (count, 1, 1))
    matrix[:, :3, :3] = Rotation.random(count, rng=rng).as_matrix()
    matrix[:, :3, 3] = rng.normal(size=(count, 3))
    intrinsics = np.tile(np.array([[50.0, 0, 31.0], [0, 52.0, 25.0], [0, 0, 1]]), (count, 1, 1))
    intrinsics[:, 0, 0] += np.arange(count)
    return Camera(matrix.astype(np.float32), intrinsics.astype(np.float32))


def clip(frames: int = 5) -> Geometry:
    rng = np.random.default_rng(1)
    return Geometry(
        depths=rng.uniform(0, 5, size=(frames, *HW)).astype(np.float32),
        camera=cameras(frames),
        frames=rng.integers(0, 256, size=(frames, *HW, 3), dtype=np.uint8),
        masks=rng.random((frames, *HW)) > 0.2,
        frame_indices=np.arange(frames) * 3,
        original_size=(480, 640),
    )


def one_camera(name: str, folder) -> tuple[Camera, tuple[int, int] | None]:
    """Write, by hand, a camera at (1, 2, 3) that looks along +x of the world, and read it."""
    # World to camera of OpenCV axes: right is -z, down is +y, forward is +x.
    w2c = [[0, 0, -1, 3], [0, 1, 0, -2], [1, 0, 0, -1]]
    c2w = [[0, 0, 1, 1], [0, 1, 0, 2], [-1, 0, 0, 3], [0, 0, 0, 1]]
    path = folder / name
    if name == "clip.txt":
        numbers = [40000, 0.5, 0.75, 0.5, 0.5, 0, 0, *np.ravel(w2c)]
        path.write_text("https://example.org/v\n" + " ".join(map(str, numbers)) + "\n")
    elif name == "w2c.txt":
        path.write_text(json.dumps(w2c) + "\n")
        (folder / "intrinsics.txt").write_text("[0.5 0.75 0.5 0.5]\n")
    elif name == "transforms.json":
        opengl = [[x, -y, -z, t] for x, y, z, t in c2w]
        top = {"fl_x": 32, "fl_y": 36, "cx": 32, "cy": 24, "w": 64, "h": 48}
        path.write_text(json.dumps({**top, "frames": [{"transform_matrix": opengl}]}))
    elif name == "trajectory.npz":
        k = [[[32, 0, 32], [0, 36, 24], [0, 0, 1]]]
        np.savez(path, w2c=[w2c], intrinsics=k, image_height=48, image_width=64)
    else:
        np.save(path, np.array([c2w], np.float64))
    intrinsics = np.array([[32, 0, 32], [0, 36, 24], [0, 0, 1.0]])
    reading = AS_WRITTEN if name in ("transforms.json", "path.npy") else Reading()
    return load_cameras(path, intrinsics, reading)


@pytest.mark.parametrize(
    ("name", "hw"),
    [("clip.txt", (1, 1)), ("w2c.txt", (1, 1)), ("transforms.json", HW), ("trajectory.npz", HW),
     ("path.npy", None)],
)  # fmt: skip
def test_a_hand_written_camera_looks_where_it_should(name, hw, tmp_path):
    camera, found = one_camera(name, tmp_path)
    assert found == hw
    np.testing.assert_allclose(camera.cam_to_world[0, :3, 3], [1, 2, 3])
    np.testing.assert_allclose(camera.cam_to_world[0, :3, 2], [1, 0, 0])
    np.testing.assert_allclose(camera.cam_to_world[0, :3, 1], [0, 1, 0])
    intrinsics = rescale_intrinsics(camera.intrinsics, hw or HW, HW)
    np.testing.assert_allclose(intrinsics[0], [[32, 0, 32], [0, 36, 24], [0, 0, 1]])
    assert camera.cam_to_world.dtype == camera.intrinsics.dtype == np.float32


@pytest.mark.parametrize("name", ["a b.npz", "t.json", "w2c.txt", "re10k.txt", "c.npy"])
def test_written_cameras_are_read_back(name, tmp_path):
    camera = cameras()
    path = tmp_path / "new folder" / name
    save_cameras(path, camera, HW)
    reading = AS_WRITTEN if name == "c.npy" else Reading()
    again, hw = load_cameras(path, camera.intrinsics[0], reading)
    np.testing.assert_allclose(again.cam_to_world, camera.cam_to_world, atol=1e-6)
    if hw is not None:
        intrinsics = rescale_intrinsics(again.intrinsics, hw, HW)
        np.testing.assert_allclose(intrinsics, camera.intrinsics, rtol=1e-5)
    leftovers = [p.name for p in path.parent.iterdir() if p.name.startswith(".")]
    assert not leftovers


def test_applied_transform_is_undone(tmp_path):
    save_cameras(tmp_path / "plain.json", cameras(), HW)
    content = json.loads((tmp_path / "plain.json").read_text())
    applied = np.array([[1, 0, 0, 0.5], [0, 0, 1, 0], [0, -1, 0, 2], [0, 0, 0, 1.0]])
    for frame in content["frames"]:
        frame["transform_matrix"] = (applied @ np.array(frame["transform_matrix"])).tolist()
    content["applied_transform"] = applied[:3].tolist()
    (tmp_path / "moved.json").write_text(json.dumps(content))
    moved, _ = load_cameras(tmp_path / "moved.json")
    np.testing.assert_allclose(moved.cam_to_world, cameras().cam_to_world, atol=1e-6)


def test_transforms_may_give_an_angle_in_place_of_a_focal_length(tmp_path):
    frame = {"transform_matrix": np.eye(4).tolist()}
    content = {"camera_angle_x": np.pi / 2, "w": 64, "h": 48, "frames": [frame]}
    (tmp_path / "t.json").write_text(json.dumps(content))
    camera, hw = load_cameras(tmp_path / "t.json", reading=AS_WRITTEN)
    assert hw == HW
    np.testing.assert_allclose(camera.intrinsics[0], [[32, 0, 32], [0, 32, 24], [0, 0, 1]])


def test_geometry_survives_a_round_trip(tmp_path):
    expected = clip()
    save_geometry(tmp_path / "geometry.npz", expected)
    found = load_geometry(tmp_path / "geometry.npz")
    assert found.original_size == (480, 640)
    assert found.hw == HW
    for name in ("depths", "frames", "masks", "frame_indices"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_equal(found.camera.cam_to_world, expected.camera.cam_to_world)
    camera, hw = load_cameras(tmp_path / "geometry.npz")
    assert hw == HW
    np.testing.assert_array_equal(camera.intrinsics, expected.camera.intrinsics)


def test_geometry_without_frames_points_to_the_pictures_beside_it(tmp_path):
    save_geometry(tmp_path / "geometry.npz", clip()._replace(frames=None, masks=None))
    found = load_geometry(tmp_path / "geometry.npz")
    assert (found.frames, found.masks, found.media, found.prompt) == (None, None, None, None)
    (tmp_path / "clip.mp4").touch()
    (tmp_path / "clip.txt").write_text("a room\n")
    found = load_geometry(tmp_path / "geometry.npz")
    assert (found.media, found.prompt) == (tmp_path / "clip.mp4", "a room")


def test_one_frame_goes_with_many_depths(tmp_path):
    save_geometry(tmp_path / "g.npz", clip()._replace(frames=clip().frames[:1]))
    assert load_geometry(tmp_path / "g.npz").frames.shape == (1, *HW, 3)


def test_golden_geometry_is_read(golden_folder):
    found = load_geometry(golden_folder / "geometry.npz")
    assert found.depths.shape == found.masks.shape == (73, 64, 96)
    assert found.frames.shape == (73, 64, 96, 3)
    assert found.camera.cam_to_world.shape == (73, 4, 4)
    assert found.masks.mean() > 0.9
    assert found.depths.dtype == np.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"masks": np.ones((5, 24, 32), bool)},
            r"masks has the wrong shape: got \(5, 24, 32\)",
        ),
        ({"frames": np.zeros((5, 96, 128, 3), np.uint8)}, "frames has the wrong shape"),
        ({"frames": np.zeros((3, 48, 64, 3), np.uint8)}, "frames has the wrong shape"),
        ({"camera": cameras(4)}, "poses_c2w has the wrong shape"),
        ({"depths": np.zeros((5, 48, 64))}, "depths is zero everywhere"),
        ({"depths": np.full((5, 48, 64), np.nan)}, "depths has values that are not finite"),
        ({"depths": np.ones((5, 48, 64, 1))}, r"depths has the wrong shape: got \(5, 48, 64, 1\)"),
        ({"frame_indices": np.arange(3)}, "frame_indices has the wrong shape"),
    ],
)
def test_clips_whose_parts_disagree_are_refused(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        save_geometry(tmp_path / "g.npz", clip()._replace(**change))
    assert not list(tmp_path.iterdir())


def test_float_frames_and_float_masks_are_type_errors(tmp_path):
    with pytest.raises(TypeError, match="frames has the wrong type: got float64, expected uint8"):
        save_geometry(tmp_path / "g.npz", clip()._replace(frames=clip().frames / 255))
    with pytest.raises(TypeError, match="masks is not boolean"):
        save_geometry(tmp_path / "g.npz", clip()._replace(masks=clip().masks * 0.5))


def test_a_processed_size_that_is_not_that_of_the_depths_is_refused(tmp_path):
    save_geometry(tmp_path / "g.npz", clip())
    arrays = dict(np.load(tmp_path / "g.npz"))
    np.savez(tmp_path / "h.npz", **{**arrays, "processed_size": [96, 128]})
    with pytest.raises(ValueError, match=r"processed_size disagrees .* got \(96, 128\)"):
        load_geometry(tmp_path / "h.npz")


@pytest.mark.parametrize("name", ["t.npz", "g.npz", "c.npy", "t.json", "w2c.txt", "re.txt"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.9])  # text: a cut in a line's last digits shows not
def test_a_truncated_file_is_named(name, kept, tmp_path):
    path = tmp_path / name
    if name == "g.npz":
        save_geometry(path, clip())
    else:
        save_cameras(path, cameras(), HW)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ValueError, match=name):
        load_cameras(path, cameras().intrinsics[0], AS_WRITTEN)


def test_pickled_objects_are_not_read(tmp_path):
    arrays = {"w2c": np.array([{}]), "intrinsics": np.eye(3), "image_height": 1, "image_width": 1}
    np.savez(tmp_path / "t.npz", **arrays)
    np.save(tmp_path / "t.npy", np.array([{}]))
    with pytest.raises(ValueError, match=r"'w2c' holds Python objects"):
        load_cameras(tmp_path / "t.npz")
    with pytest.raises(ValueError, match=r"t.npy holds Python objects"):
        load_cameras(tmp_path / "t.npy", intrinsics=np.eye(3))


def test_a_header_that_promises_more_than_the_archive_holds_is_refused(tmp_path):
    np.savez(tmp_path / "t.npz", w2c=np.eye(4), intrinsics=np.eye(3), image_height=1, image_width=1)
    content = (tmp_path / "t.npz").read_bytes()
    huge = content.replace(b"'shape': (4, 4), }        ", b"'shape': (4, 400000000), }", 1)
    assert huge != content
    (tmp_path / "t.npz").write_bytes(huge)
    with pytest.raises(ValueError, match=r"t.npz: (array 'w2c' is too large|.*cannot be read)"):
        load_cameras(tmp_path / "t.npz")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "url\n1 2 3\n", "line 2 is not a camera: got 3 numbers, expected 19"),
        ("a.txt", "url\n" + "x " * 19, "line 2 is not a row of numbers: got 'x x"),
        ("a.txt", "url\n", "no cameras: got no line after the first"),
        ("a.txt", "url\n0 1 1 .5 .5 .1 0 1 0 0 0 0 1 0 0 0 0 1 0\n", "line 2 has lens distortion"),
        ("a.txt", "url\n0 1 1 .5 .5 0 0 2 0 0 0 0 2 0 0 0 0 2 0\n", "not a rotation"),
        ("w2c.txt", "[[1, 0, 0], [0, 1, 0]]\n", r"line 1 has the wrong shape: got \(2, 3\)"),
        ("a.json", "{}", "no frames"),
        ("a.json", '{"frames": [{"w": 4, "fl_x": 3}]}', r"frames\[0\]: h is missing"),
        ("a.json", '{"w": 4, "h": 4, "fl_x": 3, "frames": [{}]}', "transform_matrix is missing"),
        ("a.json", '{"w": 4, "h": 4, "fl_x": 3, "k1": 0.2, "frames": [{"transform_matrix": '
         "[[1,0,0,0],[0,1,0,0],[0,0,1,0]]}]}", "the lens is distorted"),
        ("a.csv", "", "unknown camera format: got the ending '.csv'"),
    ],
)  # fmt: skip
def test_broken_text_files_are_named_with_line_or_key(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        load_cameras(tmp_path / name, reading=AS_WRITTEN)


def test_pixel_intrinsics_beside_w2c_are_noticed(tmp_path):
    save_cameras(tmp_path / "w2c.txt", cameras(), HW)
    (tmp_path / "intrinsics.txt").write_text("500 500 320 240\n")
    with pytest.raises(ValueError, match=r"do not look as the format has them \(normalized\)"):
        load_cameras(tmp_path / "w2c.txt")
    (tmp_path / "intrinsics.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"intrinsics.txt: no such file"):
        load_cameras(tmp_path / "w2c.txt")


def test_missing_arrays_missing_files_and_missing_intrinsics_are_named(tmp_path):
    np.savez(tmp_path / "t.npz", w2c=np.eye(4))
    with pytest.raises(ValueError, match=r"expected also \['image_height', 'image_width', 'intr"):
        load_cameras(tmp_path / "t.npz")
    np.save(tmp_path / "c.npy", np.eye(4)[None])
    with pytest.raises(ValueError, match=r"c.npy: intrinsics are missing"):
        load_cameras(tmp_path / "c.npy")
    with pytest.raises(FileNotFoundError, match=r"none.npz: no such file"):
        load_cameras(tmp_path / "none.npz")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "t.npz"
    save_cameras(path, cameras(), HW)
    before = path.read_bytes()
    bad = cameras()._replace(cam_to_world=cameras().cam_to_world * 2)
    with pytest.raises(ValueError, match=r"camera.cam_to_world"):
        save_cameras(path, bad, HW)
    assert path.read_bytes() == before
