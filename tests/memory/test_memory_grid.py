"""Random sequences of writes against a memory kept in a Python dictionary, one row at a time."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory.slow_memory import by_age, make_rows, random_cameras, slow_read

from mirage_jax.memory import directory, put, put_pages, read, state, take, write
from mirage_jax.memory.rows import rebalance, row_numbers, rows_in_order

HW, LENGTH, SIZE = (6, 8), 64, 0.5
RULES = state.MemoryConfig(capacity=160, channels=2, voxel_size=SIZE, page_rows=8)
RETENTIONS, WHEN_FULL = ("append", "newest", "closest_view", "mean"), ("stop", "oldest", "farthest")
fast_write = jax.jit(write.write, static_argnums=2)
fast_read = jax.jit(read.read, static_argnums=(2, 3))
seeds = st.integers(0, 2**32 - 1)


def draw_rows(rng):
    """Return rows of which some are doubled, and some must be ignored."""
    rows = make_rows(rng, LENGTH, 2, spread=rng.choice([0.5, 1.5, 3.0]))
    rows.positions[rng.integers(0, LENGTH, 9)] = rows.positions[rng.integers(0, LENGTH, 9)]
    rows.depth[rng.integers(0, LENGTH, 4)] = [np.nan, np.inf, 0.0, -2.0]
    rows.positions[rng.integers(0, LENGTH, 2), 1] = [np.nan, -np.inf]
    rows.tokens[rng.integers(0, LENGTH), 0] = np.nan
    rows.keep[rng.random(LENGTH) < 0.1] = False
    return rows


def storable(rows):
    """Return the indices of the rows that may be stored."""
    numbers = np.concatenate([rows.positions, rows.tokens, rows.depth[:, None]], axis=1)
    return np.flatnonzero(rows.keep & np.isfinite(numbers).all(1) & (rows.depth > 0))


class SlowMemory:
    """Voxel -> row, by the words of `MemoryConfig.retention`; knows nothing of pages."""

    def __init__(self, config):
        self.config, self.rows, self.merged, self.serial = config, {}, 0, 0

    def offer(self, rows):
        """Let every storable row in, as if there were room; return the voxels that are new."""
        fresh = []
        for i in storable(rows):
            voxel = tuple(np.floor(rows.positions[i] / np.float32(SIZE)).astype(int))
            voxel = (*voxel, self.serial) if self.config.retention == "append" else voxel
            new = {"row": jax.tree.map(lambda leaf, i=i: leaf[i], rows), "age": self.serial}
            new |= {"sum": np.float64(rows.tokens[i]), "weight": 1}
            self.serial += 1
            old = self.rows.get(voxel)
            if old is None:
                fresh.append(voxel)
            else:
                self.merged += 1
                new["sum"], new["weight"] = new["sum"] + old["sum"], old["weight"] + 1
                if self.config.retention == "closest_view" and (
                    new["row"].depth >= old["row"].depth
                ):
                    continue
            self.rows[voxel] = new
        # New voxels are counted by the age of the row that leads them now.
        return sorted(set(fresh), key=lambda voxel: self.rows[voxel]["age"])

    def listed(self):
        """Return the rows oldest first."""
        return sorted(self.rows.items(), key=lambda item: item[1]["age"])


def assert_same_rows(memory, twin):
    stored, listed = rows_in_order(memory), [row for _, row in twin.listed()]
    assert int(memory.count) == len(stored.depth) == len(listed)
    for name in ("positions", "origin", "depth", "time"):
        expected = np.array([getattr(row["row"], name) for row in listed]).reshape(
            getattr(stored, name).shape
        )
        np.testing.assert_array_equal(getattr(stored, name), expected)
    if twin.config.retention == "mean":
        tokens = np.array([row["sum"] / row["weight"] for row in listed]).reshape(-1, 2)
        np.testing.assert_allclose(stored.tokens, tokens, atol=1e-5)
        np.testing.assert_array_equal(stored.weight, [row["weight"] for row in listed])
    else:
        tokens = np.array([row["row"].tokens for row in listed]).reshape(-1, 2)
        np.testing.assert_array_equal(stored.tokens, tokens)


@pytest.mark.parametrize("retention", RETENTIONS)
@settings(max_examples=12, deadline=None)
@given(seed=seeds)
def test_random_writes_leave_what_a_dictionary_of_voxels_holds(retention, seed):
    rng = np.random.default_rng(seed)
    config = dataclasses.replace(RULES, retention=retention)
    memory, twin, dropped = state.empty(config), SlowMemory(config), 0
    for _ in range(4):
        rows, before, merged = draw_rows(rng), len(twin.rows), twin.merged
        memory, report = fast_write(memory, rows, config)
        fresh = twin.offer(rows)
        for voxel in fresh[max(config.capacity - before, 0) :]:
            del twin.rows[voxel]
            dropped += 1
        assert_same_rows(memory, twin)
        assert int(report.merged) == twin.merged - merged
        assert int(memory.dropped) == dropped
        assert int(report.evicted) == 0


@pytest.mark.parametrize("when_full", ["oldest", "farthest"])
@pytest.mark.parametrize("retention", ["append", "newest"])
@settings(max_examples=8, deadline=None)
@given(seed=seeds)
def test_a_full_memory_gives_up_the_right_pages_whole_and_nothing_else(retention, when_full, seed):
    rng = np.random.default_rng(seed)
    config = dataclasses.replace(RULES, retention=retention, when_full=when_full)
    memory, twin, gave_up = state.empty(config), SlowMemory(config), 0
    for _ in range(6):
        rows, before = draw_rows(rng), memory
        memory, report = fast_write(before, rows, config)
        fresh = twin.offer(rows)
        assert int(report.dropped) == 0
        # Tokens are random, so they name rows.
        kept = set(map(tuple, rows_in_order(memory).tokens.tolist()))
        lost = [
            voxel
            for voxel, row in twin.rows.items()
            if tuple(row["row"].tokens.tolist()) not in kept
        ]
        assert not set(lost) & set(fresh)
        lost_ages = {twin.rows[voxel]["age"] for voxel in lost}
        for voxel in lost:
            del twin.rows[voxel]
        assert_same_rows(memory, twin)
        assert int(report.evicted) == len(lost)
        over = len(fresh) - (config.room - int(before.count))
        assert len(lost) == -(-max(over, 0) // 8) * 8
        gave_up += len(lost)
        if lost and retention == "append":
            # Ages count storable rows, as insertion numbers do.
            assert_lost_whole_and_worst(before, lost_ages, rows, when_full)
    assert gave_up or retention == "newest"


def assert_lost_whole_and_worst(before, lost_ages, rows, when_full):
    """Check that the rows lost are whole pages, and those the rule names first."""
    tables = zip(np.asarray(before.order[0]), np.asarray(before.bounds[0]), strict=True)
    in_use = np.flatnonzero(before.used[0])
    pages = [(order[order != state.NO_ROW], bounds) for order, bounds in tables]
    tail = int(before.tail[0])
    gone = [bool(set(order.tolist()) & lost_ages) for order, _ in pages]
    assert {
        int(age) for (order, _), lost in zip(pages, gone, strict=True) if lost for age in order
    } == lost_ages
    assert not gone[tail]
    origins = rows.origin[storable(rows)]
    camera = (origins.min(0) + origins.max(0)) / 2
    worth = {
        i: pages[i][0].max()
        if when_full == "oldest"
        else -np.sum((pages[i][1].mean(0) - camera) ** 2)
        for i in in_use
    }
    stay = [w for i, w in worth.items() if not gone[i] and i != tail]
    assert max(w for i, w in worth.items() if gone[i]) <= min(stay, default=np.inf) + 1e-3


@settings(max_examples=12, deadline=None)
@given(seed=seeds)
def test_reads_of_many_pages_equal_the_float64_oracle(seed):
    rng = np.random.default_rng(seed)
    memory = state.empty(RULES)
    for _ in range(3):
        memory, _ = fast_write(memory, draw_rows(rng), RULES)
    camera = random_cameras(rng, 2, HW)
    assert memory.order.shape[1] > state.FEW_PAGES
    found = fast_read(memory, camera, HW, RULES)
    for frame in range(2):
        index, unsure = slow_read(memory, camera, frame, HW)
        np.testing.assert_array_equal(by_age(memory, found.index[frame])[~unsure], index[~unsure])
    again = fast_read(memory, camera, HW, RULES)
    jax.tree.map(np.testing.assert_array_equal, found, again)
    # The same rows in other pages show the same.
    anew = fast_read(rebalance(memory, RULES), camera, HW, RULES)
    for name in ("tokens", "depth", "age", "angle"):
        np.testing.assert_array_equal(getattr(found, name), getattr(anew, name))


@pytest.mark.parametrize("select", ["nearest", "best_view"])
def test_walking_pages_chooses_the_rows_that_looking_at_all_chooses(select, monkeypatch):
    rng = np.random.default_rng(1)
    config = dataclasses.replace(RULES, select=select, capacity=400)
    memory = state.empty(config)
    for _ in range(6):
        rows = draw_rows(rng)
        # Most rows seen from where the camera is, at any depth: they pass without the shell test.
        rows.origin[: LENGTH // 2] = 0.0
        memory, _ = fast_write(memory, rows, config)
    camera = random_cameras(rng, 3, HW)
    camera.cam_to_world[0, :3, 3] = 0.0
    walked = jax.jit(read.read, static_argnums=(2, 3))(memory, camera, HW, config)
    monkeypatch.setattr(read, "FEW_PAGES", 1000)
    looked = jax.jit(lambda m, c: read.read(m, c, HW, config))(memory, camera)
    np.testing.assert_array_equal(walked.index, looked.index)
    assert walked.visibility.mean() > 0.3


def test_partitions_hold_every_row_once_and_rebalancing_evens_them_out():
    config = dataclasses.replace(RULES, capacity=1024, partitions=8, retention="newest")
    single = dataclasses.replace(config, partitions=1)
    rng = np.random.default_rng(2)
    many, one = state.empty(config), state.empty(single)
    for step in range(4):
        rows = draw_rows(rng)
        # The walk drifts away from where the first boundaries were drawn.
        rows = rows._replace(positions=rows.positions + np.float32([2 * step, 0, 0]))
        many, one = fast_write(many, rows, config)[0], fast_write(one, rows, single)[0]
    jax.tree.map(np.testing.assert_array_equal, rows_in_order(many), rows_in_order(one))
    even = rebalance(many, config)
    jax.tree.map(np.testing.assert_array_equal, rows_in_order(many), rows_in_order(even))
    filled, spread = np.asarray(many.filled), np.asarray(even.filled)
    assert spread.max() / spread.mean() < 1.3 < filled.max() / filled.mean()
    # What was merged before is found again after.
    rows = draw_rows(rng)
    after = [fast_write(memory, rows, config)[1] for memory in (many, even)]
    jax.tree.map(np.testing.assert_array_equal, *after)
    assert int(after[0].merged) > 5


def test_a_partition_that_is_full_drops_and_rebalancing_makes_room():
    config = dataclasses.replace(RULES, capacity=256, partitions=4)
    rng = np.random.default_rng(4)
    memory, _ = fast_write(state.empty(config), make_rows(rng, LENGTH, 2), config)
    crowd = make_rows(rng, LENGTH, 2, spread=0.01)
    crowd = crowd._replace(positions=crowd.positions + np.float32(0.7))
    dropped = 0
    for _ in range(2):
        memory, report = fast_write(memory, crowd, config)
        dropped += int(report.dropped)
    assert dropped > 0
    even = rebalance(memory, dataclasses.replace(config, voxel_size=0.001))
    assert int(even.dropped) == dropped
    assert np.ptp(np.asarray(even.filled)) <= 8


def test_row_numbers_are_those_of_a_read():
    rng = np.random.default_rng(6)
    memory, _ = fast_write(state.empty(RULES), draw_rows(rng), RULES)
    found = fast_read(memory, random_cameras(rng, 2, HW), HW, RULES)
    seen = np.asarray(found.index)[np.asarray(found.visibility)]
    assert set(seen.tolist()) <= set(row_numbers(memory).tolist())


@pytest.mark.parametrize("platform", ["tpu", "gpu"])
@pytest.mark.parametrize(
    "rules",
    [
        {"retention": "mean"},
        {"retention": "newest", "when_full": "oldest", "capacity": 144, "axes": True},
    ],
    ids=["mean", "oldest pages given up"],
)
def test_writing_page_by_page_equals_scattering_rows(monkeypatch, rules, platform):
    config = dataclasses.replace(RULES, partitions=2, **rules)
    rng = np.random.default_rng(7)
    draws = [draw_rows(rng) for _ in range(3)]
    scattered = paged = state.empty(config)
    evicted = 0
    for rows in draws:
        scattered, report = fast_write(scattered, rows, config)
        evicted += int(report.evicted)
    assert (evicted > 0) == (config.when_full == "oldest")
    # What accelerators do: pages, buckets of the directory and planes instead of single slots.
    for module in (put, put_pages, directory, take):
        monkeypatch.setattr(module, "current_platform", lambda: platform)
    by_page = jax.jit(lambda memory, rows: write.write(memory, rows, config)[0])
    for rows in draws:
        paged = by_page(paged, rows)
    jax.tree.map(np.testing.assert_array_equal, scattered, paged)
    # A batch, of which one gets its rows in another order and one gets none.
    many = jax.tree.map(lambda leaf: np.stack([leaf] * 3), state.empty(config))
    for rows, other in zip(draws, draws[::-1], strict=True):
        nothing = rows._replace(keep=np.zeros_like(rows.keep))
        many = jax.vmap(by_page)(many, jax.tree.map(lambda *x: np.stack(x), rows, other, nothing))
    jax.tree.map(lambda one, all: np.testing.assert_array_equal(one, all[0]), scattered, many)
    assert int(many.filled[2].sum()) == 0
    backwards = state.empty(config)
    for rows in draws[::-1]:
        backwards = by_page(backwards, rows)
    jax.tree.map(lambda one, all: np.testing.assert_array_equal(one, all[1]), backwards, many)
