"""Caches of pixels: what they draw is what was seen, nearer things hide farther ones."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from mirage_jax.eval.pixel_caches import RGB_POINT_BYTES, FeatureCache, RgbCache
from mirage_jax.eval.pixel_points import clip_frames, mended, to_unit
from mirage_jax.eval.systems import SYSTEMS, run_system
from mirage_jax.eval.views import stack_starts
from mirage_jax.rollout.chunk import Start
from tests.tiny_world import HW, batched, flat_scene, sideways_and_back, tiny_world

FRAMES = 9
NEAR, FAR = 2.0, 6.0
RED, GREEN = (255, 0, 0), (0, 255, 0)


@pytest.fixture(scope="module")
def walk():
    return stack_starts([flat_scene()]), batched(sideways_and_back(FRAMES, reach=2.0))


def test_the_cache_shows_the_source_picture_to_the_source_camera(walk):
    start, cameras = walk
    seen = RgbCache(tiny_world(), start, cameras).draw(np.zeros(1, int))
    assert bool(seen.visibility.all())
    np.testing.assert_allclose(seen.tokens[:, 0], to_unit(start.image), atol=1e-6)
    np.testing.assert_allclose(seen.depth[:, 0], start.depth, rtol=1e-6)


def test_a_wall_behind_a_wall_is_hidden(walk):
    # The first camera sees a red board before a green wall; later ones slide right, so that the
    # board stands before green points, which project to the same pixels.
    _, cameras = walk
    intrinsics = np.asarray(cameras.intrinsics[0, 0])

    def board(position: float) -> np.ndarray:
        column = (np.arange(HW[1]) + 0.5 - intrinsics[0, 2]) / intrinsics[0, 0]
        return np.abs(column * NEAR + position) < 1.0

    red = np.broadcast_to(board(0.0), HW)
    start = Start(
        image=np.where(red[..., None], RED, GREEN)[None].astype(np.uint8),
        depth=np.where(red, NEAR, FAR)[None].astype(np.float32),
        keep=np.ones((1, *HW), bool),
    )
    cache = RgbCache(tiny_world(), start, cameras)
    for frame in (1, 2, 3):
        seen = cache.draw(np.array([frame]))
        here = board(float(cameras.cam_to_world[0, frame, 0, 3]))
        inside = here & np.roll(here, 1) & np.roll(here, -1)
        assert (inside & ~board(0.0)).any()
        colors, visible = np.asarray(seen.tokens[0, 0]), np.asarray(seen.visibility[0, 0])
        assert visible[:, inside].all()
        np.testing.assert_allclose(
            colors[:, inside],
            np.broadcast_to(to_unit(np.array(RED, np.uint8)), colors[:, inside].shape),
            atol=1e-6,
        )
        away = ~here & ~np.roll(here, 1) & ~np.roll(here, -1)
        assert (colors[..., 1][:, away] > 0).any()


def test_a_crack_through_which_a_farther_wall_shows_is_closed_and_an_edge_is_not(walk):
    start, cameras = walk
    seen = RgbCache(tiny_world(), start, cameras).draw(np.zeros(1, int))
    depth = np.full((1, 1, *HW), NEAR, np.float32)
    depth[..., 10] = FAR
    depth[..., 30:] = FAR
    tokens = np.repeat((depth == FAR)[..., None], 3, axis=-1).astype(np.float32)
    cracked = seen._replace(tokens=jnp.asarray(tokens), depth=jnp.asarray(depth))
    closed = mended(cracked, shell=0.05)
    # The rim and what meets it have fewer neighbours to tell by.
    assert (np.asarray(closed.depth)[0, 0, 2:-2, 10] == NEAR).all()
    np.testing.assert_array_equal(np.asarray(closed.tokens)[..., 30:, :], tokens[..., 30:, :])


def test_features_of_every_pixel_fill_the_view_of_the_source_camera(walk):
    start, cameras = walk
    cache = FeatureCache(tiny_world(), start, cameras)
    found = cache.read(np.zeros(1, int))
    assert bool(found.visibility.all())
    rows = HW[0] * HW[1]
    assert cache.bytes % rows == 0
    assert cache.bytes // rows > 4 * tiny_world().spec.memory.channels


def test_a_clip_has_the_frames_of_its_latents_after_one_to_be_dropped():
    # Latent frame k stands for video frames (k - 1) s + 1 ... k s.
    assert clip_frames(np.array([3, 4]), 2).tolist() == [4, 5, 6, 7, 8]
    assert clip_frames(np.array([0]), 4).tolist() == [-4, -3, -2, -1, 0]
    with pytest.raises(ValueError, match="without gaps"):
        clip_frames(np.array([0, 2]), 2)


def test_an_rgb_cache_keeps_every_known_pixel_of_every_latent_frame(walk):
    # With the world's own configs, whose other steps are compiled already.
    system = dataclasses.replace(SYSTEMS["rgb_cache"], spec=lambda spec: spec)
    run = run_system(system, tiny_world(), *walk, 0)
    latents = 1 + (FRAMES - 1) // tiny_world().spec.chunk.temporal_stride
    assert run.bytes[-1] <= latents * HW[0] * HW[1] * RGB_POINT_BYTES
    assert run.bytes[-1] > HW[0] * HW[1] * RGB_POINT_BYTES
    assert run.visibility[:, 0].mean() > 0.5
    assert all(stage > 0 for spent in run.seconds for stage in spent.values())


def test_a_system_that_is_shown_nothing_makes_what_an_empty_memory_makes(walk):
    # So noise, path and decoder are those of the other system, whatever is written beside.
    world = tiny_world()
    shows_nothing = dataclasses.replace(SYSTEMS["reference_only"], absent=lambda spec: "")
    ours = run_system(shows_nothing, world, *walk, 5)
    empty = run_system(SYSTEMS["no_memory"], world, *walk, 5)
    np.testing.assert_array_equal(ours.frames, empty.frames)
    with pytest.raises(ValueError, match="without reference frames"):
        run_system(SYSTEMS["reference_only"], world, *walk, 5)
