"""The loop: memory closes it, resuming does not show, and neighbours in a batch do not matter."""

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_world import HW, batched, flat_scene, sideways_and_back, tiny_world

from mirage_jax import world_model
from mirage_jax.eval.views import overlap, stack_starts
from mirage_jax.geometry.camera import Camera, index_camera
from mirage_jax.rollout.chunk import Providers
from mirage_jax.rollout.decode import decode_latents
from mirage_jax.rollout.loop import RolloutConfig, RolloutState, rollout
from mirage_jax.rollout.state_files import fingerprint, load_state, save_state

FRAMES = 33
WALL = 4.0


def _perfect_model(chunk, observation, inputs, noise):
    """Show what memory shows; where it shows nothing, something new."""
    seen = np.asarray(observation.read.visibility)[..., None]
    latents = np.where(seen, np.asarray(observation.filled), np.asarray(noise))
    latents[:, 0] = inputs.first
    return latents


def _true_depth(chunk, observation, latents):
    depth = np.full(latents.shape[:-1], WALL, np.float32)
    return depth, np.ones(depth.shape, bool)


ORACLE = Providers(latents=_perfect_model, depth=_true_depth)


def _run(world, scenes, cameras, config=None, **more):
    return list(rollout(world, stack_starts(scenes), cameras, config or RolloutConfig(), **more))


