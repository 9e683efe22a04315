"""Latents on disk: the same batches as from memory, whatever their number, and encoded once."""

import dataclasses
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from mirage_jax.models.config import ChunkConfig, ReferenceConfig
from mirage_jax.train import latent_files
from mirage_jax.train.codec_stage import RgbClips
from mirage_jax.train.given_latents import check_latents
from mirage_jax.train.latent_files import (
    Encoding,
    StoredLatents,
    encode_missing,
    encode_split,
    stored_captions,
)
from mirage_jax.train.latents import CodecWeights, Latents
from mirage_jax.train.windows.config import WindowConfig
from mirage_jax.train.windows.draw import draw_batch

FRAMES, HW, CHANNELS = 9, (4, 6), 3
REFERENCES = ReferenceConfig(most=2, threshold=0.0, voxel_size=0.5)
CHUNK = ChunkConfig(latent_frames=3, preceding=1, temporal_stride=4, references=REFERENCES)
CONFIG = WindowConfig(memory_frames=3, still_fraction=0.2, references=True)


def drawn_latents(clips, views=2, seed=0):
    rng = np.random.default_rng(seed)
    grid = (clips, views, FRAMES, *HW)
    poses = np.tile(np.eye(4, dtype=np.float32), (clips, views, FRAMES, 1, 1))
    poses[..., :3, 3] = rng.normal(size=(clips, views, FRAMES, 3)) / 10
    intrinsics = np.array([[5, 0, 3], [0, 5, 2], [0, 0, 1]], np.float32)
    return Latents(
        video=rng.normal(size=(clips, views, 2, FRAMES, *HW, CHANNELS)).astype(np.float16),
        single=rng.normal(size=(*grid, CHANNELS)).astype(np.float16),
        held=rng.normal(size=(*grid, CHANNELS)).astype(np.float16),
        depth=rng.uniform(1, 5, grid).astype(np.float32),
        keep=rng.random(grid) > 0.2,
        known=rng.random(grid) > 0.2,
        sky=rng.random(grid) > 0.9,
        cam_to_world=poses,
        intrinsics=np.tile(intrinsics, (clips, views, 1, 1)),
    )


def write(latents, folder):
    paths = [folder / f"clip_{index:05d}.safetensors" for index in range(latents.clips)]
    for index, path in enumerate(paths):
        arrays = {k: np.ascontiguousarray(v) for k, v in latents.clip(index)._asdict().items()}
        save_file(arrays, path)
    return paths


def batch(latents, step, rows=None):
    chosen = np.random.default_rng(step).integers(latents.clips, size=4)
    return draw_batch(latents, CONFIG, CHUNK, seed=1, step=step, clips=chosen, rows=rows)


def test_batches_from_disk_are_those_from_memory_to_the_bit_whole_or_in_parts(tmp_path):
    held = drawn_latents(3)
    stored = StoredLatents(write(held, tmp_path))
    assert (stored.clips, stored.views, stored.frames) == (3, 2, FRAMES)
    referenced = 0
    for step in range(12):
        for rows in (None, [1, 3]):
            expected, found = batch(held, step, rows), batch(stored, step, rows)
            assert expected.keys() == found.keys()
            referenced += "references" in found
            for name, array in found.items():
                assert type(array) is np.ndarray
                assert array.dtype == expected[name].dtype
                np.testing.assert_array_equal(array, expected[name])
    assert referenced
    for array, other in zip(stored.in_memory(), held, strict=True):
        np.testing.assert_array_equal(array, other)


def test_a_hundred_thousand_clips_are_drawn_from_in_the_memory_of_a_few(tmp_path):
    one = drawn_latents(1)
    stored = StoredLatents(write(one, tmp_path) * 100_000)
    size = sum(array.nbytes for array in one)
    batch(stored, 0)
    tracemalloc.start()
    for step in range(10):
        batch(stored, step)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * size  # all of them are a thousand times that


class Recording(list):
    """Clips of files that are known by a fingerprint; counts what is read."""

    fingerprint, reads = "first", 0

    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index)


@pytest.fixture
def encoded(monkeypatch):
    """Encoding without a codec; returns the first pixels of the clips that were encoded."""
    calls = []

    def encode_clip(clip, *_, **__):
        calls.append(int(clip["rgb"].flat[0]))
        return drawn_latents(1, seed=calls[-1]).clip(0)

    monkeypatch.setattr(latent_files, "encode_clip", encode_clip)
    return calls


CODEC = CodecWeights(SimpleNamespace(spatial_stride=8), {}, "digest")
CLIPS = [{"rgb": np.full((9, 8, 8, 3), value, np.uint8)} for value in range(3)]


