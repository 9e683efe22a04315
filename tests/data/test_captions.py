"""Captions travel with clips, come back as embeddings, and are dropped as often as asked."""

import ml_dtypes
import numpy as np
import pytest
from random_clips import SHAPE, random_clip

from mirage_jax.data.builder import SplitWriter
from mirage_jax.data.captions import ClipTexts, clip_captions, draw_dropped, recorded_captions
from mirage_jax.data.source import open_clips
from mirage_jax.data.text_cache import TextSpec, add_texts, open_texts

SPEC = TextSpec("encoder", 6, 3)
ROWS = {
    prompt: np.full((1 + n, 3), 1 + n, ml_dtypes.bfloat16)
    for n, prompt in enumerate(["", "a hall", "a cave"])
}


def record(directory, split, clips, *, captions):
    writer = SplitWriter(directory, "rooms", split, 1, captions=captions)
    writer.write_shard(0, clips)
    writer.finish(SHAPE, "clips")


@pytest.fixture
def cache(tmp_path):
    add_texts(tmp_path / "texts", SPEC, ROWS)
    return open_texts(tmp_path / "texts")


def test_captions_are_recorded_with_their_clips(tmp_path):
    clips = [random_clip(0) | {"caption": "a hall, “red”"}, random_clip(1)]
    record(tmp_path, "train", clips, captions=True)
    source = open_clips(tmp_path, "train")
    assert clip_captions(source) == ("a hall, “red”", "")
    np.testing.assert_array_equal(source[1]["rgb"], random_clip(1)["rgb"])


def test_the_captions_of_all_splits_are_listed_once(tmp_path):
    captions = {"train": ["a", "b"], "val": ["b", "c"]}
    for split, texts in captions.items():
        clips = [random_clip(n) | {"caption": text} for n, text in enumerate(texts)]
        record(tmp_path, split, clips, captions=True)
    assert recorded_captions(tmp_path) == ["a", "b", "c"]


def test_clips_without_captions_follow_the_empty_prompt(tmp_path):
    record(tmp_path, "train", [random_clip(0)], captions=False)
    source = open_clips(tmp_path, "train")
    assert "caption" not in source[0]
    assert clip_captions(source) == ("",)


def test_splits_of_a_folder_are_written_alike(tmp_path):
    record(tmp_path, "train", [random_clip(0)], captions=False)
    with pytest.raises(ValueError, match="already holds splits without captions"):
        record(tmp_path, "val", [random_clip(1)], captions=True)


@pytest.mark.parametrize(
    ("caption", "captions", "match"),
    [("a hall", False, "captions=True"), (3, True, r"clip\['caption'\]: got 3")],
)
def test_a_caption_that_would_be_lost_or_is_no_text_is_refused(tmp_path, caption, captions, match):
    with pytest.raises(ValueError, match=match):
        record(tmp_path, "train", [random_clip(0) | {"caption": caption}], captions=captions)


def test_a_clip_s_embedding_is_its_caption_s_padded(cache):
    texts = ClipTexts(cache, ("a cave", "", "a hall"))
    got = texts.embed(np.array([2, 0, 0, 1]))
    assert got.shape == (4, 6, 3)
    assert [int(row[0, 0]) for row in got] == [2, 3, 3, 1]
    assert (got != 0).any(-1).sum(1).tolist() == [2, 3, 3, 1]
    dropped = texts.embed([2, 0], np.array([True, False]))
    np.testing.assert_array_equal(dropped, texts.embed([1, 0]))


def test_a_caption_or_an_empty_prompt_that_was_not_encoded_is_named(cache, tmp_path):
    with pytest.raises(ValueError, match="'a lake'"):
        ClipTexts(cache, ("a lake",))
    add_texts(tmp_path / "other", SPEC, {"a hall": ROWS["a hall"]})
    with pytest.raises(ValueError, match="''"):
        ClipTexts(open_texts(tmp_path / "other"), ("a hall",))


def test_dropout_is_a_function_of_seed_and_step_and_drops_the_share_asked_for():
    np.testing.assert_array_equal(draw_dropped(1, 5, 8, 0.5), draw_dropped(1, 5, 8, 0.5))
    draws = np.stack([draw_dropped(1, step, 8, 0.2) for step in range(500)])
    assert len({row.tobytes() for row in draws}) > 50
    assert abs(draws.mean() - 0.2) < 0.03  # 4.8 standard deviations
    assert not draw_dropped(1, 5, 100, 0.0).any()
    assert draw_dropped(1, 5, 100, 1.0).all()
