"""Presets of other systems go where theirs do: each against a loop in their own convention."""

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from mirage_jax.geometry.camera import Camera, camera_center
from mirage_jax.geometry.camera_files import read_cameras
from mirage_jax.geometry.path_alignment import align_first_view
from mirage_jax.geometry.projection import project
from mirage_jax.geometry.trajectories import PRESETS, TrajectoryOptions, trajectory

START = Camera(
    np.eye(4, dtype=np.float32), np.array([[64, 0, 64], [0, 64, 48], [0, 0, 1]], np.float32)
)


def walk(name: str, frames: int = 13, depth: float = 4.0, **options) -> Camera:
    return trajectory(name, START, frames, depth, TrajectoryOptions(hw=(96, 128), **options))


def test_gen3c_stops_one_step_short_of_its_distance():
    end = camera_center(walk("gen3c-right-no-rotation", 5, 3.0))[-1]
    np.testing.assert_allclose(end, [0.72, 0, 0], atol=1e-6)


@pytest.mark.parametrize("turning", ["", "-no-rotation", "-trajectory-aligned"])
@pytest.mark.parametrize("name", ["left", "right", "up", "down", "zoom-in", "zoom-out",
                                  "clockwise", "counterclockwise"])  # fmt: skip
def test_gen3c_presets_are_its_world_to_camera_matrices(name, turning):
    frames, depth, distance = 13, 4.0, 0.3
    way = {"left": (-1, 0, 0), "right": (1, 0, 0), "up": (0, -1, 0), "down": (0, 1, 0),
           "zoom-in": (0, 0, 1), "zoom-out": (0, 0, -1)}  # fmt: skip
    for index, found in enumerate(walk(f"gen3c-{name}{turning}", frames, depth).cam_to_world):
        if name in way:
            place = np.array(way[name]) * index * distance * depth / frames
        else:
            angle, side = 2 * np.pi * index / (frames - 1), 1 if name == "clockwise" else -1
            place = distance * depth * np.array([side * (np.cos(angle) - 1), np.sin(angle), 0])
        target = np.array([0, 0, depth]) + {"": 0, "-no-rotation": 1}.get(turning, 2) * place
        ahead = (target - place) / np.linalg.norm(target - place)
        right = np.cross([0, 1, 0], ahead)
        right /= np.linalg.norm(right)
        w2c = np.eye(4)
        w2c[:3] = np.column_stack([[right, np.cross(ahead, right), ahead], -place])
        np.testing.assert_allclose(found, np.linalg.inv(w2c), atol=1e-6)


@pytest.mark.parametrize(
    "name",
    ["orbit", "lemniscate", *(f"move-{way}" for way in ("left", "right", "up", "down", "forward"))],
)
def test_seva_faces_its_look_at_point(name):
    uv, z = project(np.array([[0.0, 0.0, 4.0]]), walk(f"seva-{name}"))
    np.testing.assert_allclose(uv, np.broadcast_to([64.0, 48.0], uv.shape), atol=1e-3)
    assert (z > 0).all()


@pytest.mark.parametrize(
    ("name", "end"),
    [("move-left", [-1, 0, 0]), ("move-right", [1, 0, 0]), ("move-up", [0, -1, 0]),
     ("move-down", [0, 1, 0]), ("move-forward", [0, 0, 1]), ("move-backward", [0, 0, -1]),
     ("dolly-zoom-in", [0, 0, -1]), ("dolly-zoom-out", [0, 0, 1])],
)  # fmt: skip
def test_seva_moves_by_99_hundredths_of_a_tenth_of_the_depth(name, end):
    path = walk(f"seva-{name}")
    np.testing.assert_allclose(camera_center(path)[-1], 0.099 * 4.0 * np.array(end), atol=1e-6)


def test_seva_orbits_and_draws_its_figure_of_eight():
    orbit = camera_center(walk("seva-orbit", 12))
    np.testing.assert_allclose(np.linalg.norm(orbit - [0, 0, 4], axis=-1), 4, rtol=1e-6)
    np.testing.assert_allclose(orbit[3], [4, 0, 4], atol=1e-5)
    eight = camera_center(walk("seva-lemniscate", 400))
    assert np.abs(eight[:, 0]).max() == pytest.approx(4 * np.tan(np.radians(30)), rel=1e-3)
    assert np.abs(eight[:, 1]).max() == pytest.approx(4 * np.tan(np.radians(30)) / 8**0.5, rel=1e-3)


def test_seva_spirals_as_its_opengl_loop_does():
    flip, cameras = np.diag([1, -1, -1, 1.0]), []
    for angle in np.linspace(0, 4 * np.pi, 13, endpoint=False):
        place = np.array([np.cos(angle), -np.sin(angle), -0.5 * np.sin(0.5 * angle)])
        back = place - [0, 0, -1 / (0.25 / 0.9 + 0.75 / 25)]
        back /= np.linalg.norm(back)
        right = np.cross([0, 1, 0], back)
        right /= np.linalg.norm(right)
        camera = np.eye(4)
        camera[:3] = np.column_stack([right, np.cross(back, right), back, place])
        cameras.append(camera @ flip)
    found = walk("seva-spiral", 13, 10.0).cam_to_world
    np.testing.assert_allclose(found, np.linalg.inv(cameras[0]) @ cameras, atol=1e-5)


