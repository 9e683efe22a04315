"""Records go to disk and come back unchanged, by index, without TensorFlow."""

import copy
import json
import subprocess
import sys
import zlib

import numpy as np
import pytest
from random_clips import SHAPE, random_clip

from mirage_jax.data.builder import SplitWriter
from mirage_jax.data.clip import ObjectTable
from mirage_jax.data.source import load_fields, open_clips


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    directory = tmp_path_factory.mktemp("with space") / "clips"
    for split, sizes in {"train": (2, 3), "val": (1,)}.items():
        writer = SplitWriter(directory, "doom", split, len(sizes))
        for shard, size in enumerate(sizes):
            clips = [random_clip(10 * shard + i) for i in range(size)]
            assert writer.write_shard(shard, clips) == size
            assert writer.has_shard(shard)
        writer.finish(SHAPE, "random clips")
    return directory


def test_clips_come_back_bit_equal_and_in_order(recording):
    source = open_clips(recording, "train")
    assert len(source) == 5
    assert source.shape == SHAPE
    for index, seed in enumerate((0, 1, 10, 11, 12)):
        for name, value in random_clip(seed).items():
            np.testing.assert_array_equal(source[index][name], value, err_msg=name)
            if isinstance(value, np.ndarray):
                assert source[index][name].dtype == value.dtype
    np.testing.assert_array_equal(source[-1]["rgb"], source[4]["rgb"])
    assert len(open_clips(recording, "val")) == 1


def test_reading_imports_neither_tensorflow_nor_jax(recording):
    code = (
        "import sys, json, zlib\n"
        "from mirage_jax.data.source import open_clips\n"
        "import mirage_jax.data.sampling, mirage_jax.data.procedural\n"
        f"clip = open_clips({str(recording)!r}, 'train')[3]\n"
        "loaded = [m for m in ('tensorflow', 'jax', 'torch', 'vizdoom') if m in sys.modules]\n"
        "print(json.dumps([loaded, zlib.crc32(clip['rgb'].tobytes())]))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = zlib.crc32(random_clip(11)["rgb"].tobytes())
    assert json.loads(run.stdout.splitlines()[-1]) == [[], expected]


def test_tensorflow_datasets_opens_the_folder_as_its_own(recording):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(recording))
    assert builder.info.splits["train"].num_examples == 5
    record = builder.as_data_source(split="train")[2]
    np.testing.assert_array_equal(record["depth"], random_clip(10)["depth"])


def test_grain_reads_clips_by_index(recording):
    import grain

    dataset = grain.MapDataset.source(open_clips(recording, "train")).shuffle(seed=3)
    seen = {int(dataset[i]["object_id"][0]) for i in range(5)}
    assert seen == {int(random_clip(seed)["object_id"][0]) for seed in (0, 1, 10, 11, 12)}


def test_a_source_can_be_copied_to_worker_processes_after_use(recording):
    source = open_clips(recording, "train")
    first = source[0]
    other = copy.deepcopy(source)
    np.testing.assert_array_equal(other[0]["rgb"], first["rgb"])
    np.testing.assert_array_equal(other[4]["rgb"], source[4]["rgb"])


def test_load_fields_keeps_only_what_was_asked_for(recording):
    loaded = load_fields(open_clips(recording, "train"), ["rgb", "depth"])
    assert [set(clip) for clip in loaded] == [{"rgb", "depth"}] * 5
    np.testing.assert_array_equal(loaded[4]["rgb"], random_clip(12)["rgb"])


def test_a_corrupt_record_is_named_by_file_and_index(tmp_path):
    writer = SplitWriter(tmp_path, "doom", "train", 1)
    path = writer.shard_path(0)
    # Where files that differ in one clip begin to differ is where that clip's record lies.
    writer.write_shard(0, [random_clip(seed) for seed in (0, 1, 99, 3)])
    other = path.read_bytes()
    writer.write_shard(0, [random_clip(seed) for seed in (0, 1, 2, 3)])
    writer.finish(SHAPE, "to be damaged")
    data = bytearray(path.read_bytes())
    start = next(i for i, (a, b) in enumerate(zip(data, other, strict=False)) if a != b)
    data[start : start + 400] = bytes(400)
    path.write_bytes(data)
    source = open_clips(tmp_path, "train")
    with pytest.raises(ValueError, match=r"record 2 of .*doom-train\.array_record-00000-of-00001"):
        source[2]


def test_a_missing_folder_split_or_clip_is_explained(recording, tmp_path):
    with pytest.raises(FileNotFoundError, match="mirage record doom --out"):
        open_clips(tmp_path, "train")
    with pytest.raises(ValueError, match=r"'test'.*\['train', 'val'\]"):
        open_clips(recording, "test")
    with pytest.raises(IndexError, match="got 5"):
        open_clips(recording, "train")[5]


def test_an_interrupted_shard_is_not_taken_for_a_finished_one(tmp_path):
    writer = SplitWriter(tmp_path, "doom", "train", 1)

    def clips():
        yield random_clip(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writer.write_shard(0, clips())
    assert not writer.has_shard(0)
    with pytest.raises(ValueError, match="no complete split"):
        writer.finish(SHAPE, "")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("kind", np.zeros((3, 8, 11), np.uint8), r"clip\['kind'\].*\[3, 8, 12\]"),
        ("depth", np.full((3, 8, 12), np.nan, np.float16), r"clip\['depth'\].*non-finite"),
        ("level", None, r"clip\['level'\].*str"),
    ],
)
def test_a_malformed_clip_is_refused_before_it_is_written(tmp_path, name, value, message):
    writer = SplitWriter(tmp_path, "doom", "train", 1)
    with pytest.raises(ValueError, match=message):
        writer.write_shard(0, [random_clip(0) | {name: value}])
    assert not writer.has_shard(0)


def test_an_object_keeps_its_row_and_a_full_table_drops_the_rest():
    table = ObjectTable(2)
    rows = [table.add(0, identity, f"thing {identity}") for identity in range(70)]
    assert rows == [*range(64), *[-1] * 6]
    assert table.add(1, 7, "thing 7") == 7
    arrays = table.arrays()
    assert arrays["object_count"] == 64
    assert arrays["object_visible"].sum(axis=1).tolist() == [64, 1]
