"""Mixtures meet their shares, show every clip, know no state, and stay small with many clips."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mirage_jax.data.mixture import BLOCK, ClipOrder, MixedClips, order_of, parse_mixture
from mirage_jax.data.procedural import ProceduralConfig, record_split
from mirage_jax.data.sampling import clip_indices
from mirage_jax.data.source import open_clips
from mirage_jax.train import config as config_lib
from mirage_jax.train.stages import open_split

TINY = ProceduralConfig(frames=2, height=8, width=16, supersample=1)


def drawn(order: ClipOrder, steps: range, batch: int, seed: int = 5) -> np.ndarray:
    return np.concatenate([order.indices(seed, step, batch) for step in steps])


def test_shares_are_met_exactly_in_every_block():
    order = ClipOrder((7, 30, 11), (3.0, 1.0, 0.004))
    assert order.quotas.sum() == BLOCK
    assert order.quotas[2] == 1
    for block in range(3):
        found = drawn(order, range(block * 10, block * 10 + 10), BLOCK // 10)
        counts = [
            ((found >= low) & (found < high)).sum() for low, high in ((0, 7), (7, 37), (37, 48))
        ]
        assert counts == order.quotas.tolist()
        assert abs(counts[0] - 3 * counts[1]) <= 3


def test_within_a_source_every_clip_comes_once_an_epoch():
    order = ClipOrder((7, 90), (1.0, 1.0))
    found = drawn(order, range(250), 8)
    for low, high in ((0, 7), (7, 97)):
        own = found[(found >= low) & (found < high)]
        size = high - low
        epochs = own[: len(own) // size * size].reshape(-1, size)
        assert (np.sort(epochs, axis=1) == np.arange(low, high)).all()
        assert (epochs[0] != epochs[1]).any()


def test_a_step_depends_on_seed_and_step_alone():
    order = ClipOrder((7, 30), (1.0, 2.0))
    forwards = [order.indices(3, step, 12) for step in range(200)]
    assert (order.indices(3, 150, 12) == forwards[150]).all()
    # The same draws in other batches: a step is a window of one sequence.
    np.testing.assert_array_equal(np.concatenate(forwards), drawn(order, range(100), 24, seed=3))
    assert (np.concatenate(forwards) != drawn(order, range(200), 12, seed=4)).any()


def test_a_single_source_is_drawn_as_without_a_mixture():
    np.testing.assert_array_equal(
        ClipOrder((13,), (5.0,)).indices(3, 41, 4), clip_indices(3, 41, 4, 13)
    )


def test_a_mixture_of_folders_is_one_source_that_training_opens(tmp_path: Path):
    for name, count in (("a", 2), ("b", 3)):
        record_split(tmp_path / name, "train", count, seed=len(name) + count, config=TINY)
    record_split(tmp_path / "a", "val", 1, config=TINY)
    parts = (f"{tmp_path}/a=3", f"{tmp_path}/b")
    world = config_lib.load(str(Path(__file__).parents[2] / "configs" / "procedural.py"))
    world = config_lib.replace(world, {"data.source": "recorded", "data.mixture": parts})
    clips = open_split(world.data, "train")
    assert len(clips) == 5
    apart = [open_clips(tmp_path / name, "train") for name in "ab"]
    for index, (source, own) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]):
        np.testing.assert_array_equal(clips[index]["rgb"], apart[source][own]["rgb"])
    assert order_of(clips).quotas.tolist() == [750, 250]
    # Only one of the two has clips for validation.
    assert len(open_split(world.data, "val")) == 1
    with pytest.raises(IndexError, match="below 5"):
        clips[5]


def test_what_makes_no_mixture_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="expected FOLDER or FOLDER=WEIGHT"):
        parse_mixture(["data/doom=-1"])
    assert parse_mixture(["a=b=2", "c"]) == [("a=b", 2.0), ("c", 1.0)]
    record_split(tmp_path / "a", "train", 1, config=TINY)
    record_split(tmp_path / "b", "train", 1, config=ProceduralConfig(frames=2, height=8, width=24))
    with pytest.raises(ValueError, match="different sizes"):
        MixedClips([open_clips(tmp_path / name, "train") for name in "ab"], [1, 1])
    with pytest.raises(ValueError, match="at least one clip"):
        ClipOrder((3, 0), (1.0, 1.0))


MANY = """
import os, sys
from mirage_jax.data.mixture import MixedClips
from mirage_jax.data.source import ClipSource, open_clips

def held():  # memory in MB
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

folder, shards = sys.argv[1], int(sys.argv[2])
one = open_clips(folder, "train")
# Every shard a file of its own, by name: 50 clips each.
paths = [f"{folder}/shard-{i}" for i in range(shards)]
half = [ClipSource(folder, "train", p, [50] * len(p)) for p in (paths[::2], paths[1::2])]
clips = MixedClips(half, [2, 1])
clips[0], clips.order.indices(0, 0, 8)
before = held()
for step in range(100):
    for index in clips.order.indices(0, step, 8):
        clips[int(index)]["rgb"]
print(len(clips), held() - before, len(os.listdir("/proc/self/fd")))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_a_hundred_thousand_clips_are_drawn_and_read_in_bounded_memory(tmp_path: Path):
    record_split(tmp_path, "train", 50, config=TINY)
    (shard,) = tmp_path.glob("*.array_record-*")
    for number in range(2000):
        (tmp_path / f"shard-{number}").hardlink_to(shard)
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(tmp_path), "2000"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    count, grown, handles = done.stdout.split()
    assert int(count) == 100_000
    assert float(grown) < 30
    assert int(handles) < 200
