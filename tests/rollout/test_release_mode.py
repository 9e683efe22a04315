"""Rollouts by the release's conventions: any length, resumable, references, kept reads, text."""

import dataclasses

import jax
import numpy as np
import pytest
from rollout.release_world import (
    WALL,
    prompt,
    release_spec,
    release_world,
    wall_depth,
)
from tiny_world import batched, flat_scene, sideways_and_back

from mirage_jax.eval.views import stack_starts
from mirage_jax.geometry.camera import Camera
from mirage_jax.rollout.chunk import Providers
from mirage_jax.rollout.chunk_pictures import ChunkPictures
from mirage_jax.rollout.decode import FrameStream, decode_latents
from mirage_jax.rollout.depths import decoded_depth
from mirage_jax.rollout.loop import RolloutConfig, rollout, start_rollout
from mirage_jax.rollout.state_files import fingerprint, load_state, save_state

CELLS = 4 * 6


def _run(world, cameras, scenes=None, **more):
    frames = cameras.cam_to_world.shape[1]
    scenes = scenes or [flat_scene()]
    given = {"providers": wall_depth(frames, len(scenes)), "prompt": prompt()} | more
    config = given.pop("config", RolloutConfig())
    return list(rollout(world, stack_starts(scenes), cameras, config, **given))


def test_a_rollout_of_32_chunks_remembers_every_latent_and_shows_only_the_past():
    results = _run(release_world(), batched(sideways_and_back(257, reach=40.0)))
    assert len(results) == 32
    latents = results[-1].state.latents
    assert latents.shape[1] == 65
    assert np.isfinite(latents).all()
    # The start picture is written twice, as the release does.
    assert results[-1].rows[0] == CELLS * (1 + 65)
    assert not results[-1].dropped[0]
    for result in results:
        shown = result.references[0]
        assert len(shown) <= 2
        assert all(frame <= result.chunk.first_latent for frame in shown)
    # On the way back the views of the way out are nearly those of now.
    assert results[-1].references[0][0] <= 2


def test_a_full_memory_drops_and_says_how_much():
    providers = wall_depth(33)._replace(latents=lambda chunk, seen, inputs, noise: noise)
    cameras = batched(sideways_and_back(33, reach=9.0))
    last = _run(release_world(capacity=150), cameras, providers=providers)[-1]
    assert last.rows[0] == 150
    assert last.dropped[0] == CELLS * (1 + 9) - 150


