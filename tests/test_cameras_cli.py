"""`mirage cameras`: files in, files and numbers out, mistakes answered in one message."""

import json

import numpy as np
import pytest
from camera_path_cases import position_error, random_path, rotation_error
from click.testing import CliRunner

from mirage_jax.cli.main import cli
from mirage_jax.geometry.camera_files import (
    Geometry,
    load_geometry,
    read_cameras,
    save_geometry,
    write_cameras,
)
from mirage_jax.geometry.path_alignment import rescaled_lengths
from mirage_jax.rollout.scene import read_picture


def run(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(cli, ["cameras", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.output


def test_a_file_is_converted_through_formats_named_by_file_or_flag(tmp_path):
    path = random_path(5)
    write_cameras(tmp_path / "transforms.json", path)
    run("convert", tmp_path / "transforms.json", tmp_path / "a/clip.txt")
    found = json.loads(
        run("convert", tmp_path / "a/clip.txt", tmp_path / "model", "--to", "colmap-binary",
            "--size", "480x640", "--json")
    )  # fmt: skip
    assert found["format"] == "colmap-binary"
    assert found["frames"] == 5
    again = read_cameras(tmp_path / "model")
    assert rotation_error(again, path) < 1e-9
    assert position_error(again, path) < 1e-9
    np.testing.assert_allclose(again.intrinsics, path.intrinsics, rtol=1e-9)


def test_converting_to_a_geometry_takes_the_depth_along(tmp_path):
    write_cameras(tmp_path / "t.npz", random_path(2).rescaled((12, 16)))
    np.save(tmp_path / "depth.npy", np.full((2, 12, 16), 2.5, np.float32))
    run("convert", tmp_path / "t.npz", tmp_path / "geometry.npz", "--depth", tmp_path / "depth.npy")
    assert load_geometry(tmp_path / "geometry.npz").depths.mean() == 2.5
    message = run("convert", tmp_path / "t.npz", tmp_path / "g", "--to", "geometry", code=2)
    assert "cameras alone do not make a geometry file" in message


def test_info_prints_numbers_notes_and_warnings(tmp_path):
    write_cameras(tmp_path / "p.npy", random_path(4))
    text = run("info", tmp_path / "p.npy", "--as", "c2w", "--fov", 90, "--size", "100x200")
    assert "note: axes taken as OpenCV" in text
    assert "field of view 90.00 x 53.13 degrees" in text
    assert "warning: the first view is not the identity" in text
    found = json.loads(run("info", tmp_path / "p.npy", "--as", "c2w", "--depth", "0.01", "--json"))
    assert found["frames"] == 4
    assert any("times the depth" in text for text in found["warnings"])


def test_info_reports_what_other_commands_refuse(tmp_path):
    matrices = random_path(4).cam_to_world @ np.diag([2, 2, -2, 1.0])
    np.save(tmp_path / "p.npy", matrices)
    text = run("info", tmp_path / "p.npy", "--as", "c2w")
    assert "4 matrices are not rotations" in text
    assert "4 matrices are mirrored" in text
    message = run("convert", tmp_path / "p.npy", tmp_path / "p.tum", "--as", "c2w", code=2)
    assert "p.npy: frame 0" in message
    assert not (tmp_path / "p.tum").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["p.npy"], "--as c2w: matrices take points of the camera to the world"),
        (["p.npy", "--as", "opengll"], "did you mean 'opengl'"),
        (["p.npy", "--as", "c2w", "--fov", "60"], "--fov needs --size"),
        (["p.npy", "--as", "c2w", "--size", "12"], "expected HEIGHTxWIDTH"),
        (["p.npy", "--as", "c2w", "--depth", "-1"], "expected a positive distance"),
        (["none.npy"], "no such file"),
        (["p.npy", "--format", "kolmap"], "unknown camera format: got 'kolmap'"),
    ],
)
def test_mistakes_are_answered_in_one_message(arguments, message, tmp_path):
    write_cameras(tmp_path / "p.npy", random_path(3))
    output = run("info", tmp_path / arguments[0], *arguments[1:], code=2)
    assert message in output
    assert "Traceback" not in output


def test_align_reports_what_is_left_and_writes_the_moved_path(tmp_path):
    path = random_path(6)
    write_cameras(tmp_path / "a.npz", path)
    moved = rescaled_lengths(path, 3.0)
    write_cameras(tmp_path / "b.npz", moved)
    found = json.loads(
        run("align", tmp_path / "a.npz", tmp_path / "c.npz", "--reference", tmp_path / "b.npz",
            "--json")
    )  # fmt: skip
    assert found["scale"] == pytest.approx(3.0)
    assert found["relative_rms"] < 1e-9
    assert found["matched_by"] == "names"
    assert position_error(read_cameras(tmp_path / "c.npz"), moved) < 1e-9
    text = run("align", tmp_path / "a.npz", tmp_path / "c.npz", "--reference", tmp_path / "b.npz")
    assert "position rms" in text
    run("align", tmp_path / "a.npz", tmp_path / "d.tum", "--first-view", "--scale", "2")
    np.testing.assert_allclose(read_cameras(tmp_path / "d.tum").cam_to_world[0], np.eye(4))
    assert "needs --reference" in run("align", tmp_path / "a.npz", tmp_path / "e.npz", code=2)


def test_resample_writes_as_many_cameras_as_asked_for(tmp_path):
    write_cameras(tmp_path / "a.npz", random_path(4))
    run("resample", tmp_path / "a.npz", tmp_path / "b.npz", "--frames", 33)
    assert len(read_cameras(tmp_path / "b.npz")) == 33
    assert "either frames or fps" in run("resample", tmp_path / "a.npz", tmp_path / "c.npz", code=2)


def test_plot_draws_the_path_and_the_points_where_they_are(tmp_path):
    camera = random_path(3).rescaled((12, 16)).camera()
    depths = np.full((3, 12, 16), 4.0, np.float32)
    save_geometry(tmp_path / "geometry.npz", Geometry(depths, camera))
    text = run("plot", tmp_path / "geometry.npz", "--out", tmp_path / "with.png")
    assert "points of" in text
    run("convert", tmp_path / "geometry.npz", tmp_path / "bare.npz")
    text = run("plot", tmp_path / "bare.npz", "--out", tmp_path / "without.png", "--json")
    assert json.loads(text)["points"] is None
    with_points, without = (read_picture(tmp_path / name) for name in ("with.png", "without.png"))
    assert with_points.shape == without.shape
    # Grey dots of the depth, and lines in the colours of the first and the last camera.
    assert (with_points == 140).all(axis=-1).sum() > 100 > (without == 140).all(axis=-1).sum()
    for color in ((0x0A, 0x9D, 0x8F), (0xE0, 0x47, 0x5B)):
        assert (without == color).all(axis=-1).sum() > 50


def test_a_named_path_is_written_and_judged_sound(tmp_path):
    run("make", "seva-spiral", tmp_path / "a.npz", "--frames", 21, "--depth", 5, "--size", "96x128")
    found = json.loads(run("info", tmp_path / "a.npz", "--depth", 5, "--json"))
    assert (found["frames"], found["warnings"]) == (21, [])
    run("make", "w*4 l*4", tmp_path / "b.tum", "--depth", 5, "--size", "96x128")
    assert len(read_cameras(tmp_path / "b.tum")) == 9
    message = run("make", "spirale", tmp_path / "c.npz", "--depth", 5, "--size", "9x9", code=2)
    assert "unknown preset" in message
    assert "worldscore-..." in run("presets")
