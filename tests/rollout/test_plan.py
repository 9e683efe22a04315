"""Chunks laid end to end: the release's plans, and every frame made once."""

import json
from pathlib import Path

import pytest

from mirage_jax.models.config import ChunkConfig
from mirage_jax.rollout.plan import plan_chunks, round_up_frames

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "selection.json").read_text())


@pytest.mark.parametrize("frames", sorted(map(int, GOLDEN["plans"])))
def test_plan_is_the_releases_with_its_chunk_shape(frames):
    plan = plan_chunks(frames, ChunkConfig(latent_frames=9))
    assert [[c.start, c.stop, c.model_frames] for c in plan] == GOLDEN["plans"][str(frames)]


@pytest.mark.parametrize("latent_frames", [2, 5, 9])
@pytest.mark.parametrize("frames", [1, 2, 5, 17, 18, 33, 34, 65, 100])
def test_chunk_plan_covers_every_frame_once(latent_frames, frames):
    chunk = ChunkConfig(latent_frames=latent_frames)
    plan = plan_chunks(frames, chunk)
    total = round_up_frames(frames)
    assert [f for c in plan for f in range(c.start, c.stop)] == list(range(total))
    new = [
        i
        for c in plan
        for i in range(
            c.first_latent + (c.latent_frames - c.new_latents), c.first_latent + c.latent_frames
        )
    ]
    assert new == list(range(1 + (total - 1) // 4))
    assert all(c.latent_frames <= latent_frames for c in plan)


def test_frames_are_rounded_up_to_one_plus_four_n():
    assert [round_up_frames(f) for f in (1, 2, 5, 6, 30, 33)] == [5, 5, 5, 9, 33, 33]


def test_no_frames_is_an_error_that_says_what_to_ask_for():
    with pytest.raises(ValueError, match="frames: got 0, expected at least 1"):
        round_up_frames(0)