def test_complete_latents_of_unchanged_files_are_found_without_reading_a_clip(tmp_path, encoded):
    clips = Recording(CLIPS)
    first = encode_split(CODEC, clips, tmp_path)
    assert (encoded, clips.reads) == ([0, 1, 2], 3)
    again = encode_split(CODEC, clips, tmp_path)
    assert (encoded, clips.reads) == ([0, 1, 2], 3)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    clips.fingerprint = "touched"  # other files with the same frames: looked at, not encoded
    encode_split(CODEC, clips, tmp_path)
    assert (encoded, clips.reads) == ([0, 1, 2], 6)
    encode_split(dataclasses.replace(CODEC, digest="other"), clips, tmp_path)
    assert encoded == [0, 1, 2] * 2


def test_what_is_missing_cut_off_or_of_other_frames_is_encoded_and_nothing_else(tmp_path, encoded):
    clips = Recording(CLIPS)
    encode_split(CODEC, clips, tmp_path)
    (tmp_path / "clip_00001.safetensors").unlink()
    encode_split(CODEC, clips, tmp_path)
    assert encoded == [0, 1, 2, 1]
    path = tmp_path / "clip_00002.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    (tmp_path / "complete.json").unlink()  # as after an interruption
    changed = Recording([CLIPS[0], {"rgb": CLIPS[1]["rgb"] + 7}, CLIPS[2]])
    encode_split(CODEC, changed, tmp_path)
    assert encoded == [0, 1, 2, 1, 8, 2]


def test_latents_above_the_bound_stay_on_disk_and_it_is_said(tmp_path, encoded):
    said = []
    assert isinstance(encode_split(CODEC, CLIPS, tmp_path, report=said.append), Latents)
    stored = encode_split(CODEC, CLIPS, tmp_path, ram_bytes=1000, report=said.append)
    assert isinstance(stored, StoredLatents)
    assert len(said) == 2
    assert "3 of 3 clips" in said[0]
    assert "3 encoded, 0 found" in said[0]
    assert "data.ram_bytes 1000" in said[1]


def test_a_file_that_cannot_be_read_or_has_other_sizes_is_named(tmp_path):
    paths = write(drawn_latents(3), tmp_path)
    paths[1].write_bytes(paths[1].read_bytes()[:1000])
    other = tmp_path / "other"
    other.mkdir()
    write(drawn_latents(1, views=1), other)[0].replace(paths[2])
    stored = StoredLatents(paths)
    with pytest.raises(ValueError, match="clip 1 cannot be read.*clip_00001.*delete"):
        stored.clip(1)
    with pytest.raises(ValueError, match="clip_00002.*expected those of the first clip"):
        stored.clip(2)


def test_frames_beyond_the_bound_are_read_again_and_are_the_same():
    clips = Recording(CLIPS)
    size = CLIPS[0]["rgb"].nbytes
    bounded = RgbClips(clips, ram_bytes=2 * size)
    for _ in range(2):
        for index in range(3):
            np.testing.assert_array_equal(bounded[index], CLIPS[index]["rgb"])
    assert clips.reads == 4  # two are kept, the third is read twice


def test_captions_are_known_without_reading_a_clip_and_a_changed_one_is_noticed(tmp_path, encoded):
    said = [clip | {"caption": f"room {index} "} for index, clip in enumerate(CLIPS)]
    encode_split(CODEC, Recording(said), tmp_path)
    assert stored_captions(tmp_path) == ("room 0 ", "room 1 ", "room 2 ")
    clips = Recording([said[0], CLIPS[1], said[2]])
    clips.fingerprint = "edited"
    encode_split(CODEC, clips, tmp_path)
    assert encoded == [0, 1, 2, 1]
    assert stored_captions(tmp_path) == ("room 0 ", "", "room 2 ")


def test_given_latents_are_those_of_the_codec_the_settings_and_every_clip_or_refused(
    tmp_path, encoded
):
    folder, plain = tmp_path / "train", Encoding(CODEC)
    encode_missing(plain, CLIPS, folder)
    check_latents(plain, CLIPS, folder)
    others = {
        "codec weights": (dataclasses.replace(plain, codec=dataclasses.replace(CODEC, digest="x"))),
        r"data\.mirror False, expected True": dataclasses.replace(plain, mirror=True),
        r"chunk\.write\.depth surface, expected": dataclasses.replace(plain, depth="bilinear"),
    }
    for message, encoding in others.items():
        with pytest.raises(ValueError, match=f"data.latents: .*{message}.*encode latents"):
            check_latents(encoding, CLIPS, folder)
    with pytest.raises(ValueError, match="number of clips 3, expected 2"):
        check_latents(plain, CLIPS[:2], folder)
    for changed in ({"rgb": CLIPS[1]["rgb"] + 7}, CLIPS[1] | {"caption": "a lake"}):
        with pytest.raises(ValueError, match="clip_00001.* is not of clip 1"):
            check_latents(plain, [CLIPS[0], changed, CLIPS[2]], folder)
    files = Recording(CLIPS)
    files.file_sizes = "of a data set"
    with pytest.raises(ValueError, match="data set .* None, expected of a data set"):
        check_latents(plain, files, folder)
