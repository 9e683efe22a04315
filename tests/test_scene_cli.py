"""`mirage scene`: scenes from photographs, with the right lens and depth, and a look at them."""

import json
import struct
import zlib

import numpy as np
import pytest
from click.testing import CliRunner
from file_edits import EDITS, edited, fuzzed
from geometry.test_depth_files import room_depth
from hypothesis import given
from PIL import Image
from tiny_world import HW as TINY
from tiny_world import tiny_world

from mirage_jax.cli.main import cli
from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.projection import camera_rays, project
from mirage_jax.rollout.scene import load_scene
from mirage_jax.rollout.world import save_world

HW = (60, 100)
FOCAL = 80.0
CAMERA = Camera(np.eye(4), np.array([[FOCAL, 0, 50], [0, FOCAL, 30], [0, 0, 1.0]]))
FOV = np.degrees(2 * np.arctan(50 / FOCAL))
ROOM = room_depth(HW, CAMERA)


def run(*arguments):
    return CliRunner().invoke(cli, ["scene", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (*HW, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    np.save(tmp_path / "depth.npy", ROOM.astype(np.float32))
    return tmp_path


def new(folder, *arguments, photo="photo.png", depth="depth.npy"):
    depth = depth if depth == "latent" else folder / depth
    return run("new", folder / photo, folder / "scene", "--depth", depth, *arguments)


def made(folder):
    return load_scene(folder / "scene")


def test_a_scene_holds_the_picture_its_depth_and_its_lens(folder):
    result = new(folder, "--fov", FOV)
    assert result.exit_code == 0, result.output
    scene = made(folder)
    np.testing.assert_array_equal(scene.image, np.asarray(Image.open(folder / "photo.png")))
    np.testing.assert_allclose(scene.depth, ROOM, rtol=1e-6)
    np.testing.assert_allclose(scene.camera.intrinsics, CAMERA.intrinsics, rtol=1e-5)
    assert "field of view 64.0 x 41.1 degrees" in result.output


def test_resizing_and_cropping_keep_where_points_are_seen(folder):
    assert new(folder, "--intrinsics", "80,80,47,33", "--size", "24x32").exit_code == 0
    point = np.array([[0.3, -0.2, 2.0]])
    lens = np.array([[80, 0, 47], [0, 80, 33], [0, 0, 1.0]])
    before, _ = project(point, Camera(np.eye(4), lens))
    after, _ = project(point, made(folder).camera)
    # 60x100 is cropped to 60x80, then scaled by 0.4.
    np.testing.assert_allclose(after, (before - [10, 0]) * 0.4, atol=1e-4)
    assert made(folder).depth.shape == (24, 32)


def photograph(folder, focal=28, size=HW, orientation=1, taken=None):
    """Write a JPEG whose EXIF tells the focal length on 35 mm film."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8769)[0xA405] = focal
    if taken:
        exif.get_ifd(0x8769)[0xA002], exif.get_ifd(0x8769)[0xA003] = taken[1], taken[0]
    picture = np.zeros((*size, 3), np.uint8)
    Image.fromarray(picture).save(folder / "photo.jpg", exif=exif)


def test_the_field_of_view_is_read_from_exif(folder):
    photograph(folder)
    result = new(folder, photo="photo.jpg")
    assert "field of view" in result.output
    assert "from EXIF" in result.output
    expected = 28 * np.hypot(*HW) / np.hypot(24, 36)  # by the diagonals of film and picture
    assert made(folder).camera.intrinsics[0, 0] == pytest.approx(expected, rel=1e-5)


def test_a_turned_photograph_is_set_upright(folder):
    photograph(folder, size=(HW[1], HW[0]), orientation=6)
    result = new(folder, photo="photo.jpg")
    assert result.exit_code == 0, result.output
    assert made(folder).image.shape == (*HW, 3)


def test_exif_of_a_photograph_that_was_cropped_is_not_believed(folder):
    photograph(folder, taken=(3000, 4000))
    result = new(folder, photo="photo.jpg")
    assert "cropped since: the field of view is assumed to be 65 degrees" in result.output


def test_without_any_hint_the_field_of_view_is_assumed_and_this_is_said(folder):
    result = new(folder)
    assert "the field of view is assumed to be 65 degrees along the longer side" in result.output
    expected = 50 / np.tan(np.radians(65 / 2))
    assert made(folder).camera.intrinsics[0, 0] == pytest.approx(expected, rel=1e-5)


def test_depth_of_another_size_lands_on_the_same_surfaces(folder):
    small = Camera(np.eye(4), CAMERA.intrinsics * np.array([[0.5], [0.5], [1.0]]))
    depth = room_depth((30, 50), small)
    depth[:, :20] = 9.0  # another surface, far behind
    np.save(folder / "depth.npy", depth)
    assert new(folder, "--fov", FOV).exit_code == 0
    found = made(folder).depth
    assert set(np.unique(found[:, :38]).tolist()) == {9.0}
    inside = (slice(None), slice(50, None))
    np.testing.assert_allclose(found[inside], ROOM[inside], rtol=0.03)
    between = (found > ROOM.max() * 1.01) & (found < 8.99)
    assert not between.any()


def test_depth_of_another_aspect_is_refused(folder):
    np.save(folder / "depth.npy", np.ones((60, 60)))
    result = new(folder, "--fov", FOV)
    assert result.exit_code == 2
    assert "got depth of 60x60, expected the aspect of the picture, 60x100" in result.output


def test_distances_along_rays_are_noticed_or_converted(folder):
    np.save(folder / "depth.npy", ROOM * np.linalg.norm(camera_rays(CAMERA, HW), axis=-1))
    result = new(folder, "--fov", FOV)
    assert result.exit_code == 2
    assert "--depth-as ray" in result.output
    assert new(folder, "--fov", FOV, "--depth-as", "ray").exit_code == 0
    np.testing.assert_allclose(made(folder).depth, ROOM, rtol=1e-4)


def test_disparity_becomes_depth_by_a_range_or_by_what_is_known(folder):
    np.save(folder / "depth.npy", 300 / ROOM + 5)
    arguments = ("--fov", FOV, "--depth-as", "disparity")
    result = new(folder, *arguments)
    assert result.exit_code == 2
    assert "--near-far NEAR FAR" in result.output
    near, far = 1 / np.percentile(1 / ROOM, (98, 2))
    assert new(folder, *arguments, "--near-far", near, far).exit_code == 0
    np.testing.assert_allclose(made(folder).depth, np.clip(ROOM, near, far), rtol=1e-3)
    sparse = np.where(np.arange(ROOM.size).reshape(HW) % 40 == 0, ROOM, 0)
    np.save(folder / "known.npy", sparse)
    result = new(folder, *arguments, "--align-to", folder / "known.npy")
    assert result.exit_code == 0, result.output
    assert "150 points" in result.output
    np.testing.assert_allclose(made(folder).depth, ROOM, rtol=1e-3)


def test_edges_can_be_kept_out_of_memory(folder):
    np.save(folder / "depth.npy", np.where(np.arange(HW[1]) < 50, 1.0, 4.0) * np.ones(HW))
    assert new(folder, "--fov", FOV, "--drop-edges").exit_code == 0
    dropped = np.flatnonzero(~made(folder).keep.all(axis=0))
    assert dropped.tolist() == [48, 49, 50, 51]


def test_the_worlds_own_depth_head_gives_depth(folder):
    save_world(folder / "world", tiny_world())
    result = new(folder, "--fov", FOV, "--weights", folder / "world", depth="latent")
    assert result.exit_code == 0, result.output
    scene = made(folder)
    assert scene.depth.shape == TINY
    assert (scene.depth > 0).all()


def test_a_made_scene_is_walked_and_inspected(folder):
    assert new(folder, "--fov", FOV, "--size", "96x128").exit_code == 0
    result = run("inspect", folder / "scene", "--out", folder / "view.png", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert (found["height"], found["width"], found["cells"]) == (96, 128, 12 * 16)
    assert found["rows"] == found["kept"] == 192
    picture = np.asarray(Image.open(folder / "view.png").convert("RGB"))
    assert picture.std() > 20
    mask = np.zeros(HW, bool)
    mask[:, :50] = True
    np.save(folder / "mask.npy", mask)
    assert new(folder, "--fov", FOV, "--mask", folder / "mask.npy").exit_code == 0
    found = json.loads(run("inspect", folder / "scene", "--json").output)
    assert 0.4 < found["rows"] / found["cells"] < 0.6


def test_damaged_photographs_never_end_in_a_traceback(folder):
    photograph(folder)
    original = (folder / "photo.jpg").read_bytes()

    @fuzzed(40)
    @given(edits=EDITS)
    def check(edits):
        (folder / "photo.jpg").write_bytes(edited(original, edits))
        result = new(folder, photo="photo.jpg")
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert result.exit_code in (0, 2)

    check()


def test_a_photograph_that_claims_to_be_huge_is_refused(folder):
    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    body = header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    (folder / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    result = new(folder)
    assert result.exit_code == 2
    assert "photo.png" in result.output
    assert "pixels" in result.output
