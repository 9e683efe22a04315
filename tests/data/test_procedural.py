"""The procedural room: exact depth, a right moving mask, and the record command."""

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from mirage_jax.cli.main import cli
from mirage_jax.data.clip import validate_clip
from mirage_jax.data.procedural import (
    ProceduralConfig,
    default_walk,
    make_scene,
    moving_box_center,
    render_clip,
    render_depth,
    render_view,
)
from mirage_jax.data.source import open_clips

CONFIG = ProceduralConfig(frames=9, height=48, width=64)


def _world_points(depth, camera, config):
    v, u = np.mgrid[: config.height, : config.width] + 0.5
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(config.intrinsics).T
    return (rays * depth[..., None]) @ camera[:3, :3].T + camera[:3, 3]


def _distance_to_box(points, low, high):
    """Unsigned distance of points to the surface of an axis-aligned box."""
    outside = np.linalg.norm(np.maximum(np.maximum(low - points, points - high), 0), axis=-1)
    inside = np.minimum(points - low, high - points).min(axis=-1)
    return np.where(outside > 0, outside, np.abs(inside))


@pytest.mark.parametrize("seed", [0, 1])
def test_every_pixel_lies_on_a_surface_and_nothing_is_in_front_of_it(seed):
    scene, cameras = make_scene(seed, CONFIG), default_walk(seed, CONFIG)
    for frame in (0, 4, 8):
        view = render_view(scene, cameras[frame], CONFIG, frame=frame)
        points = _world_points(view.depth, cameras[frame], CONFIG)
        shift = moving_box_center(scene, frame) - (scene.low[-1] + scene.high[-1]) / 2
        moved = np.arange(len(scene.low)) == len(scene.low) - 1
        low, high = scene.low + moved[:, None] * shift, scene.high + moved[:, None] * shift
        distances = [_distance_to_box(points, a, b) for a, b in zip(low, high, strict=True)]
        np.testing.assert_allclose(np.min(distances, axis=0), 0, atol=1e-5)
        # Walk along every ray: no sample short of the surface may be inside a box.
        for part in np.linspace(0.05, 0.98, 40):
            sample = cameras[frame, :3, 3] + (points - cameras[frame, :3, 3]) * part
            for a, b in zip(low[1:], high[1:], strict=True):
                assert not ((sample > a + 1e-3) & (sample < b - 1e-3)).all(axis=-1).any()


def test_colours_follow_depth_and_cameras_from_frame_to_frame():
    scene, cameras = make_scene(3, CONFIG), default_walk(3, CONFIG)
    a = render_view(scene, cameras[3], CONFIG, frame=3)
    b = render_view(scene, cameras[4], CONFIG, frame=4)
    points = _world_points(b.depth, cameras[4], CONFIG)
    local = (points - cameras[3, :3, 3]) @ cameras[3, :3, :3]
    pixel = (local / local[..., 2:]) @ CONFIG.intrinsics.T
    x, y = pixel[..., 0].astype(np.float32), pixel[..., 1].astype(np.float32)
    valid = (x > 1) & (x < 63) & (y > 1) & (y < 47) & (local[..., 2] > 0) & ~b.moving
    row, column = y.clip(0, 47).astype(int), x.clip(0, 63).astype(int)
    valid &= np.abs(a.depth[row, column] - local[..., 2]) < 0.02 * local[..., 2]
    assert valid.mean() > 0.5
    color = cv2.remap(a.rgb, x - 0.5, y - 0.5, cv2.INTER_LINEAR)
    error = (color.astype(float) - b.rgb)[valid]
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 30


def test_the_moving_mask_is_exactly_where_the_box_changes_the_view():
    scene, cameras = make_scene(2, CONFIG), default_walk(2, CONFIG)
    away = scene._replace(low=scene.low.copy(), high=scene.high.copy())
    away.low[-1] += 1000
    away.high[-1] += 1000
    seen = 0
    for frame in range(CONFIG.frames):
        view = render_view(scene, cameras[frame], CONFIG, frame=frame)
        empty = render_view(away, cameras[frame], CONFIG, frame=frame)
        np.testing.assert_array_equal(view.moving, view.depth != empty.depth)
        depth, moving = render_depth(scene, cameras[frame], CONFIG, frame=frame)
        np.testing.assert_array_equal(depth, view.depth)
        np.testing.assert_array_equal(moving, view.moving)
        seen += view.moving.sum()
    assert seen > 0
    assert np.ptp([moving_box_center(scene, f)[:2] for f in range(60)], axis=0).max() > 0.5


def test_a_clip_follows_the_record_and_given_cameras_and_its_seed():
    clip = render_clip(4, CONFIG)
    assert validate_clip(clip) == (9, 48, 64)
    again = render_clip(4, CONFIG, cam_to_world=default_walk(4, CONFIG))
    np.testing.assert_array_equal(clip["rgb"], again["rgb"])
    assert not np.array_equal(clip["rgb"], render_clip(5, CONFIG)["rgb"])
    outside = default_walk(4, CONFIG)
    outside[3, 0, 3] = 99.0
    with pytest.raises(ValueError, match="inside the room"):
        render_clip(4, CONFIG, cam_to_world=outside)


def test_the_command_records_a_folder_that_opens(tmp_path):
    run = CliRunner().invoke(
        cli, ["record", "procedural", "--out", str(tmp_path), "--clips", "1", "--frames", "3"]
    )
    assert run.exit_code == 0, run.output
    clip = open_clips(tmp_path, "train")[0]
    assert clip["rgb"].shape == (3, 96, 128, 3)
    assert clip["level"] == "procedural/0"


def test_the_command_refuses_a_reserved_level_with_exit_code_2(tmp_path):
    arguments = ["record", "doom", "--out", str(tmp_path), "--split", "val"]
    run = CliRunner().invoke(cli, [*arguments, "--level", "freedoom2/MAP25"])
    assert run.exit_code == 2
    assert "reserved for measuring" in run.output
    assert not list(tmp_path.iterdir())
