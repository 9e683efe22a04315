"""Joining, cutting and summing up memories, compared with the rows themselves."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from memory.slow_memory import make_rows

from mirage_jax.memory import edit, files, rows, state, summary, write

CONFIG = state.MemoryConfig(capacity=64, channels=4, page_rows=8)
fast_write = jax.jit(write.write, static_argnums=2)


def make_memory(seed=0, count=40, config=CONFIG):
    made = make_rows(np.random.default_rng(seed), count, config.channels)
    return fast_write(state.empty(config), made, config)[0]


def assert_same_rows(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_crop_keeps_exactly_the_rows_of_a_region_in_their_order():
    memory = make_memory()
    before = rows.rows_in_order(memory)
    region = edit.Region(box=np.array([[-1, -1, -9], [1, 2, 9]]), center=np.zeros(3), radius=2.5)
    wanted = [
        i
        for i, point in enumerate(before.positions)
        if -1 <= point[0] <= 1 and -1 <= point[1] <= 2 and np.sqrt((point**2).sum()) <= 2.5
    ]
    assert 0 < len(wanted) < len(before.depth)
    kept = rows.rows_in_order(edit.crop(memory, CONFIG, region))
    assert_same_rows(kept, [table[wanted] for table in before])
    others = np.setdiff1d(np.arange(len(before.depth)), wanted)
    left = rows.rows_in_order(edit.crop(memory, CONFIG, region, outside=True))
    assert_same_rows(left, [table[others] for table in before])


def test_crop_by_time_keeps_both_ends():
    memory = make_memory()
    time = np.sort(rows.rows_in_order(memory).time)
    first, last = int(time[3]), int(time[-4])
    kept = rows.rows_in_order(edit.crop(memory, CONFIG, edit.Region(time=(first, last))))
    assert sorted(kept.time) == [t for t in time if first <= t <= last]


def test_joined_memories_are_as_if_written_one_after_the_other():
    memories = [make_memory(seed, count) for seed, count in ((1, 40), (2, 30))]
    config = edit.joined_config([CONFIG, CONFIG], 70, None, None)
    assert config.capacity >= 70
    joined = rows.rows_in_order(edit.join(memories, config))
    listed = [rows.rows_in_order(memory) for memory in memories]
    assert_same_rows(joined, [np.concatenate(pair) for pair in zip(*listed, strict=True)])


def test_joining_by_voxel_keeps_the_newest_row_of_each():
    memories = [make_memory(seed, 40) for seed in (1, 2)]
    config = edit.joined_config([CONFIG, CONFIG], 80, "newest", 1.0)
    joined = rows.rows_in_order(edit.join(memories, config))
    newest = {}
    for memory in memories:
        for point, token in zip(*rows.rows_in_order(memory)[:2], strict=True):
            newest[tuple(np.floor(point / np.float32(1.0)))] = token
    found = {tuple(np.floor(p)): t for p, t in zip(joined.positions, joined.tokens, strict=True)}
    assert len(found) == len(joined.depth) < 80
    assert found.keys() == newest.keys()
    for voxel, token in found.items():
        np.testing.assert_array_equal(token, newest[voxel])


def test_memories_of_other_conventions_are_not_joined():
    other = dataclasses.replace(CONFIG, half_cell=False, rounding="nearest_even")
    with pytest.raises(ValueError, match=r"half_cell is \[True, False\]"):
        edit.joined_config([CONFIG, other], 80, None, None)


@pytest.mark.parametrize("partitions", [1, 4])
def test_summary_agrees_with_the_rows(partitions):
    config = dataclasses.replace(CONFIG, partitions=partitions, capacity=400)
    memory = make_memory(config=config)
    listed = rows.rows_in_order(memory)
    found = summary.summarize(memory, config)
    assert found["rows"] == sum(found["partitions"]["rows"]) == len(listed.depth)
    assert len(found["partitions"]["rows"]) == partitions
    np.testing.assert_array_equal(found["bounds"][0], listed.positions.min(0))
    np.testing.assert_array_equal(found["bounds"][1], listed.positions.max(0))
    assert found["time"] == [listed.time.min(), listed.time.max()]
    assert found["bytes"]["total"] == files.nbytes(memory).capacity
    json.dumps(found, allow_nan=False)
    assert any("400" in line for line in summary.summary_lines(found))


def test_summary_of_an_empty_memory_has_no_bounds():
    found = summary.summarize(state.empty(CONFIG), CONFIG)
    assert found["rows"] == 0
    assert found["bounds"] is None
    assert summary.summary_lines(found)
