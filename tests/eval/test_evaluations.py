"""Whole evaluations on a tiny random world: every row and file is there, perfect ones perfect."""

import json

import numpy as np
import pytest
from tiny_world import HW, flat_scene, tiny_world, wall_clip

from mirage_jax.eval.codec import evaluate_codec
from mirage_jax.eval.follow import FollowConfig, evaluate_following, written_view_distance
from mirage_jax.eval.views import clip_scene, overlap, pick_views
from mirage_jax.eval.walkthrough import WalkConfig, farthest_frame, walk
from mirage_jax.geometry.camera import index_camera
from mirage_jax.rollout.paths import resolve_path

CLIPS = [wall_clip(25, seed) for seed in range(2)]


def _cameras(path, frames):
    return resolve_path(path, flat_scene(), frames, default_frames=frames).cameras


def test_walk_writes_everything_and_the_promised_metrics(tmp_path):
    world, cameras = tiny_world(), _cameras("out-and-back", 25)
    walk(world, flat_scene(), cameras, WalkConfig(seed=3), tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["seconds"]["total"] > 0
    for key in ("psnr_on", "psnr_off", "psnr_ceiling", "displacement_px"):
        assert np.isfinite(metrics["revisit"][key])
    sizes = metrics["memory"]["bytes_per_chunk"]
    assert len(sizes) == 3
    assert sizes == sorted(sizes)
    assert metrics["seed"] == 3
    assert metrics["config"]["world"]["name"] == "tiny"
    for name in ("video.mp4", "sheet.png", "cameras.npz", "memory.safetensors", "memory.ply"):
        assert (tmp_path / name).stat().st_size > 0

    # Nothing is left to do: resuming a finished walk gives the same numbers without a new chunk.
    said: list[str] = []
    again = walk(
        world, flat_scene(), cameras, WalkConfig(seed=3, resume=True), tmp_path, said.append
    )
    assert again["revisit"] == pytest.approx(metrics["revisit"])
    assert said[0] == "going on after chunk 3"


def test_walk_that_does_not_return_has_no_revisit_numbers(tmp_path):
    metrics = walk(
        tiny_world(), flat_scene(), _cameras("forward", 9), WalkConfig(compare=False), tmp_path
    )
    assert set(metrics["revisit"].values()) == {None}


def test_following_reports_every_row_and_distance(tmp_path):
    config = FollowConfig(clips=2, frames=25, batch=1)
    results = evaluate_following(tiny_world(), CLIPS, config, tmp_path)
    assert set(results["rows"]) == {
        "sample", "memory off", "read", "nearest read", "copy", "ceiling"
    }  # fmt: skip
    counted = sum(group["sample"]["count"] for group in results["by_distance"].values())
    assert counted == 2 * 6


def test_distance_is_to_the_nearest_view_written_before_the_chunk():
    world, scene = tiny_world(), clip_scene(CLIPS[0])
    cameras = index_camera(scene.path, slice(0, 17))
    # 0.5 units a latent frame, chunks of two new latents: 1 and 2 steps away, again and again.
    np.testing.assert_allclose(
        written_view_distance(world, cameras, 1.0), [0.5, 1.0, 0.5, 1.0], atol=1e-3
    )


def test_codec_report_has_the_pca_row_of_the_same_sizes(tmp_path):
    world = tiny_world()
    results = evaluate_codec(world.spec, world.params["codec"], CLIPS, CLIPS, tmp_path, frames=9)
    rows = results["rows"]
    # Fitted on these very clips, eight components beat random weights.
    assert rows["PCA of the same sizes"]["first"]["mean"] > rows["codec"]["first"]["mean"]


def test_views_come_from_distinct_clips_first_and_are_refused_beyond_what_there_is():
    names = [view.name for view in pick_views(CLIPS, 4)]
    assert names == ["0000_000", "0001_000", "0000_012", "0001_012"]
    with pytest.raises(ValueError, match="--views: got 9, expected at most the 8"):
        pick_views(CLIPS, 9)


def test_moving_things_are_not_kept_in_a_view():
    clip = wall_clip(5)
    clip["moving"][2, 4:8, 5:9] = True
    keep = clip_scene(clip, 2).keep
    assert keep.sum() == HW[0] * HW[1] - 16
    assert not keep[4:8, 5:9].any()


def test_overlap_is_one_at_the_start_and_zero_behind():
    scene = flat_scene()
    assert overlap(scene, scene.camera) == 1.0
    behind = scene.camera.cam_to_world.copy()
    behind[:3, :3] = np.diag([-1, 1, -1])
    assert overlap(scene, scene.camera._replace(cam_to_world=behind)) == 0.0


def test_farthest_frame_of_an_out_and_back_path_is_in_its_middle():
    assert abs(farthest_frame(_cameras("out-and-back", 33)) - 14) <= 3
