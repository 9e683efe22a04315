"""Every format to every other; one pixel of a world point through all; what has two readings."""

import json

import numpy as np
import pytest
from camera_path_cases import (
    FORMAT_NAMES,
    HW,
    position_error,
    random_path,
    read_again,
    rotation_error,
    written,
)

from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.camera_files import (
    CameraPath,
    Reading,
    load_cameras,
    read_cameras,
    reading_of,
    write_cameras,
)
from mirage_jax.geometry.projection import project


def golden_path(folder) -> CameraPath:
    """A recorded path with a rounded lens, thinned: real float32 rotations and positions."""
    path = read_cameras(folder / "geometry.npz").taken(slice(None, None, 9))
    lens = np.array([[77.0, 0, 48], [0, 77.0, 32], [0, 0, 1]])
    return CameraPath(path.cam_to_world, np.tile(lens, (len(path), 1, 1)), path.hw)


@pytest.mark.parametrize("second", FORMAT_NAMES)
@pytest.mark.parametrize("first", FORMAT_NAMES)
def test_a_path_survives_any_two_formats(first, second, tmp_path, golden_folder):
    seed = FORMAT_NAMES.index(first) * 31 + FORMAT_NAMES.index(second)
    paths = [
        random_path(seed=seed),
        random_path(3, seed, 1e5),
        random_path(3, seed, 1e-3),
        golden_path(golden_folder),
    ]
    for number, path in enumerate(paths):
        if "geometry" in (first, second) and path.hw == HW:
            path = path.rescaled((12, 16))
        folder = tmp_path / str(number)
        once = read_again(written(folder / "1", first, path), first, path)
        twice = read_again(written(folder / "2", second, once), second, path)
        assert rotation_error(twice, path) <= 1e-6
        assert position_error(twice, path) <= 1e-6
        np.testing.assert_allclose(twice.intrinsics, path.intrinsics, rtol=1e-6, atol=1e-9)
        assert twice.hw == path.hw


@pytest.mark.parametrize("kind", FORMAT_NAMES)
def test_a_world_point_lands_on_the_same_pixel_through_every_format(kind, tmp_path):
    path = random_path(4).rescaled((12, 16))
    found = read_again(written(tmp_path, kind, path), kind, path).camera()
    # Not the routine under test: homogeneous coordinates, one camera at a time.
    for index in range(4):
        local = np.array([0.3, -0.2, 2.5, 1.0])
        point = path.cam_to_world[index] @ local
        row = path.intrinsics[index] @ np.linalg.inv(path.cam_to_world[index])[:3] @ point
        uv, z = project(point[:3].astype(np.float32), Camera(*(leaf[index] for leaf in found)))
        np.testing.assert_allclose(uv[0], row[:2] / row[2], atol=2e-5)
        np.testing.assert_allclose(z, 2.5, rtol=1e-5)


@pytest.mark.parametrize("kind", FORMAT_NAMES)
def test_times_and_names_are_kept_where_the_format_has_room(kind, tmp_path):
    path = random_path().rescaled((12, 16))
    found = read_again(written(tmp_path, kind, path), kind, path)
    if kind in ("trajectory", "nerfstudio", "realestate10k", "tum"):
        np.testing.assert_allclose(found.times, path.times, atol=1e-6)
    if kind in ("trajectory", "nerfstudio", "colmap-text", "colmap-binary", "vipe"):
        assert found.names == path.names


def test_intrinsics_of_each_frame_are_kept(tmp_path):
    path = random_path(5).rescaled((12, 16))
    lens = path.intrinsics.copy()
    lens[:, 0, 0] += np.arange(5)
    lens[:, 1, 2] += 0.1 * np.arange(5)
    path = CameraPath(path.cam_to_world, lens, path.hw)
    for kind in set(FORMAT_NAMES) - {"tum", "npy", "worldscore"}:
        found = read_again(written(tmp_path, kind, path), kind, path)
        np.testing.assert_allclose(found.intrinsics, lens, rtol=1e-6)
    with pytest.raises(ValueError, match="holds one focal length"):
        write_cameras(tmp_path / "camera_data.json", path)


def test_matrices_alone_are_refused_with_both_readings_until_one_is_chosen(tmp_path):
    path = random_path(6)
    write_cameras(tmp_path / "p.npy", path)
    with pytest.raises(ValueError, match=r"(?s)--as c2w: .* long and ends.*--as w2c: .* long"):
        read_cameras(tmp_path / "p.npy")
    found = read_cameras(tmp_path / "p.npy", reading_of(["w2c"]))
    np.testing.assert_allclose(
        found.cam_to_world @ path.cam_to_world, np.tile(np.eye(4), (6, 1, 1)), atol=1e-9
    )