@pytest.mark.parametrize(("name", "factor"), [("zoom-in", 0.28), ("zoom-out", 1.5)])
@pytest.mark.parametrize("dolly", ["", "dolly-"])
def test_seva_changes_the_field_of_view(name, factor, dolly):
    path = walk(f"seva-{dolly}{name}")
    views = 2 * np.degrees(np.arctan(64 / path.intrinsics[:, 0, 0]))
    np.testing.assert_allclose(views, 90 * np.linspace(1, factor, 13), rtol=1e-5)
    np.testing.assert_allclose(path.intrinsics[:, 1, 1], path.intrinsics[:, 0, 0])


def test_seva_does_not_zoom_out_beyond_what_a_lens_can_see():
    wide = START._replace(intrinsics=START.intrinsics * np.array([[0.4], [0.4], [1]], np.float32))
    wide.intrinsics[:2, 2] = START.intrinsics[:2, 2]
    with pytest.raises(ValueError, match="the field of view would grow to 205 degrees"):
        trajectory("seva-zoom-out", wide, 9, 4.0)


def worldscore_cameras(name: str, frames: int, speed: float) -> list:
    """WorldScore's own way: PyTorch3D axes, world to camera, Slerp and linear translation."""
    rotation, move = np.eye(3), np.zeros(3)
    angle = np.radians(30) * (1 if name in ("orbit-right", "pan-left") else -1)
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])
    if name.startswith("orbit"):
        rotation, move = turn, np.array([0, 0, speed]) - turn @ [0, 0, speed]
    elif name.startswith("pan"):
        rotation = turn
    else:
        ways = {"push-in": (0, 0, -1), "pull-out": (0, 0, 1), "fixed": (0, 0, 0),
                "move-left": (-0.5, 0, 0), "move-right": (0.5, 0, 0)}  # fmt: skip
        move = speed * np.array(ways[name])
    turning = Slerp([0, 1], Rotation.from_matrix([np.eye(3), rotation]))
    cameras = []
    for index in range(frames):
        w2c, way = np.eye(4), index / (frames - 1)
        w2c[:3, :3], w2c[:3, 3] = turning(way).as_matrix(), way * move
        cameras.append(np.linalg.inv(np.diag([-1, 1, -1, 1]) @ w2c).tolist())
    return cameras


@pytest.mark.parametrize("name", [n for n in PRESETS if n.startswith("worldscore-")])
@pytest.mark.parametrize("speed", [1.0, 2.5])
def test_worldscore_presets_are_the_cameras_of_its_files(name, speed, tmp_path):
    content = {"focal_length": 500, "scale": speed}
    content["cameras_interp"] = worldscore_cameras(name.removeprefix("worldscore-"), 50, speed)
    (tmp_path / "camera_data.json").write_text(json.dumps(content))
    # The world of its files is PyTorch3D's first camera, x left and y up: relative to the first.
    expected = align_first_view(read_cameras(tmp_path / "camera_data.json"))
    found = walk(name, 50, 7.0, speed=speed)
    np.testing.assert_allclose(found.cam_to_world, expected.cam_to_world, atol=1e-6)


def test_worldscores_speed_follows_the_depth_unless_it_is_given():
    end = camera_center(walk("worldscore-push-in", depth=5.0))[-1]
    np.testing.assert_allclose(end, [0, 0, 1.5], atol=1e-6)
    with pytest.raises(ValueError, match="speed is out of range: got -1"):
        TrajectoryOptions(speed=-1)


@pytest.mark.parametrize("name", ["dolly-zoom", "dolly-zoom-out"])
def test_a_dolly_zoom_keeps_the_size_of_what_is_a_depth_away(name):
    path = walk(name)
    edge = np.array([[-1.0, 0.5, 4.0], [1.0, 0.5, 4.0]])
    uv, _ = project(edge, path)
    np.testing.assert_allclose(uv, np.broadcast_to(uv[:1], uv.shape), atol=1e-3)
    far, _ = project(edge + [0, 0, 20.0], path)
    assert abs(far[-1, 0, 0] - far[0, 0, 0]) > 0.5
    assert np.linalg.norm(camera_center(path)[-1]) == pytest.approx(1.2, rel=1e-6)


def test_a_dolly_zoom_does_not_pass_its_subject():
    with pytest.raises(ValueError, match="the amplitude is too large: got 4"):
        walk("dolly-zoom", amplitude=4)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_mirrored_presets_are_mirror_images(name):
    mirror = np.diag([-1, 1, 1, 1])
    path, other = walk(name, 17), walk(name, 17, mirror=True)
    np.testing.assert_allclose(other.cam_to_world, mirror @ path.cam_to_world @ mirror, atol=1e-6)


def test_lengths_follow_the_depth():
    for name in PRESETS:
        near, far = walk(name, 17, 1.0), walk(name, 17, 8.0)
        np.testing.assert_allclose(camera_center(far), 8 * camera_center(near), atol=1e-5)
        np.testing.assert_array_equal(far.cam_to_world[:, :3, :3], near.cam_to_world[:, :3, :3])