def test_out_and_back_with_perfect_model_has_zero_error():
    world, scene = tiny_world(), flat_scene()
    path = sideways_and_back(FRAMES, reach=9.0)
    assert overlap(scene, index_camera(path, (FRAMES - 4) // 2)) == 0
    results = _run(world, [scene], batched(path), providers=ORACLE)
    latents = results[-1].state.latents
    # Memory holds the start picture as a camera at rest sees it.
    picture = scene.image[None].astype(np.float32) / 127.5 - 1.0
    held = np.asarray(world_model.encode_held(world.spec, world.params, picture))
    np.testing.assert_allclose(latents[:, -1], held, atol=1e-5)
    assert np.abs(latents[:, 4] - held).max() > 0.5

    still = np.repeat(held[:, None], latents.shape[1], axis=1)
    still[:, 0] = latents[:, 0]
    came_back, never_left = decode_latents(world, latents), decode_latents(world, still)
    # The codec's last frames see the latent before, which moved; nothing else differs.
    assert np.abs(came_back[:, -1].astype(int) - never_left[:, -1]).mean() < 2


def test_without_memory_the_same_walk_does_not_come_back():
    world, path = tiny_world(), sideways_and_back(FRAMES, reach=9.0)
    off = RolloutConfig(memory=False)
    results = _run(world, [flat_scene()], batched(path), off, providers=ORACLE)
    latents = results[-1].state.latents
    assert np.abs(latents[:, -1] - latents[:, 0]).max() > 0.5
    assert all(result.rows == 0 and not result.visibility.any() for result in results)


def test_rollout_resumed_equals_uninterrupted(tmp_path):
    world, scene = tiny_world(), flat_scene()
    cameras = batched(sideways_and_back(FRAMES, reach=5.0))
    whole = _run(world, [scene], cameras)
    mark = fingerprint(world, stack_starts([scene]), cameras, RolloutConfig())
    save_state(tmp_path / "state.safetensors", whole[1].state, mark)
    state = load_state(tmp_path / "state.safetensors", mark)
    resumed = _run(world, [scene], cameras, state=state)
    assert [r.chunk.index for r in resumed] == [2, 3]
    assert _differing_leaves(resumed[-1].state, whole[-1].state) == []


def test_state_with_origins_row_by_row_is_read_as_before_they_lay_in_pages(tmp_path):
    world, path = tiny_world(), tmp_path / "state.safetensors"
    memory = world_model.empty_memory(world.spec, 2)
    origin = np.random.default_rng(0).normal(size=memory.origin.shape).astype(np.float32)
    memory = memory._replace(origin=origin)
    save_state(path, RolloutState(memory, np.zeros((2, 1, 2, 3, 4), np.float32), 1), "mark")
    arrays = load_file(path)
    *batch, pages, _, size = origin.shape
    arrays["memory.origin"] = origin.swapaxes(-1, -2).reshape(*batch, pages * size, 3)
    header = {"next_chunk": "1", "fingerprint": "mark", "tokens": "float32"}
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path, metadata=header)
    np.testing.assert_array_equal(load_state(path, "mark").memory.origin, origin)


def test_state_of_another_rollout_is_refused(tmp_path):
    world, start = tiny_world(), stack_starts([flat_scene()])
    cameras = batched(sideways_and_back(9, reach=1.0))
    results = _run(world, [flat_scene()], cameras)
    ours = fingerprint(world, start, cameras, RolloutConfig(seed=0))
    theirs = fingerprint(world, start, cameras, RolloutConfig(seed=1))
    save_state(tmp_path / "state", results[-1].state, theirs)
    with pytest.raises(ValueError, match="--resume: .*another scene, path, seed or config"):
        load_state(tmp_path / "state", ours)


def test_rollout_in_a_batch_comes_out_as_alone():
    world, scenes = tiny_world(), [flat_scene(0), flat_scene(1)]
    one = sideways_and_back(9, reach=3.0)
    cameras = Camera(*(np.stack([leaf, leaf]) for leaf in one))
    together = _run(world, scenes, cameras, RolloutConfig(seed=5))[-1].state
    alone = _run(world, scenes[1:], batched(one), RolloutConfig(seed=6))[-1].state
    np.testing.assert_allclose(together.latents[1:], alone.latents, atol=2e-5)
    assert together.memory.count[1] == alone.memory.count[0]


def test_short_last_chunk_is_the_start_of_a_whole_one():
    world, scene = tiny_world(), flat_scene()
    path = sideways_and_back(17, reach=3.0)
    held = Camera(*(np.concatenate([leaf[:13], np.repeat(leaf[12:13], 4, 0)]) for leaf in path))
    short = _run(world, [scene], batched(index_camera(held, slice(0, 13))))
    whole = _run(world, [scene], batched(held))
    np.testing.assert_array_equal(short[-1].state.latents, whole[-1].state.latents[:, :4])
    assert int(short[-1].rows[0]) <= int(whole[-1].rows[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((1, 16, 16, 3), np.uint8)}, "image: got shape"),
        ({"depth": np.ones((1, 8, 8), np.float32)}, "depth: got shape"),
        ({"keep": np.ones((1, 8, 8), bool)}, "mask: got shape"),
    ],
)
def test_start_of_wrong_shape_is_refused_before_anything_runs(change, message):
    start = stack_starts([flat_scene()])._replace(**change)
    with pytest.raises(ValueError, match=message):
        next(rollout(tiny_world(), start, batched(sideways_and_back(9, 1.0)), RolloutConfig()))


def test_wrong_frame_count_and_bent_cameras_are_refused():
    start, path = stack_starts([flat_scene()]), sideways_and_back(9, 1.0)
    short = batched(index_camera(path, slice(0, 7)))
    bent = batched(path._replace(cam_to_world=path.cam_to_world * np.float32(1.1)))
    for cameras, message in (
        (short, r"cameras: got 7 frames, expected 1 \+ 4n"),
        (bent, r"cameras\.cam_to_world"),
    ):
        walk = rollout(tiny_world(), start, cameras, RolloutConfig())
        with pytest.raises(ValueError, match=message):
            next(walk)


def test_long_rollouts_decode_in_windows_to_the_same_frames():
    world = tiny_world()
    latents = np.random.default_rng(0).normal(size=(1, 15, 4, 6, 8)).astype(np.float32)
    whole = decode_latents(world, latents)
    windowed = decode_latents(world, latents, window=6, context=3)
    assert whole.shape == windowed.shape == (1, 57, *HW, 3)
    assert np.abs(whole.astype(int) - windowed).max() <= 1


def _differing_leaves(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return [i for i, (x, y) in enumerate(pairs) if not np.array_equal(x, y)]
