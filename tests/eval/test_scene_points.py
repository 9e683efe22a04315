"""Points of a scene from whatever holds them, in bounded memory."""

import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plyfile import PlyData, PlyElement

from mirage_jax.eval.pictures.scene_points import MOST_POINTS, load_points
from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.camera_files import Geometry, save_geometry

POINTS = np.array([[1.0, 2, 3], [-4, 5, 6], [7, 8, -9]])
COLORS = np.array([[255, 0, 10], [0, 255, 20], [0, 0, 30]])


def write_ply(path, text: bool = False) -> None:
    kinds = [("x", "f4"), ("y", "f4"), ("z", "f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
    rows = [(*point, *color) for point, color in zip(POINTS, COLORS, strict=True)]
    PlyData([PlyElement.describe(np.array(rows, kinds), "vertex")], text=text).write(str(path))


def write_binary_model(path, count: int = 3) -> None:
    records = [
        struct.pack("<Q3d3BdQ", index, *point, *color.tolist(), 0.5, 2) + bytes(16)
        for index, (point, color) in enumerate(zip(POINTS, COLORS, strict=True))
    ]
    path.write_bytes(struct.pack("<Q", count) + b"".join(records) * (count // 3))


def write_text_model(path) -> None:
    rows = [
        f"{index} {' '.join(map(str, [*point, *color]))} 0.5 1 2 3 4"
        for index, (point, color) in enumerate(zip(POINTS, COLORS, strict=True))
    ]
    path.write_text("# heading\n" + "\n".join(rows) + "\n")


@pytest.mark.parametrize("name", ["a.ply", "text.ply", "points3D.bin", "points3D.txt", "a.npy"])
def test_points_and_colours_are_read(name, tmp_path):
    file = tmp_path / name
    if file.suffix == ".ply":
        write_ply(file, name == "text.ply")
    elif name == "points3D.bin":
        write_binary_model(file)
    elif name == "points3D.txt":
        write_text_model(file)
    else:
        np.save(file, np.concatenate([POINTS, COLORS], axis=1))
    for source in [file, tmp_path] if name.startswith("points3D") else [file]:
        points, colors = load_points(source)
        np.testing.assert_allclose(points, POINTS)
        np.testing.assert_allclose(colors, COLORS)


def test_depth_is_unprojected_and_sky_left_out(tmp_path):
    depths = np.full((2, 4, 6), 5.0, np.float32)
    depths[:, 0] = 1e4
    depths[:, 1] = 0
    lens = np.array([[6.0, 0, 3], [0, 6, 2], [0, 0, 1]], np.float32)
    camera = Camera(np.tile(np.eye(4, dtype=np.float32), (2, 1, 1)), np.tile(lens, (2, 1, 1)))
    frames = np.full((2, 4, 6, 3), 200, np.uint8)
    save_geometry(tmp_path / "geometry.npz", Geometry(depths, camera, frames))
    points, colors = load_points(tmp_path / "geometry.npz")
    assert points.shape == (24, 3)
    np.testing.assert_allclose(points[:, 2], 5)
    np.testing.assert_allclose(points[0], [(0.5 - 3) / 6 * 5, (2.5 - 2) / 6 * 5, 5], rtol=1e-6)
    assert (colors == 200).all()


def test_large_models_are_thinned_evenly(tmp_path):
    write_binary_model(tmp_path / "points3D.bin", 3 * MOST_POINTS)
    points, _ = load_points(tmp_path / "points3D.bin")
    assert MOST_POINTS / 2 < len(points) <= MOST_POINTS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 999999999999\nproperty float x\n"
         b"end_header\n", "announces more than it holds"),
        ("a.ply", b"nothing", "not a point cloud"),
        ("points3D.bin", struct.pack("<Q", 2**60), "records announced that do not fit"),
        ("points3D.txt", b"1 2 3\n", "line 1 is not a point"),
        ("points3D.txt", b"# none\n", "there are no points"),
        ("a.png", b"", "not a file of points"),
    ],
)  # fmt: skip
def test_broken_files_are_named(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}.*{message}"):
        load_points(tmp_path / name)


@settings(max_examples=60, deadline=None, derandomize=True, database=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(which=st.integers(0, 3), place=st.floats(0, 1), new=st.binary(max_size=9), cut=st.booleans())
def test_damaged_points_are_read_or_refused(which, place, new, cut, tmp_path):
    file = tmp_path / ("a.ply", "b.ply", "points3D.bin", "points3D.txt")[which]
    if which < 2:
        write_ply(file, which == 1)
    elif which == 2:
        write_binary_model(file)
    else:
        write_text_model(file)
    content = file.read_bytes()
    at = int(place * len(content))
    file.write_bytes(content[:at] + new + (b"" if cut else content[at + len(new) :]))
    message = ""
    try:
        points, colors = load_points(file)
    except ValueError as error:
        message = str(error)
    if message:
        assert file.name in message
    else:
        assert np.isfinite(points).all()
        assert points.shape == colors.shape