def test_a_rollout_with_references_resumes_bit_for_bit(tmp_path):
    world, cameras = release_world(), batched(sideways_and_back(41, reach=9.0))
    whole = _run(world, cameras, prompt=prompt(3))
    start, config = stack_starts([flat_scene()]), RolloutConfig()
    mark = fingerprint(world, start, cameras, config, prompt(3))
    assert mark != fingerprint(world, start, cameras, config, prompt(3, seed=1))
    save_state(tmp_path / "state.safetensors", whole[1].state, mark)
    state = load_state(tmp_path / "state.safetensors", mark)
    resumed = _run(world, cameras, prompt=prompt(3), state=state)
    assert [r.chunk.index for r in resumed] == [2, 3, 4]
    assert any(r.references[0] for r in resumed)
    assert [r.references for r in resumed] == [r.references for r in whole[2:]]
    leaves = (jax.tree.leaves(r.state) for r in (resumed[-1], whole[-1]))
    for ours, theirs in zip(*leaves, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_rollouts_with_different_numbers_of_references_come_out_as_alone():
    world, scenes = release_world(), [flat_scene(0), flat_scene(1)]
    # The second leaves the wall's remembered part at once and shares nothing with its past.
    near, far = sideways_and_back(17, reach=1.0), sideways_and_back(17, reach=0.0)
    far.cam_to_world[:, 0, 3] = 10.0 * np.arange(17)
    cameras = Camera(*(np.stack(pair) for pair in zip(near, far, strict=True)))
    together = _run(world, cameras, scenes, config=RolloutConfig(seed=5))
    counts = [[len(shown) for shown in result.references] for result in together]
    assert any(a != b for a, b in counts)
    for row, path in enumerate((near, far)):
        config = RolloutConfig(seed=5 + row)
        alone = _run(world, batched(path), [scenes[row]], config=config)
        assert [r.references[0] for r in alone] == [r.references[row] for r in together]
        np.testing.assert_allclose(
            together[-1].state.latents[row], alone[-1].state.latents[0], atol=2e-5
        )


def test_preceding_frames_keep_what_memory_showed_when_they_were_made():
    conditions = []

    def remember_condition(chunk, seen, inputs, noise):
        conditions.append(np.asarray(inputs.condition))
        return np.asarray(noise).copy()

    providers = wall_depth(25)._replace(latents=remember_condition)
    _run(release_world(), batched(sideways_and_back(25, reach=6.0)), providers=providers)
    first, second, third = conditions
    tokens = first.shape[-1] // 2
    # Targets then preceding: frames 0, 1 before 2; frames 2, 3 before 4.
    np.testing.assert_array_equal(second[:, 3:, ..., :tokens], first[:, :2, ..., :tokens])
    np.testing.assert_array_equal(third[:, 3, ..., :tokens], first[:, 2, ..., :tokens])
    np.testing.assert_array_equal(third[:, 4, ..., :tokens], second[:, 1, ..., :tokens])
    # The score is that of one white clip, whatever is shown.
    np.testing.assert_array_equal(third[..., tokens:], second[..., tokens:])
    np.testing.assert_array_equal(second[:, :3, ..., tokens:], first[..., tokens:])


def test_guidance_leads_from_the_negative_text_past_the_text():
    cameras, frames = batched(sideways_and_back(9, reach=1.0)), 9
    world = release_world()
    euler = dataclasses.replace(world.spec.sampling, steps=1, solver="euler")

    def last(guidance, text):
        sampling = dataclasses.replace(euler, guidance=guidance)
        spec = dataclasses.replace(world.spec, sampling=sampling)
        run = _run(dataclasses.replace(world, spec=spec), cameras, prompt=text)
        assert run[-1].chunk.stop == frames
        return run[-1].state.latents

    ours = prompt()
    away = ours._replace(text=ours.negative[None])
    # One Euler step is linear in the velocity.
    expected = last(1.0, away) + 3.0 * (last(1.0, ours) - last(1.0, away))
    np.testing.assert_allclose(last(3.0, ours), expected, atol=1e-4)


def test_each_chunk_follows_its_own_prompt_and_the_last_one_goes_on():
    world, cameras = release_world(), batched(sideways_and_back(25, reach=2.0))
    both, one = prompt(2), prompt(2)._replace(text=prompt(2).text[:1])
    ours = [r.state.latents for r in _run(world, cameras, prompt=both)]
    other = [r.state.latents for r in _run(world, cameras, prompt=one)]
    np.testing.assert_array_equal(ours[0], other[0])
    assert np.abs(ours[1] - other[1]).max() > 1e-3
    on = both._replace(text=both.text[[0, 1, 1]])
    np.testing.assert_array_equal(ours[2], _run(world, cameras, prompt=on)[2].state.latents)


def test_a_short_last_chunk_is_made_short():
    shapes = []

    def noise(chunk, shape):
        shapes.append(shape[1])
        return np.zeros(shape, np.float32)

    providers = wall_depth(13)._replace(noise=noise)
    _run(release_world(), batched(sideways_and_back(13, reach=1.0)), providers=providers)
    assert shapes == [3, 2]


@pytest.mark.parametrize("how", ["alone", "carried"])
def test_depth_is_estimated_from_the_frames_of_the_video(how):
    world = release_world()
    chunk = dataclasses.replace(world.spec.chunk, decode=how)
    world = dataclasses.replace(world, spec=dataclasses.replace(world.spec, chunk=chunk))
    cameras, seen = batched(sideways_and_back(25, reach=2.0)), {}

    def estimate(numbers, frames):
        seen.update(zip(numbers.tolist(), frames[0], strict=True))
        return np.full(frames.shape[:-1], WALL, np.float32)

    start, config = stack_starts([flat_scene()]), RolloutConfig()
    begun = start_rollout(world, start, cameras, config)
    providers = Providers(depth=decoded_depth(ChunkPictures(world, begun.latents), estimate))
    results = _run(world, cameras, providers=providers, state=begun)
    video = decode_latents(world, results[-1].state.latents)[0]
    assert sorted(seen) == list(range(0, 25, 4))
    for number, frame in seen.items():
        np.testing.assert_array_equal(frame, video[number])
    # A resumed rollout hands the same frames to the estimator.
    before, state = dict(seen), results[0].state
    providers = Providers(depth=decoded_depth(ChunkPictures(world, state.latents), estimate))
    _run(world, cameras, providers=providers, state=state)
    for number, frame in seen.items():
        np.testing.assert_array_equal(frame, before[number])


def test_pieces_of_a_stream_are_the_frames_of_the_whole():
    world = release_world()
    carried = dataclasses.replace(world.spec.chunk, decode="carried")
    world = dataclasses.replace(world, spec=dataclasses.replace(world.spec, chunk=carried))
    latents = np.random.default_rng(0).normal(size=(1, 9, 4, 6, 8)).astype(np.float32)
    stream = FrameStream(world)
    pieces = [stream.frames(latents[:, a:b]) for a, b in ((0, 1), (1, 4), (4, 9))]
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), decode_latents(world, latents))


@pytest.mark.parametrize(
    ("given", "guidance", "message"),
    [
        ({"providers": Providers()}, 1.0, "depth: the world 'release' has no depth head"),
        ({"prompt": None}, 1.0, r"prompt: got embeddings of shape None, expected \[chunks, n, 6\]"),
        ({"prompt": prompt()._replace(negative=None)}, 2.0, "guidance: got 2.0 without a negative"),
    ],
)
def test_missing_depth_or_text_is_refused_before_anything_runs(given, guidance, message):
    world = dataclasses.replace(release_world(), spec=release_spec(guidance=guidance))
    with pytest.raises(ValueError, match=message):
        _run(world, batched(sideways_and_back(9, 1.0)), **given)
