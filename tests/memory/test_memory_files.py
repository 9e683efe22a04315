"""Memories on disk: whole, exact, checked, and readable by others."""

import dataclasses
import os

import jax
import numpy as np
import pytest
from memory.slow_memory import make_rows
from plyfile import PlyData
from safetensors.numpy import save_file

from mirage_jax.memory import files, state, write
from mirage_jax.memory.rows import rows_in_order

CONFIG = state.MemoryConfig(capacity=50, channels=4, page_rows=8)


fast_write = jax.jit(write.write, static_argnums=2)


def make_memory(config=CONFIG, count=30, seed=0):
    rows = make_rows(np.random.default_rng(seed), count, config.channels)
    return fast_write(state.empty(config), rows, config)[0]


def assert_same(first, second):
    """Check that two memories hold the same rows, bit for bit and in the same order."""
    assert int(first.dropped) == int(second.dropped)
    for one, other in zip(rows_in_order(first), rows_in_order(second), strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("count", [0, 30, 70])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_save_and_load_round_trip_is_bit_exact(tmp_path, count, dtype):
    config = dataclasses.replace(CONFIG, token_dtype=dtype)
    memory = make_memory(config, count)
    files.save(tmp_path / "deep" / "a b.safetensors", memory, config)
    loaded, stored = files.load(tmp_path / "deep" / "a b.safetensors")
    assert stored == config
    assert_same(memory, loaded)


def test_a_loaded_memory_may_get_more_room_and_be_read_otherwise(tmp_path):
    memory = make_memory()
    files.save(tmp_path / "m", memory, CONFIG)
    wider = dataclasses.replace(CONFIG, capacity=80, select="best_view")
    loaded, config = files.load(tmp_path / "m", wider)
    assert config == wider
    assert loaded.depth.size >= 80
    assert_same(memory, loaded)


def test_interrupted_save_leaves_the_last_good_file(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    good = make_memory(seed=1)
    files.save(path, good, CONFIG)

    def full_disk(_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        files.save(path, make_memory(seed=2), CONFIG)
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]
    assert_same(files.load(path)[0], good)


def test_load_refuses_damaged_and_foreign_files(tmp_path):
    path = tmp_path / "m"
    with pytest.raises(FileNotFoundError, match="no file at"):
        files.load(path)
    files.save(path, make_memory(), CONFIG)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        files.load(path)
    save_file({"weights": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="another kind of safetensors file"):
        files.load(path)
    path.write_bytes(whole.replace(b'"origin"', b'"orbits"'))
    with pytest.raises(ValueError, match=r"lacks \['origin'\] and has unexpected \['orbits'\]"):
        files.load(path)
    path.write_bytes(whole.replace(b'"count":"30"', b'"count":"29"'))
    with pytest.raises(
        ValueError, match=r"'positions' in .* is F32\[30, 3\], expected F32\[29, 3\]"
    ):
        files.load(path)
    path.write_bytes(whole.replace(rb"\"shell\"", rb"\"shall\""))
    with pytest.raises(ValueError, match=r"header of .* is damaged .*unknown key 'shall'"):
        files.load(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"channels": 5}, "config.channels is 5, but .* was written with 4"),
        ({"token_dtype": "bfloat16"}, "config.token_dtype is 'bfloat16'"),
        ({"half_cell": False, "rounding": "nearest_even"}, "config.half_cell is False"),
        ({"capacity": 20}, "holds 30 rows, config.capacity is 20; raise the capacity"),
    ],
)
def test_load_refuses_a_config_that_does_not_fit_the_rows(tmp_path, change, words):
    files.save(tmp_path / "m", make_memory(), CONFIG)
    with pytest.raises(ValueError, match=words):
        files.load(tmp_path / "m", dataclasses.replace(CONFIG, **change))


def test_save_refuses_a_stack_of_memories(tmp_path):
    stacked = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), make_memory())
    with pytest.raises(ValueError, match="save memory: memory.tokens"):
        files.save(tmp_path / "m", stacked, CONFIG)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [0, 30])
def test_exported_ply_holds_used_rows_and_colors(tmp_path, count):
    memory = make_memory(count=count)
    colors = np.random.default_rng(0).integers(0, 256, (count, 3)).astype(np.uint8)
    files.export_ply(tmp_path / "cloud.ply", memory, colors)
    vertices = PlyData.read(tmp_path / "cloud.ply")["vertex"]
    points = np.stack([vertices[axis] for axis in "xyz"], -1)
    np.testing.assert_array_equal(points, rows_in_order(memory).positions)
    got = np.stack([vertices[c] for c in ("red", "green", "blue")], -1)
    np.testing.assert_array_equal(got, colors)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_exported_ply_shows_tokens_in_false_colors_by_default(tmp_path, channels):
    memory = make_memory(dataclasses.replace(CONFIG, channels=channels))
    files.export_ply(tmp_path / "cloud.ply", memory)
    red = PlyData.read(tmp_path / "cloud.ply")["vertex"]["red"]
    assert red.dtype == np.uint8
    assert red.std() > 20


def test_export_refuses_colors_of_another_size_or_type(tmp_path):
    memory = make_memory()
    with pytest.raises(ValueError, match=r"colors has shape \[50, 3\], expected \[30, 3\]"):
        files.export_ply(tmp_path / "c.ply", memory, np.zeros((50, 3), np.uint8))
    with pytest.raises(TypeError, match="colors has dtype float64, expected uint8"):
        files.export_ply(tmp_path / "c.ply", memory, np.zeros((30, 3)))


def test_nbytes_counts_used_rows_and_capacity():
    row = 4 * (3 + 4 + 3 + 1 + 1 + 1)
    memory = make_memory()
    assert files.nbytes(memory) == (30 * row, sum(table.nbytes for table in memory))
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), make_memory(), make_memory(count=10))
    assert files.nbytes(stacked).used == 40 * row
    assert files.nbytes(stacked).capacity == 2 * files.nbytes(memory).capacity
    narrow = dataclasses.replace(CONFIG, token_dtype="bfloat16")
    assert files.nbytes(make_memory(narrow)).used == 30 * (row - 2 * 4)
