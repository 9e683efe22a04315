"""Systems of an evaluation: one backbone, one path, one noise; what differs is what they read."""

import numpy as np
import pytest

from mirage_jax.eval.systems import SYSTEMS, run_system
from mirage_jax.eval.views import stack_starts
from mirage_jax.rollout.decode import decode_latents
from mirage_jax.rollout.loop import RolloutConfig, rollout
from tests.tiny_world import batched, flat_scene, sideways_and_back, tiny_world

FRAMES = 9


@pytest.fixture(scope="module")
def walk():
    return stack_starts([flat_scene()]), batched(sideways_and_back(FRAMES, reach=2.0))


def test_the_latent_system_is_the_worlds_own_rollout(walk):
    world = tiny_world()
    results = list(rollout(world, *walk, RolloutConfig(seed=3)))
    run = run_system(SYSTEMS["latent"], world, *walk, 3)
    np.testing.assert_array_equal(
        run.frames, decode_latents(world, results[-1].state.latents)[:, :FRAMES]
    )
    assert run.visibility.any()
    assert len(run.seconds) == len(run.bytes) == len(results)
    assert set(run.seconds[0]) == {"read", "denoise", "depth", "write", "decode"}


def test_without_memory_nothing_is_seen_and_nothing_kept(walk):
    run = run_system(SYSTEMS["no_memory"], tiny_world(), *walk, 3)
    assert not run.visibility.any()
    assert run.bytes == (0,) * len(run.bytes)


def test_a_memory_of_the_start_picture_alone_does_not_grow(walk):
    grown = run_system(SYSTEMS["latent"], tiny_world(), *walk, 3)
    single = run_system(SYSTEMS["single_frame_memory"], tiny_world(), *walk, 3)
    assert set(single.bytes) == {single.bytes[0]}
    assert single.bytes[0] < grown.bytes[-1]
    assert single.visibility.any()


def test_copy_and_truth_are_what_was_given(walk):
    start, cameras = walk
    rng = np.random.default_rng(0)
    recorded = rng.integers(0, 256, (1, FRAMES, *start.image.shape[1:]), dtype=np.uint8)
    copy = run_system(SYSTEMS["copy"], tiny_world(), start, cameras, 0)
    assert copy.frames.shape == recorded.shape
    assert (copy.frames == start.image[:, None]).all()
    truth = run_system(SYSTEMS["truth"], tiny_world(), start, cameras, 0, recorded=recorded)
    np.testing.assert_array_equal(truth.frames, recorded)
    with pytest.raises(ValueError, match="no recorded frames"):
        run_system(SYSTEMS["truth"], tiny_world(), start, cameras, 0)