def test_matrices_that_are_their_own_inverse_leave_nothing_open(tmp_path):
    np.save(tmp_path / "p.npy", np.tile(np.eye(4), (3, 1, 1)))
    assert len(read_cameras(tmp_path / "p.npy")) == 3


def test_a_transforms_file_without_its_applied_transform_has_two_readings(tmp_path):
    path = random_path(3)
    write_cameras(tmp_path / "transforms.json", path)
    content = json.loads((tmp_path / "transforms.json").read_text())
    del content["applied_transform"]
    turn = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1.0]])
    for frame in content["frames"]:
        frame["transform_matrix"] = (turn @ np.array(frame["transform_matrix"])).tolist()
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"(?s)no applied_transform.*--as original.*--as turned"):
        read_cameras(tmp_path / "transforms.json")
    found = read_cameras(tmp_path / "transforms.json", reading_of(["turned"]))
    np.testing.assert_allclose(found.cam_to_world, path.cam_to_world, atol=1e-9)


@pytest.mark.parametrize("kind", ["w2c", "trajectory", "realestate10k"])
def test_intrinsics_of_the_other_unit_are_noticed(kind, tmp_path):
    path = random_path(3)
    file = written(tmp_path, kind, path)
    fx = 513.7
    if kind == "trajectory":
        arrays = dict(np.load(file))
        arrays["intrinsics"] = arrays["intrinsics"] / np.array([[640], [480], [1]])
        np.savez(file, **arrays)
    elif kind == "w2c":
        (tmp_path / "intrinsics.txt").write_text("513.7 513.7 320 240\n")
    else:
        rows = [line.split() for line in file.read_text().splitlines()[1:]]
        pixels = [[row[0], "513.7", "513.7", "320", "240", *row[5:]] for row in rows]
        file.write_text("\n".join(["url", *(" ".join(row) for row in pixels)]))
    with pytest.raises(ValueError, match=r"(?s)do not look as.*--as pixels.*--as normalized"):
        read_cameras(file)
    word = "normalized" if kind == "trajectory" else "pixels"
    found = read_cameras(file, reading_of([word], hw=HW))
    assert found.hw == HW
    assert found.intrinsics[0, 0, 0] == pytest.approx(fx)


def test_axes_and_pixel_centres_can_be_said(tmp_path):
    path = random_path(3)
    flipped = path.cam_to_world @ np.diag([1, -1, -1, 1.0])
    np.save(tmp_path / "p.npy", flipped)
    whole = path.intrinsics[0] - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]
    np.savez(tmp_path / "t.npz", w2c=np.linalg.inv(flipped), intrinsics=whole, image_height=480,
             image_width=640)  # fmt: skip
    found = read_cameras(tmp_path / "p.npy", reading_of(["c2w", "opengl"]))
    np.testing.assert_allclose(found.cam_to_world, path.cam_to_world, atol=1e-12)
    found = read_cameras(tmp_path / "t.npz", reading_of(["opengl", "whole-pixel"]))
    np.testing.assert_allclose(found.cam_to_world, path.cam_to_world, atol=1e-9)
    np.testing.assert_allclose(found.intrinsics, path.intrinsics, atol=1e-9)


def test_a_format_may_be_read_against_its_own_convention(tmp_path):
    path = random_path(3)
    file = written(tmp_path, "tum", path)
    found = read_cameras(file, Reading(matrices="w2c"))
    np.testing.assert_allclose(found.cam_to_world[0] @ path.cam_to_world[0], np.eye(4), atol=1e-9)
    assert any("read as w2c on request" in note for note in found.notes)


def test_words_that_contradict_or_are_unknown_are_refused():
    with pytest.raises(ValueError, match="got both 'c2w' and 'w2c'"):
        reading_of(["c2w", "w2c"])
    with pytest.raises(ValueError, match="did you mean 'opengl'"):
        reading_of(["opengll"])


def test_rounded_rotations_are_made_orthonormal_and_it_is_noted(tmp_path):
    path = random_path(3)
    rows = np.round(path.cam_to_world, 4)
    np.save(tmp_path / "p.npy", rows)
    found = read_cameras(tmp_path / "p.npy", reading_of(["c2w"]))
    assert rotation_error(found, path) < 2e-4
    np.testing.assert_allclose(
        np.swapaxes(found.cam_to_world[:, :3, :3], 1, 2) @ found.cam_to_world[:, :3, :3],
        np.tile(np.eye(3), (3, 1, 1)), atol=1e-12,
    )  # fmt: skip
    assert any("made orthonormal" in note for note in found.notes)


