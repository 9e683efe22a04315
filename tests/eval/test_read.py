"""Reads of one written frame: what was seen, what is scored, and rows that must be perfect."""

import numpy as np
import pytest
from tiny_world import HW, tiny_world, wall_clip

from mirage_jax.eval.reads.evaluate import (
    ReadConfig,
    evaluate_read,
    group_names,
    rows_of,
    score_picture,
)
from mirage_jax.eval.reads.pairs import choose_pairs, pairs_for, seen_cells

# Columns of a wall 4 away that leave the picture when the camera slides one unit to the right.
SHIFT = HW[1] // 2 // 4


def _resting_clip():
    clip = wall_clip(9)
    clip["cam_to_world"][:] = np.eye(4)
    clip["rgb"][:] = clip["rgb"][0]
    return clip


def _sliding_clip(to: float = 1.0):
    clip = wall_clip(5)
    clip["cam_to_world"][:, 0, 3] = np.linspace(0, to, 5)
    return clip


def test_cells_that_came_into_view_or_moved_were_not_seen():
    clip = _sliding_clip()
    seen = seen_cells(clip, 0, 4, (4, HW[1] // 2)).seen
    assert seen[:, : -SHIFT // 2].all()
    assert not seen[:, -SHIFT // 2 :].any()
    clip["moving"][4, :8, :2] = True
    assert not seen_cells(clip, 0, 4, (4, HW[1] // 2)).seen[0, 0]


def test_cells_behind_another_surface_were_not_seen():
    clip = _sliding_clip(0.0)
    clip["depth"][0, :16] = 2.0
    seen = seen_cells(clip, 0, 4, (4, 6)).seen
    assert not seen[:2].any()
    assert seen[2:].all()


def test_zoom_and_angle_are_those_of_a_wall_walked_up_to_and_along():
    clip = _sliding_clip(0.0)
    clip["cam_to_world"][4, 2, 3] = 2.0
    clip["depth"][4] = 2.0
    np.testing.assert_allclose(np.exp(seen_cells(clip, 0, 4, (4, 6)).zoom), 2.0, rtol=1e-3)
    angle = seen_cells(_sliding_clip(), 0, 4, (16, 24)).angle
    # The cell straight ahead now was seen from one unit to the side, four away.
    assert angle[8, 11:13].mean() == pytest.approx(np.arctan(1 / 4), abs=0.01)


def test_scores_are_closed_forms_and_ignore_cells_that_were_not_seen():
    truth = np.random.default_rng(0).integers(20, 200, (32, 48, 3), dtype=np.uint8)
    picture, seen = truth.copy(), np.zeros((4, 6), bool)
    picture[:, :24] += 10
    picture[:, 24:] = 0
    seen[:, :2] = True
    scores = score_picture(picture, truth, seen, seen)
    assert scores["psnr"] == pytest.approx(20 * np.log10(255 / 10), abs=1e-4)
    assert scores["psnr_frame"] < scores["psnr"]
    assert scores["gradient"] == pytest.approx(1.0, abs=1e-5)
    assert score_picture(truth // 2, truth, seen, seen)["gradient"] == pytest.approx(0.5, abs=0.02)


def test_from_the_same_place_every_memory_equals_the_codec(tmp_path):
    config = ReadConfig(gaps=(4,), rows=("nearest", "learned", "rgb", "own"))
    clips = [_resting_clip(), _resting_clip()]
    first = evaluate_read(tiny_world(), clips, config, tmp_path)
    rows = first["gap4"]
    for name in ("nearest", "learned", "rgb"):
        assert rows[name]["psnr"] == pytest.approx(rows["own"]["psnr"], abs=0.01), name
        assert rows[name]["coverage"] == 1.0
    assert rows["copy"]["psnr"] == pytest.approx(100.0)
    assert rows["rgb"]["bytes"] == HW[0] * HW[1] * 15
    assert first["by_zoom"]["0.9 to 1.1"]["own"]["psnr"] == pytest.approx(rows["own"]["psnr"])
    assert not first["protocol"]["fixed_list"]
    assert "## 4 frames later (4 pairs, 100% of cells seen)" in (tmp_path / "read.md").read_text()
    assert (tmp_path / "read.png").exists()
    again = evaluate_read(tiny_world(), clips, config, tmp_path)
    for timing in ("milliseconds", "seconds"):
        assert first.pop(timing)
        assert again.pop(timing)
    assert first == again


def test_pairs_lie_in_their_clips_and_share_what_the_rule_asks_for():
    clips = [wall_clip(25, seed) for seed in range(2)]
    pairs, fixed = pairs_for(clips)
    assert not fixed
    assert pairs == choose_pairs(clips)
    assert len(pairs[4]) == 4
    assert all(0 <= p.source and p.target < 25 for gap in pairs.values() for p in gap)
    assert pairs[32] == []


def test_rows_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match=r"rows: got \['splat'\], expected some of"):
        rows_of(tiny_world().spec, ("splat",))
    assert group_names((1.0, 2.0)) == ["below 1", "1 to 2", "2 and more"]
