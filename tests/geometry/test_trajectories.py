"""Presets start and close bit for bit, leave the view, stay smooth; keyframes are hit."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mirage_jax.geometry.camera import Camera, camera_center, relative_to, validate_camera
from mirage_jax.geometry.easing import ease
from mirage_jax.geometry.projection import project, unproject
from mirage_jax.geometry.trajectories import (
    CLOSED_PRESETS,
    OWN_PRESETS,
    PRESETS,
    TrajectoryOptions,
    interpolate_cameras,
    trajectory,
)

INTRINSICS = np.array([[64.0, 0, 64.0], [0, 64.0, 48.0], [0, 0, 1.0]], np.float32)
HW = (96, 128)


def start_camera(seed: int = 3) -> Camera:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    matrix[:3, 3] = [3.0, -2.0, 7.0]
    return Camera(matrix.astype(np.float32), INTRINSICS)


def level_camera() -> Camera:
    return Camera(np.eye(4, dtype=np.float32), INTRINSICS)


def turns(path: Camera) -> np.ndarray:
    """Angle between neighbouring frames, in degrees."""
    rotation = Rotation.from_matrix(path.cam_to_world[:, :3, :3])
    return np.degrees((rotation[1:] * rotation[:-1].inv()).magnitude())


@pytest.mark.parametrize("up", [None, (0.3, -1.0, 0.2)])
@pytest.mark.parametrize("frames", [17, 49, 81])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_starts_at_the_start_and_is_made_of_cameras(name, frames, up):
    start = start_camera()
    path = trajectory(name, start, frames, 4.0, TrajectoryOptions(up=up))
    assert path.cam_to_world.shape == (frames, 4, 4)
    assert path.cam_to_world.dtype == np.float32
    np.testing.assert_array_equal(path.cam_to_world[0], start.cam_to_world)
    validate_camera(path, "path")


@pytest.mark.parametrize("hold", [1, 4, 5])
@pytest.mark.parametrize("name", sorted(CLOSED_PRESETS))
def test_closed_presets_end_on_the_start_and_hold_still(name, hold):
    start = start_camera()
    for frames in (33, 48, 49, 81):
        options = TrajectoryOptions(hold_frames=hold)
        path = trajectory(name, start, frames, 4.0, options).cam_to_world
        assert (path[-hold:] == start.cam_to_world).all()
        assert (path[frames // 3] != start.cam_to_world).any()


def test_out_and_back_repeats_the_way_out_bit_for_bit():
    for frames in (48, 49, 65, 81):
        path = trajectory("out-and-back", start_camera(), frames, 4.0).cam_to_world
        moving = path[: frames - 3]
        np.testing.assert_array_equal(moving, moving[::-1])


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("focal", [90.0, 64.0, 40.0])
def test_out_and_back_shares_no_point_with_the_first_view_at_its_far_end(focal, mirror):
    intrinsics = INTRINSICS * np.array([[focal / 64, 1, 1], [1, focal / 64, 1], [1, 1, 1]])
    start = level_camera()._replace(intrinsics=intrinsics)
    path = trajectory("out-and-back", start, 49, 5.0, TrajectoryOptions(mirror=mirror))
    far = Camera(path.cam_to_world[22], path.intrinsics[22])
    for depth in (0.05, 0.5, 1.0, 5.0, 100.0):
        points = unproject(np.full(HW, depth), start).reshape(-1, 3)
        uv, z = project(points, far)
        inside = (z > 0) & (uv >= 0).all(-1) & (uv < [HW[1], HW[0]]).all(-1)
        assert not inside.any()


@pytest.mark.parametrize("frames", [49, 65, 81])
def test_out_and_back_turns_by_112_degrees_at_less_than_7_a_frame(frames):
    path = trajectory("out-and-back", start_camera(), frames, 5.0)
    assert turns(path).max() < 7.0
    first = Rotation.from_matrix(path.cam_to_world[0, :3, :3])
    away = (Rotation.from_matrix(path.cam_to_world[:, :3, :3]) * first.inv()).magnitude()
    assert np.degrees(away.max()) == pytest.approx(112.0, abs=0.01)
    travel = np.linalg.norm(camera_center(path) - camera_center(path)[0], axis=-1)
    assert 0.5 < travel.max() < 1.0


@pytest.mark.parametrize("name", sorted(set(OWN_PRESETS) - {"static"}))
def test_presets_change_speed_gently(name):
    path = trajectory(name, level_camera(), 81, 5.0)
    steps = np.linalg.norm(np.diff(camera_center(path), axis=0), axis=-1)
    for speed in (turns(path), steps):
        if speed.max() > 0.02:
            assert np.abs(np.diff(speed)).max() < 0.35 * speed.max()
            assert speed[0] < 0.12 * speed.max() or name in ("orbit", "loop")


@pytest.mark.parametrize(
    ("name", "axis", "sign"),
    [("forward", 2, 1), ("backward", 2, -1), ("left", 0, -1), ("right", 0, 1), ("up", 1, -1),
     ("down", 1, 1)],
)  # fmt: skip
def test_travel_presets_move_along_their_axis_by_a_fraction_of_depth(name, axis, sign):
    start = start_camera()
    path = relative_to(trajectory(name, start, 33, 5.0, TrajectoryOptions(amplitude=2)), start)
    expected = np.zeros(3)
    expected[axis] = sign * 2 * 0.3 * 5.0
    np.testing.assert_allclose(camera_center(path)[-1], expected, atol=1e-5)
    np.testing.assert_allclose(
        path.cam_to_world[:, :3, :3], np.tile(np.eye(3), (33, 1, 1)), atol=1e-5
    )


@pytest.mark.parametrize(("name", "sign"), [("turn-right", 1), ("turn-left", -1)])
def test_turn_presets_look_to_their_side(name, sign):
    path = trajectory(name, level_camera(), 33, 5.0, TrajectoryOptions(turn_degrees=50))
    forward = path.cam_to_world[-1, :3, 2]
    assert np.degrees(np.arctan2(forward[0], forward[2])) == pytest.approx(sign * 50, abs=1e-3)
    mirrored = trajectory(
        name, level_camera(), 33, 5.0, TrajectoryOptions(turn_degrees=50, mirror=True)
    )
    np.testing.assert_allclose(mirrored.cam_to_world[-1, :3, 2], forward * [-1, 1, 1], atol=1e-6)


def test_orbit_keeps_facing_its_centre():
    path = trajectory("orbit", level_camera(), 65, 10.0)
    uv, z = project(np.array([[0.0, 0.0, 3.5]]), path)
    np.testing.assert_allclose(uv, np.broadcast_to([64.0, 48.0], uv.shape), atol=1e-3)
    np.testing.assert_allclose(z, 3.5, rtol=1e-5)
    assert camera_center(path)[:, 2].max() > 6.9


def test_loop_faces_along_its_way():
    path = trajectory("loop", level_camera(), 81, 10.0)
    center = camera_center(path).astype(np.float64)
    way = center[2:-5] - center[:-7]
    way /= np.linalg.norm(way, axis=-1, keepdims=True)
    facing = np.sum(way * path.cam_to_world[1:-6, :3, 2], axis=-1)
    assert facing.min() > 0.99


def test_an_up_direction_keeps_a_pitched_walker_level():
    start = level_camera()
    start.cam_to_world[:3, :3] = Rotation.from_euler("x", -20, degrees=True).as_matrix()
    path = trajectory("out-and-back", start, 49, 5.0, TrajectoryOptions(up=(0, -1, 0)))
    np.testing.assert_allclose(camera_center(path)[:, 1], 0.0, atol=1e-6)
    np.testing.assert_allclose(path.cam_to_world[:, 1, 2], start.cam_to_world[1, 2], atol=1e-6)


def test_ease_is_symmetric_monotonic_and_exact_at_its_ends():
    time = np.linspace(0, 1, 1001)
    value = ease(time)
    assert value[0] == 0
    assert value[-1] == 1
    assert (np.diff(value) > 0).all()
    np.testing.assert_allclose(value + value[::-1], 1.0, atol=1e-12)
    assert np.diff(value).max() * 1000 == pytest.approx(4 / 3, rel=1e-6)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_interpolation_hits_its_keyframes(count):
    keyframes = [start_camera(seed) for seed in range(count)]
    for index, camera in enumerate(keyframes):
        camera.cam_to_world[:3, 3] += index
    stacked = Camera(*(np.stack(part) for part in zip(*keyframes, strict=True)))
    path = interpolate_cameras(stacked, 8 * max(count - 1, 1) + 1)
    hits = path.cam_to_world[::8][:count]
    np.testing.assert_allclose(hits, stacked.cam_to_world, atol=1e-5)
    np.testing.assert_array_equal(path.cam_to_world[0], stacked.cam_to_world[0])
    np.testing.assert_array_equal(path.cam_to_world[-1], stacked.cam_to_world[-1])
    validate_camera(path, "path")


def test_interpolation_between_two_keyframes_is_the_geodesic():
    first, last = start_camera(1), start_camera(2)
    both = Camera(*(np.stack(part) for part in zip(first, last, strict=True)))
    path = interpolate_cameras(both, 11)
    whole = (
        Rotation.from_matrix(last.cam_to_world[:3, :3])
        * Rotation.from_matrix(first.cam_to_world[:3, :3]).inv()
    ).magnitude()
    np.testing.assert_allclose(turns(path), np.degrees(whole) / 10, rtol=1e-2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("spiral", level_camera(), 49, 5.0), "unknown preset; got 'spiral', expected one of out"),
        (("out-and-back", level_camera(), 9, 5.0), "too few frames .* got 9, expected at least 12"),
        (("forward", level_camera(), 49, 0.0), "depth_scale is out of range: got 0.0"),
        (("forward", level_camera(), 49, float("nan")), "depth_scale is out of range: got nan"),
        (
            ("forward", trajectory("static", level_camera(), 3, 1.0), 49, 1.0),
            "start must be a single",
        ),
    ],
)
def test_bad_requests_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        trajectory(*arguments)


@pytest.mark.parametrize(
    "options", [{"amplitude": -1}, {"amplitude": np.nan}, {"hold_frames": 0}, {"turn_degrees": 400}]
)
def test_bad_options_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        TrajectoryOptions(**options)


def test_an_up_direction_along_the_view_is_refused():
    with pytest.raises(ValueError, match="TrajectoryOptions.up is unusable"):
        trajectory("orbit", level_camera(), 49, 5.0, TrajectoryOptions(up=(0, 0, 1)))