def test_folders_are_searched_and_several_finds_are_listed(tmp_path):
    path = random_path(3)
    write_cameras(tmp_path / "sparse/0", path, "colmap-binary")
    assert read_cameras(tmp_path).names == ("00000", "00001", "00002")
    write_cameras(tmp_path / "transforms.json", path)
    with pytest.raises(ValueError, match=r"(?s)several files.*transforms.json.*images.bin"):
        read_cameras(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="a folder without any of their files"):
        read_cameras(tmp_path / "empty")


def test_colmap_images_come_in_the_order_of_their_numbers(tmp_path):
    path = CameraPath(**{**vars(random_path(3)), "names": ("img10.png", "img2.png", "img1.png")})
    for kind in ("colmap-text", "colmap-binary"):
        found = read_cameras(written(tmp_path, kind, path))
        assert found.names == ("img1.png", "img2.png", "img10.png")
        np.testing.assert_allclose(found.centers, path.centers[::-1], atol=1e-9)


def test_vipe_clips_and_missing_frames(tmp_path):
    path = random_path(3)
    (tmp_path / "pose").mkdir()
    (tmp_path / "intrinsics").mkdir()
    poses = path.cam_to_world.reshape(3, 16)
    np.savez(tmp_path / "pose/a.npz", inds=np.array([0, 2, 5]), data=poses)
    lens = np.tile([500.0, 500, 320, 240], (6, 1)) + np.arange(6)[:, None]
    np.savez(tmp_path / "intrinsics/a.npz", inds=np.arange(6), data=lens)
    found = read_cameras(tmp_path)
    np.testing.assert_allclose(found.intrinsics[:, 0, 0], [500, 502, 505])
    assert found.names == ("00000", "00002", "00005")
    (tmp_path / "intrinsics/a_camera.txt").write_text("0: PINHOLE\n1: MEI\n")
    with pytest.raises(ValueError, match="line 2: the camera is no pinhole: got 'MEI'"):
        read_cameras(tmp_path)
    np.savez(tmp_path / "pose/b.npz", inds=np.arange(3), data=poses)
    with pytest.raises(ValueError, match=r"holds 2 clips \(a, b\), expected one"):
        read_cameras(tmp_path)


def test_pixels_of_an_image_of_unknown_size_are_not_taken_for_those_of_another(tmp_path):
    file = written(tmp_path, "vipe", random_path(3))
    assert read_cameras(file).hw is None
    with pytest.raises(ValueError, match="in pixels of an image whose size the file does not tell"):
        load_cameras(file, np.eye(3))
    camera, hw = load_cameras(file, reading=Reading(hw=HW))
    assert hw == HW
    assert camera.intrinsics[0, 0, 0] == pytest.approx(513.7)


def test_worldscore_files_of_the_benchmark_have_its_picture_size(tmp_path):
    pose = np.eye(4)
    pose[:3, 3] = [1, 2, 3]
    content = {"focal_length": 500, "scale": 2, "cameras": [pose.tolist()],
               "cameras_interp": [pose.tolist()] * 3}  # fmt: skip
    (tmp_path / "camera_data.json").write_text(json.dumps(content))
    found = read_cameras(tmp_path / "camera_data.json")
    assert found.hw == (512, 512)
    np.testing.assert_allclose(found.intrinsics[0], [[500, 0, 256], [0, 500, 256], [0, 0, 1]])
    np.testing.assert_allclose(found.cam_to_world[2], pose @ np.diag([1, -1, -1, 1]))
    assert any("units of the file's scale, 2" in note for note in found.notes)


def test_formats_that_need_more_than_there_is_say_so(tmp_path):
    path = CameraPath(random_path(3).cam_to_world)
    with pytest.raises(ValueError, match="holds intrinsics and these cameras have none"):
        write_cameras(tmp_path / "t.npz", path)
    path = CameraPath(path.cam_to_world, random_path(3).intrinsics)
    with pytest.raises(ValueError, match="needs the image size"):
        write_cameras(tmp_path / "transforms.json", path)
    with pytest.raises(ValueError, match="cameras alone do not make a geometry file"):
        write_cameras(tmp_path / "g.npz", path, "geometry")
    with pytest.raises(ValueError, match="unknown camera format"):
        write_cameras(tmp_path / "somewhere", path)
    path = CameraPath(path.cam_to_world, path.intrinsics / [[640], [480], [1]], (1, 1))
    for kind in ("colmap-text", "nerfstudio", "vipe", "worldscore"):
        with pytest.raises(ValueError, match="needs the image size in pixels"):
            write_cameras(tmp_path / "a", path, kind)
    assert not list(tmp_path.iterdir())
