"""`mirage memory` on files, and what its pictures show where."""

import json

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner
from plyfile import PlyData
from tiny_world import tiny_world

from mirage_jax.cli.main import cli
from mirage_jax.eval.pictures import memory_scene, memory_view
from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.camera_files import save_cameras
from mirage_jax.memory import files, state
from mirage_jax.memory.write import Rows, write
from mirage_jax.rollout.world import save_world


def floor_and_wall():
    """Return points of a floor (y = 1) and a wall (z = 4) of a world whose y points down."""
    x, z = np.meshgrid(np.linspace(-2, 2, 21), np.linspace(0, 4, 21))
    floor = np.stack([x, np.ones_like(x), z], -1).reshape(-1, 3)
    x, y = np.meshgrid(np.linspace(-2, 2, 21), np.linspace(-3, 1, 21))
    wall = np.stack([x, y, np.full_like(x, 4)], -1).reshape(-1, 3)
    return np.concatenate([floor, wall]).astype(np.float32)


def camera_path(count=5):
    poses = np.tile(np.eye(4, dtype=np.float32), (count, 1, 1))
    poses[:, 0, 3] = np.linspace(-1, 1, count)
    matrix = np.array([[32, 0, 32], [0, 32, 24], [0, 0, 1]], np.float32)
    return Camera(poses, np.tile(matrix, (count, 1, 1)))


@pytest.fixture
def folder(tmp_path):
    world = tiny_world()
    config = state.MemoryConfig(2000, world.spec.memory.channels)
    points = floor_and_wall()
    count = len(points)
    tokens = np.random.default_rng(0).normal(size=(count, config.channels)).astype(np.float32)
    rows = Rows(
        jnp.asarray(points), jnp.asarray(tokens), jnp.zeros((count, 3)), jnp.ones(count),
        jnp.arange(count, dtype=jnp.int32), jnp.ones(count, bool),
    )  # fmt: skip
    files.save(tmp_path / "m.safetensors", write(state.empty(config), rows, config)[0], config)
    save_cameras(tmp_path / "cameras.npz", camera_path(), (48, 64))
    save_world(tmp_path / "world", world)
    return tmp_path


def invoke(*arguments):
    return CliRunner().invoke(cli, ["memory", *map(str, arguments)])


def test_info_prints_rows_and_the_same_as_json(folder):
    result = invoke("info", folder / "m.safetensors")
    assert result.exit_code == 0, result.output
    assert "882 of 2,000" in result.output
    found = json.loads(invoke("info", folder / "m.safetensors", "--json").output)
    assert found["rows"] == 882
    assert found["bounds"] == [[-2, -3, 0], [2, 1, 4]]
    assert found["config"]["capacity"] == 2000


def test_crop_and_merge_round_trip_to_the_same_rows(folder):
    source = folder / "m.safetensors"
    for name, flag in (("in", []), ("out", ["--outside"])):
        result = invoke("crop", source, "--out", folder / name, "--box", -1, -9, -9, 1, 9, 9, *flag)
        assert result.exit_code == 0, result.output
    result = invoke("merge", folder / "in", folder / "out", "--out", folder / "all")
    assert result.exit_code == 0, result.output
    assert "became 882" in result.output
    halved = invoke(
        "merge", source, folder / "in", "--out", folder / "v", "--keep", "newest", "--voxel-size", 9
    )
    assert halved.exit_code == 0, halved.output
    assert 1 <= json.loads(invoke("info", folder / "v", "--json").output)["rows"] <= 8


def test_crop_without_a_region_says_what_to_give(folder):
    result = invoke("crop", folder / "m.safetensors", "--out", folder / "x")
    assert result.exit_code == 2
    assert "--box, --sphere and --time" in result.output


def test_export_writes_arrays_or_a_cloud_by_name(folder):
    for name in ("rows.npz", "cloud.ply"):
        assert invoke("export", folder / "m.safetensors", folder / name).exit_code == 0
    with np.load(folder / "rows.npz") as arrays:
        np.testing.assert_array_equal(arrays["positions"], floor_and_wall())
        assert arrays["tokens"].shape[0] == 882
    assert len(PlyData.read(folder / "cloud.ply")["vertex"]["x"]) == 882
    assert invoke("export", folder / "m.safetensors", folder / "x.obj").exit_code == 2


@pytest.mark.parametrize("colors", ["pca", "decoded"])
def test_view_draws_a_picture_with_the_cameras_beside_the_file(folder, colors):
    result = invoke(
        "view", folder / "m.safetensors", "--out", folder / "v.png", "--colors", colors,
        "--weights", folder / "world",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "cameras.npz" in result.output
    picture = cv2.imread(str(folder / "v.png"))
    assert picture.shape[1] > 1500
    assert (picture < 250).any(axis=-1).mean() > 0.1


def test_the_scene_is_upright_and_what_is_above_the_eyes_is_left_out():
    points = floor_and_wall()
    colors = np.zeros((len(points), 3), np.uint8)
    scene = memory_scene.drawn_scene(points, np.ones(len(points)), colors, camera_path(), (48, 64))
    np.testing.assert_allclose(scene.centers[:, 2], 0, atol=1e-6)
    assert scene.points[:, 2].min() == pytest.approx(-1)
    assert scene.points[:, 2].max() < 0.21
    assert scene.hidden == int((points[:, 1] < -0.19).sum())


def test_the_orbit_view_looks_down_from_behind_the_first_camera():
    points = floor_and_wall()
    colors = np.zeros((len(points), 3), np.uint8)
    scene = memory_scene.drawn_scene(points, np.ones(len(points)), colors, camera_path(), (48, 64))
    view = memory_scene.orbit_view(scene)
    low, high = scene.extent()
    middle, depth = view.project((low + high)[None] / 2)
    np.testing.assert_allclose(middle, 0, atol=1e-6)
    ahead = scene.cameras.cam_to_world[0, :3, 2]
    farther, farther_depth = view.project((low + high)[None] / 2 + ahead)
    assert farther_depth > depth
    assert farther[0, 1] > 0
    assert abs(farther[0, 0]) < 1e-6
    right, _ = view.project((low + high)[None] / 2 + scene.cameras.cam_to_world[0, :3, 0])
    assert right[0, 0] > 0


def test_a_frustum_has_its_corners_at_the_picture_corners():
    edges = memory_scene.frustum_edges(camera_path(), 2, (48, 64), 2.0)
    corners = {tuple(np.round(second, 6)) for _, second in edges[:4]}
    assert corners == {(-2, -1.5, 2), (2, -1.5, 2), (2, 1.5, 2), (-2, 1.5, 2)}
    assert len(edges) == 8


@pytest.mark.parametrize(("about", "expected"), [(3.7, 2), (0.99, 0.5), (1.0, 1), (70, 50)])
def test_scale_bars_have_round_lengths(about, expected):
    assert memory_view.round_length(about) == pytest.approx(expected)
