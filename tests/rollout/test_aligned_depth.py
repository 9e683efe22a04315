"""Estimated depth of generated frames is brought onto memory; what does not fit is kept out."""

import numpy as np
import pytest
from rollout.release_world import WALL, release_world
from tiny_world import HW, batched, flat_scene, sideways_and_back

from mirage_jax.eval.views import stack_starts
from mirage_jax.geometry.depth_files import DepthMaps, pseudo_depth
from mirage_jax.memory.rows import rows_in_order
from mirage_jax.rollout import outputs
from mirage_jax.rollout.aligned_depth import MemoryAlignment
from mirage_jax.rollout.chunk import Providers
from mirage_jax.rollout.chunk_pictures import ChunkPictures
from mirage_jax.rollout.depths import EstimatedDepth
from mirage_jax.rollout.loop import RolloutConfig, rollout, start_rollout

FRAMES = 13


class Estimator:
    """What a depth model would say of the wall: `make` turns true depth into its values."""

    def __init__(self, kind, make):
        self.kind, self._make = kind, make

    def depth(self, frames):
        true = np.full(frames.shape[:3], WALL, np.float32)
        return DepthMaps(self._make(true).astype(np.float32), self.kind, True, "estimator")


def written_depths(kind, make, align):
    """Return z of the rows that a rollout wrote after its first frame, and what it said."""
    world, said = release_world(text=0), []
    cameras = batched(sideways_and_back(FRAMES, reach=1.0))
    start, config = stack_starts([flat_scene()]), RolloutConfig()
    state = start_rollout(world, start, cameras, config)
    before = int(state.memory.count[0])
    alignment = None if align is None else MemoryAlignment(align, said.append)
    depth = EstimatedDepth(Estimator(kind, make), "estimator", alignment)
    providers = Providers(depth=depth.provider(ChunkPictures(world, state.latents)))
    results = list(rollout(world, start, cameras, config, providers=providers, state=state))
    rows = rows_in_order(outputs.single_memory(results[-1].state.memory))
    return np.asarray(rows.positions)[before:, 2], said


def test_depth_that_is_wrong_by_three_is_written_where_the_wall_is():
    depths, said = written_depths("z", lambda true: true / 3, "scale")
    assert not said
    assert len(depths) >= 24 * 3
    np.testing.assert_allclose(depths, WALL, rtol=0.02)


def test_without_alignment_the_same_depth_is_written_wrong():
    depths, _ = written_depths("z", lambda true: true / 3, None)
    np.testing.assert_allclose(depths, WALL / 3, rtol=0.02)


def test_depth_that_does_not_fit_is_not_remembered_and_this_is_said():
    random = np.random.default_rng(0)
    depths, said = written_depths(
        "z", lambda true: true * np.exp(random.uniform(-2, 2, true.shape)), "scale"
    )
    assert len(depths) == 0
    assert len(said) >= 3
    assert "not remembered: frame " in said[0]
    assert "points agree within 10%" in said[0]


def test_disparity_needs_scale_and_shift():
    depth = EstimatedDepth(
        Estimator("disparity", lambda t: 1 / t), "hf:x", MemoryAlignment("scale")
    )
    with pytest.raises(ValueError, match="hf:x gives disparity.*--align-depth disparity"):
        depth.provider(_pictures())


def test_distances_along_rays_are_not_taken_for_depth():
    depth = EstimatedDepth(Estimator("ray", lambda true: true), "hf:x", MemoryAlignment())
    with pytest.raises(ValueError, match="hf:x gives distances along rays"):
        depth.provider(_pictures())


def slanted(count=3, hw=HW):
    """Depth of a wall seen at a slant, so that both scale and shift can be told."""
    inverse = np.linspace(0.1, 0.5, hw[1]) * np.ones((count, hw[0], 1))
    return (1 / inverse).astype(np.float32)


def test_disparity_is_aligned_by_scale_and_shift_frame_by_frame():
    true = slanted()
    factors = np.array([2.0, 7.0, 0.3])[:, None, None]
    disparity = factors / true + np.array([1.0, -0.2, 5.0])[:, None, None]
    visible = np.ones(true.shape, bool)
    aligned, keep = MemoryAlignment("disparity").align(
        pseudo_depth(disparity), true, visible, np.arange(3)
    )
    assert keep.all()
    np.testing.assert_allclose(aligned, true, rtol=1e-3)


def test_a_frame_that_sees_nothing_known_takes_the_alignment_before_it():
    true, said = slanted(), []
    visible = np.ones(true.shape, bool)
    visible[1] = False
    align = MemoryAlignment("scale", said.append)
    aligned, keep = align.align(true / 3, true, visible, np.arange(3))
    assert keep.all()
    assert not said
    np.testing.assert_allclose(aligned, true, rtol=1e-5)
    aligned, keep = align.align(true / 3, true, visible[[1, 0, 2]], np.arange(3))
    assert not keep[0].any()
    assert keep[1:].all()
    assert "got 0 points" in said[0]


def _pictures() -> ChunkPictures:
    return ChunkPictures(release_world(text=0), np.zeros((1, 1, 4, 6, 8), np.float32))
