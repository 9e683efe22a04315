"""`mirage depth`: what a depth file says, and bringing it to the scale of what is known."""

import json

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from file_edits import EDITS, edited, fuzzed
from geometry.test_depth_files import CAMERA, HW, room_depth
from hypothesis import given

from mirage_jax.cli.main import cli
from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.camera_files import save_cameras
from mirage_jax.geometry.depth_files import read_depth
from mirage_jax.geometry.projection import camera_rays, unproject
from mirage_jax.memory import files, state, write

ROOM = room_depth()


def run(*arguments):
    return CliRunner().invoke(cli, ["depth", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path):
    """The room seen from a place in the world: depth too small by 3, cameras, points, a memory."""
    place = np.eye(4)
    place[:3, 3] = 1.0, -2.0, 0.5
    camera = Camera(place[None], CAMERA.intrinsics[None])
    save_cameras(tmp_path / "cameras.npz", camera, HW)
    np.save(tmp_path / "small.npy", (ROOM / 3).astype(np.float32))
    np.save(tmp_path / "true.npy", ROOM.astype(np.float32))
    points = unproject(ROOM, Camera(place, CAMERA.intrinsics))[::3, ::3].reshape(-1, 3)
    np.save(tmp_path / "points.npy", points)
    grid = (HW[0] // 8, HW[1] // 8)
    cells = np.array(CAMERA.intrinsics)[None].astype(np.float32)
    cells[:, :2] /= 8
    depth = ROOM[4::8, 4::8][None].astype(np.float32)
    config = state.MemoryConfig(capacity=200, channels=3, page_rows=40)
    memory, _ = write.write_frames(
        state.empty(config),
        np.zeros((1, *grid, 3), np.float32),
        depth,
        np.ones(depth.shape, bool),
        Camera(place[None].astype(np.float32), cells),
        config,
        np.zeros(1, np.int32),
    )
    files.save(tmp_path / "memory.safetensors", memory, config)
    return tmp_path


KNOWN = {
    "a file": ("--to", "true.npy"),
    "a memory": ("--memory", "memory.safetensors", "--cameras", "cameras.npz"),
    "points": ("--points", "points.npy", "--cameras", "cameras.npz"),
}


def flags(folder, kind):
    return [folder / word if "." in word else word for word in KNOWN[kind]]


@pytest.mark.parametrize("kind", KNOWN)
def test_depth_wrong_by_three_is_aligned_within_two_percent(kind, folder):
    target = folder / "aligned.npz"
    result = run("align", folder / "small.npy", target, *flags(folder, kind), "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert abs(found["scale"] / 3 - 1) < 0.02
    assert found["residual"] < 0.03
    aligned = read_depth(target).values[0]
    assert np.median(np.abs(aligned / ROOM - 1)) < 0.02


@pytest.mark.parametrize("kind", KNOWN)
def test_depth_of_another_scene_is_refused_and_nothing_is_written(kind, folder):
    other = np.random.default_rng(0).permutation(ROOM.reshape(-1)).reshape(HW)
    np.save(folder / "other.npy", other)
    target = folder / "aligned.npz"
    result = run("align", folder / "other.npy", target, *flags(folder, kind))
    assert result.exit_code == 2
    assert "other.npy: does not agree with what is known" in result.output
    assert "points agree within 10%" in result.output
    assert not target.exists()


def test_disparity_is_aligned_by_scale_and_shift(folder):
    np.save(folder / "disparity.npy", 40 / ROOM + 7)
    target = folder / "aligned.npz"
    result = run(
        "align", folder / "disparity.npy", target, "--depth-as", "disparity",
        "--to", folder / "true.npy",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "1/z = " in result.output
    np.testing.assert_allclose(read_depth(target).values[0], ROOM, rtol=1e-3)


def test_frames_may_be_aligned_each_alone(folder):
    factors = np.array([1.0, 2.0, 5.0])[:, None, None]
    np.save(folder / "many.npy", factors * ROOM)
    np.save(folder / "truth.npy", np.repeat(ROOM[None], 3, axis=0))
    arguments = ("align", folder / "many.npy", folder / "a.npz", "--to", folder / "truth.npy")
    result = run(*arguments, "--each")
    assert result.exit_code == 0, result.output
    aligned = read_depth(folder / "a.npz").values
    np.testing.assert_allclose(aligned, np.repeat(ROOM[None], 3, axis=0), rtol=1e-5)
    assert run(*arguments).exit_code == 2


def test_what_align_needs_is_asked_for(folder):
    small, target = folder / "small.npy", folder / "a.npz"
    assert "needs one of --to, --memory and --points" in run("align", small, target).output
    result = run("align", small, target, "--memory", folder / "memory.safetensors")
    assert "--memory: got no cameras" in result.output
    result = run("align", small, target, *flags(folder, "points"), "--frame", "4")
    assert "--frame: got '4' for 1 maps" in result.output


def test_info_says_what_a_file_holds_and_what_looks_wrong(folder):
    result = run("info", folder / "true.npy", "--json")
    found = json.loads(result.output)
    assert (found["frames"], found["height"], found["width"]) == (1, *HW)
    assert found["median"] == pytest.approx(np.median(ROOM), rel=1e-5)
    assert found["edges"] < 0.05  # corners of a room are no edges
    assert "taken as z-depth" in found["warnings"][0]
    stepped = np.where(np.arange(HW[1]) < 32, 1.0, 3.0) * np.ones(HW)
    np.save(folder / "steps.npy", stepped)
    found = json.loads(run("info", folder / "steps.npy", "--json").output)
    assert found["edges"] == pytest.approx(4 / 64)  # two columns on either side of the step
    np.save(folder / "mm.npy", 1000 * ROOM)
    assert "--depth-as mm" in run("info", folder / "mm.npy").output
    distance = ROOM * np.linalg.norm(camera_rays(CAMERA, HW), axis=-1)
    np.save(folder / "ray.npy", distance)
    result = run("info", folder / "ray.npy", "--intrinsics", "50,50,32,24")
    assert "--depth-as ray" in result.output


def test_damaged_files_never_end_in_a_traceback(folder):
    picture = folder / "d.png"
    cv2.imwrite(str(picture), np.round(ROOM * 1000).astype(np.uint16))
    originals = {name: (folder / name).read_bytes() for name in ("small.npy", "d.png")}

    @fuzzed(25)
    @given(edits=EDITS)
    def check(edits):
        for name, content in originals.items():
            (folder / name).write_bytes(edited(content, edits))
            result = run("info", folder / name, "--depth-as", "mm")
            assert result.exit_code in (0, 2)
            assert result.exit_code == 0 or name in result.output
            assert result.exception is None or isinstance(result.exception, SystemExit)

    check()
