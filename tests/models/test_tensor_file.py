"""Tensor files against the safetensors library, and files that are broken or cut short."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from mirage_jax.models.tensor_file import TensorWriter, stored_metadata, stored_tensors

TENSORS = {
    "wide": np.arange(6, dtype=np.float64).reshape(2, 3),
    "half": np.arange(4, dtype=np.float16),
    "brain": np.arange(10).astype(ml_dtypes.bfloat16).reshape(5, 2),
    "byte": np.arange(3, dtype=np.uint8),
    "flag": np.array([True, False]),
    "empty": np.zeros((0, 4), np.float32),
    "scalar": np.array(5, np.int64),
}


def write(path, tensors, metadata=None):
    with TensorWriter(path, tensors, metadata) as file:
        for name, value in tensors.items():
            file.write(name, value)


def test_the_library_reads_what_is_written(tmp_path):
    path = tmp_path / "a.safetensors"
    write(path, TENSORS, {"b": "2", "a": "1"})
    with safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"a": "1", "b": "2"}
    got = load_file(path)
    assert got.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        np.testing.assert_array_equal(got[name], value, strict=True)


def test_what_the_library_writes_is_read(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(TENSORS, path, metadata={"format": "pt"})
    assert stored_metadata(path) == {"format": "pt"}
    for name, tensor in stored_tensors(path).items():
        np.testing.assert_array_equal(tensor.read(), TENSORS[name], strict=True)


def test_layers_are_written_and_read_one_by_one_in_any_order(tmp_path):
    path = tmp_path / "a.safetensors"
    stacked = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    with TensorWriter(path, {"x": stacked}) as file:
        for layer in (2, 0, 3, 1):
            file.write("x", stacked[layer], layer)
    np.testing.assert_array_equal(load_file(path)["x"], stacked)
    np.testing.assert_array_equal(stored_tensors(path)["x"].layer(2).read(), stacked[2])


def test_a_writer_that_fails_or_is_not_done_leaves_the_old_file_and_no_debris(tmp_path):
    path = tmp_path / "a.safetensors"
    write(path, {"x": np.zeros(2, np.float32)})
    before = path.read_bytes()
    with pytest.raises(KeyError, match="unknown"):
        write_some(path, ["half", "unknown"])
    with pytest.raises(ValueError, match="not all bytes were written of wide, brain"):
        write_some(path, TENSORS.keys() - {"wide", "brain"})
    with pytest.raises(ValueError, match=r"half .*got \(4,\) float32, expected \(4,\) float16"):
        write_some(path, ["half"], np.float32)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def write_some(path, names, dtype=None):
    with TensorWriter(path, TENSORS) as file:
        for name in names:
            file.write(name, TENSORS[name].astype(dtype or TENSORS[name].dtype))


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    "header",
    [
        entry(offsets=(0, 4)),
        entry(offsets=(0, 800), shape=(200,)),
        entry(offsets=(-8, 0)),
        entry(shape=(-2,), offsets=(0, 8)),
        entry(shape=(10**12, 0, 10**12), offsets=(0, 8)),
        entry(dtype="F4"),
        {"x": 3},
        [],
    ],
)
def test_headers_that_lie_are_refused_before_anything_is_allocated(tmp_path, header):
    path = tmp_path / "a.safetensors"
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(ValueError, match="expected a whole safetensors file"):
        stored_tensors(path)


@pytest.mark.parametrize("data", [b"", b"short", (2**40).to_bytes(8, "little") + b"{}"])
def test_files_of_another_kind_are_refused(tmp_path, data):
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="expected a whole safetensors file"):
        stored_tensors(path)
