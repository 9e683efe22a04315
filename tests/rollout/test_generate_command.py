"""`mirage generate` and its relatives as a user meets them: exit codes and one clear line."""

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from tiny_world import flat_scene, tiny_world

from mirage_jax.cli.main import cli
from mirage_jax.rollout.video import read_video
from mirage_jax.rollout.world import save_world


@pytest.fixture
def folder(tmp_path):
    save_world(tmp_path / "world", tiny_world())
    cv2.imwrite(str(tmp_path / "room.png"), flat_scene().image)
    np.save(tmp_path / "depth.npy", flat_scene().depth)
    return tmp_path


def _invoke(folder, *arguments, out="out"):
    base = ["generate", "--weights", str(folder / "world"), "--out", str(folder / out)]
    return CliRunner().invoke(cli, [*base, *map(str, arguments)])


def _picture(folder, *arguments):
    return _invoke(
        folder, "--scene", folder / "room.png", "--depth", folder / "depth.npy", "--fov", 90,
        *arguments,
    )  # fmt: skip


def test_generate_walks_from_a_picture_and_says_what_it_changed(folder):
    saved = ("--save", "gif,side_by_side")
    result = _picture(folder, "--path", "w*3", "--frames", 7, "--no-compare", *saved)
    assert result.exit_code == 0, result.output
    assert "note: 7 frames rounded up to 9" in result.output
    assert "note: field of view 90 as given" in result.output
    assert (folder / "out" / "metrics.json").is_file()
    assert read_video(folder / "out" / "video.mp4").shape == (9, 32, 48, 3)
    both = read_video(folder / "out" / "side_by_side.mp4")
    assert both.shape == (9, 32, 100, 3)
    # The start picture is both; later, memory shows something else than what was made of it.
    first, last = np.abs(both[:, :, :48].astype(int) - both[:, :, 52:]).mean((1, 2, 3))[[0, -1]]
    assert 2 * first < last
    assert (folder / "out" / "side_by_side.gif").is_file()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: np.save(f / "depth.npy", np.zeros((32, 48), np.float32)), "is zero everywhere"),
        (lambda f: np.save(f / "depth.npy", np.full((32, 48), np.nan)), "not finite"),
        (
            lambda f: np.save(f / "depth.npy", np.ones((8, 8))),
            "depth of 8x8, expected the aspect",
        ),
        (lambda f: (f / "world" / "denoiser.safetensors").unlink(), "lacks denoiser.safetensors"),
        (lambda f: (f / "room.png").unlink(), "--scene"),
    ],
)
def test_bad_input_ends_with_code_two_and_one_message_before_any_output(folder, break_it, message):
    break_it(folder)
    result = _picture(folder)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output
    assert not (folder / "out").exists()


def test_unknown_path_suggests_a_preset(folder):
    result = _picture(folder, "--path", "orbitt")
    assert result.exit_code == 2
    assert "did you mean 'orbit'" in result.output
