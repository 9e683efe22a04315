"""`mirage cameras`: files in, files and numbers out, mistakes answered in one message."""

import json

import numpy as np
import pytest
from camera_path_cases import position_error, random_path, rotation_error
from click.testing import CliRunner

from mirage_jax.cli.main import cli
from mirage_jax.geometry.camera_files import load_geometry, read_cameras, write_cameras


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
