"""`mirage generate` with a world that has no depth head: depth comes along the path."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from rollout.release_world import WALL, release_world
from safetensors.numpy import load_file
from tiny_world import HW, flat_scene, sideways_and_back

from mirage_jax.cli.main import cli
from mirage_jax.rollout.world import save_world

FRAMES = 17


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A world by the release's conventions, and a scene with depth for each of its cameras."""
    folder = tmp_path_factory.mktemp("depth")
    save_world(folder / "world", release_world(text=0))
    path, scene = sideways_and_back(FRAMES, reach=3.0), flat_scene()
    depth = np.full((FRAMES, *HW), WALL, np.float32)
    np.savez(
        folder / "geometry.npz",
        frames=scene.image[None],
        depths=depth,
        intrinsics=path.intrinsics,
        poses_c2w=path.cam_to_world,
    )
    np.save(folder / "depth.npy", depth)
    np.save(folder / "short.npy", depth[:5])
    return folder


def generate(folder, out, *arguments):
    fixed = ["generate", "--weights", folder / "world", "--scene", folder / "geometry.npz"]
    fixed += ["--out", out, "--no-compare", *arguments]
    return CliRunner().invoke(cli, [str(argument) for argument in fixed])


def test_depth_recorded_with_the_path_or_given_in_a_file_is_what_memory_is_written_with(
    folder, tmp_path
):
    result = generate(folder, tmp_path / "recorded", "--path", "recorded")
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "recorded" / "metrics.json").read_text())
    assert metrics["frames"] == FRAMES
    assert metrics["memory"]["rows_per_chunk"] == [24 * 4, 24 * 6]
    assert metrics["references"][0] == []
    assert set(metrics["references"][1]) <= {0, 1, 2}
    assert metrics["references"][1]
    memory = load_file(tmp_path / "recorded" / "memory.safetensors")
    used = memory["positions"][: 24 * 6]
    np.testing.assert_allclose(used[:, 2], WALL, atol=1e-5)
    arguments = ("--path", "recorded", "--path-depth", folder / "depth.npy")
    result = generate(folder, tmp_path / "file", *arguments)
    assert result.exit_code == 0, result.output
    states = [load_file(tmp_path / n / "state.safetensors") for n in ("recorded", "file")]
    np.testing.assert_array_equal(states[0]["latents"], states[1]["latents"])


def test_a_path_without_depth_or_depth_of_another_length_is_refused(folder, tmp_path):
    result = generate(folder, tmp_path, "--path", "w*8")
    assert result.exit_code != 0
    assert "--path-depth: got nothing" in result.output
    arguments = ("--path", "recorded", "--path-depth", folder / "short.npy")
    result = generate(folder, tmp_path, *arguments)
    assert "--path-depth: got shape (5, 32, 48), expected [17, 32, 48]" in result.output
