"""What the benchmark of the memory compares is right; its times are nobody's business here."""

import numpy as np
import pytest

from benchmarks.memory import agreement, growth, peers, read_speed, rollout, scenes
from mirage_jax.memory.state import MemoryConfig


def nearest_by_loop(points: scenes.Points) -> np.ndarray:
    """Return the winner of each cell, one point at a time: the older of equals."""
    view = peers.view_of(points.camera)
    cell, depth = peers.project_cells(points.positions, view)
    winner = np.full(scenes.GRID_HW[0] * scenes.GRID_HW[1], -1)
    for row in np.flatnonzero(cell >= 0):
        holder = winner[cell[row]]
        if holder < 0 or depth[row] < depth[holder]:
            winner[cell[row]] = row
    return winner


@pytest.mark.parametrize("make", [scenes.frustum_volume, scenes.single_surface])
def test_the_sorting_peer_shows_the_nearest_point(make):
    points = make(5000)
    tokens = scenes.tokens_of(0, len(points.positions))
    view = peers.view_of(points.camera)
    shown = agreement.winners(*peers.read_numpy(points.positions, tokens, view, np.float64))
    np.testing.assert_array_equal(shown, nearest_by_loop(points))


def test_all_points_of_the_volume_are_in_view_but_those_said_to_be_beside():
    points = scenes.frustum_volume(10_000)
    uv, depth = peers.project_points(points.positions, peers.view_of(points.camera))
    # On the border itself float32 may round a point out of view.
    inside = (depth > 0) & (uv > -0.501).all(axis=1) & (uv < np.array([79.501, 43.501])).all(axis=1)
    assert len(points.positions) == 10_400
    assert inside[:10_000].all()
    assert not inside[10_100:].any()
    assert (depth[10_000:10_200] < 0).any()


def test_ties_edges_and_wrong_cells_are_told_apart():
    points = scenes.frustum_volume(2000)
    view = peers.view_of(points.camera)
    positions = np.concatenate([points.positions, points.positions[:1]])
    truth = nearest_by_loop(points)
    seen = np.flatnonzero(truth >= 0)
    other = truth.copy()
    other[seen[5]] = (truth[seen[5]] + 1) % 2000
    assert agreement.compare(truth, other, positions, view).wrong == 1
    twin = np.where(truth == 0, len(points.positions), truth)
    assert (truth == 0).any()
    found = agreement.compare(truth, twin, positions, view)
    assert found.ties + found.edges == int((truth == 0).sum())
    assert found.wrong == 0


def test_a_tiny_run_reads_what_the_oracle_reads():
    figures = read_speed.measure((3000,), rounds=1)
    for name in ("volume_3e3", "surface_3e3"):
        assert figures[name]["cells_unlike_oracle"]["wrong"] == 0
        assert figures[name]["cells_unlike_peer"]["wrong"] == 0
        assert figures[name]["ms"]["ours"] > 0


def test_a_room_of_the_city_shows_its_camera_no_hole_and_hides_the_rest():
    config = MemoryConfig(230_000, scenes.CHANNELS)
    memory = growth.city(200_000, config)
    found = read_speed.read_jit(memory, scenes.room_camera(), scenes.GRID_HW, config)
    # A ray along an edge of the room may fall to either side of a cell's border.
    assert float(found.visibility.mean()) > 0.999
    assert float((np.asarray(found.tokens[..., 0]) >= 100_000).mean()) < 1e-3


def test_the_second_lap_takes_the_poses_of_the_first():
    poses = rollout.walk_poses()
    half = (len(poses) - 1) // 2
    np.testing.assert_allclose(poses[half:], poses[: half + 1], atol=1e-9)
    np.testing.assert_allclose(poses[: half + 1], poses[half::-1], atol=1e-9)
    between = rollout.walk_poses(second_lap=0.5)
    np.testing.assert_array_equal(between[:half], poses[:half])
    assert np.abs(between[half + 3] - poses[half + 3]).max() > 0.01


def test_full_coverage_needs_the_right_depth():
    views = rollout.views_of(rollout.walk_poses()[:2])
    middle = (views.least + views.greatest) / 2
    assert rollout.share_right(middle, views) == 1
    assert rollout.share_right(1.5 * views.greatest, views) == 0
