"""The text cache: what was put in comes out, padded; strangers and damage are refused."""

import copy
import json
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mirage_jax.data.text_cache import TextSpec, add_texts, open_texts

SPEC = TextSpec("encoder", 8, 4)


def rows(count, seed=0, dtype=ml_dtypes.bfloat16):
    return np.random.default_rng(seed).normal(size=(count, 4)).astype(dtype)


FULL = SPEC._replace(dtype="float32")


@pytest.fixture(params=["file", "folder"])
def path(request, tmp_path):
    return tmp_path / ("texts.safetensors" if request.param == "file" else "texts")


@pytest.mark.parametrize(("spec", "dtype"), [(SPEC, ml_dtypes.bfloat16), (FULL, np.float32)])
def test_embeddings_come_back_bit_for_bit_in_their_dtype_and_padded_with_zeros(path, spec, dtype):
    counts = {"": 1, "a hall": 5, "Привет 🙂": 8}
    stored = {prompt: rows(count, count, dtype) for prompt, count in counts.items()}
    add_texts(path, spec, stored)
    cache = open_texts(path, encoder="encoder", width=4)
    assert len(cache) == 3
    assert set(cache) == set(stored)
    assert cache.spec == spec
    for prompt, expected in stored.items():
        np.testing.assert_array_equal(cache.rows(prompt), expected, strict=True)
        padded = cache[prompt]
        assert padded.shape == (8, 4)
        assert padded.dtype == expected.dtype
        np.testing.assert_array_equal(padded[: len(expected)], expected)
        assert not padded[len(expected) :].any()


def test_prompts_are_added_to_what_is_there(path):
    add_texts(path, SPEC, {"one": rows(2, 1)})
    add_texts(path, SPEC, {"two": rows(3, 2)})
    assert add_texts(path, SPEC, {}) == 0
    cache = open_texts(path)
    np.testing.assert_array_equal(cache.rows("one"), rows(2, 1))
    np.testing.assert_array_equal(cache.rows("two"), rows(3, 2))


def test_a_folder_grows_without_touching_its_files(tmp_path):
    add_texts(tmp_path, SPEC, {"one": rows(2)})
    (first,) = tmp_path.iterdir()
    before = first.stat().st_mtime_ns, first.read_bytes()
    add_texts(tmp_path, SPEC, {"two": rows(2)})
    assert (first.stat().st_mtime_ns, first.read_bytes()) == before
    assert len(list(tmp_path.iterdir())) == 2


def test_only_rows_before_padding_are_stored(tmp_path):
    spec = TextSpec("encoder", 512, 64)
    value = np.ones((20, 64), ml_dtypes.bfloat16)
    size = add_texts(tmp_path / "t.safetensors", spec, {"a prompt": value})
    assert 20 * 64 * 2 < size < 20 * 64 * 2 + 500


def test_a_missing_prompt_is_an_error_that_says_how_to_add_it(path):
    add_texts(path, SPEC, {"": rows(1)})
    with pytest.raises(ValueError, match=r"'a cave'.*mirage encode text --out \S*texts"):
        open_texts(path)["a cave"]
    with pytest.raises(ValueError, match="2 prompts are not among its 1"):
        open_texts(path).require(["", "a", "b", "a"])


def test_a_missing_cache_is_named(path):
    with pytest.raises(FileNotFoundError, match="mirage encode text"):
        open_texts(path)


def test_another_encoder_or_width_is_refused(path):
    add_texts(path, SPEC, {"": rows(1)})
    with pytest.raises(ValueError, match="made by encoder encoder, expected other"):
        open_texts(path, encoder="other")
    with pytest.raises(ValueError, match="width 4, expected 6"):
        open_texts(path, width=6)
    for other in (SPEC._replace(encoder="other"), SPEC._replace(length=16), FULL):
        with pytest.raises(ValueError, match="text cache"):
            add_texts(path, other, {"a": rows(1).astype(other.numpy_dtype)})


def test_a_folder_of_two_encoders_is_refused(tmp_path):
    add_texts(tmp_path / "a.safetensors", SPEC, {"": rows(1)})
    add_texts(tmp_path / "b.safetensors", SPEC._replace(encoder="other"), {"a": rows(1)})
    with pytest.raises(ValueError, match="expected one encoder"):
        open_texts(tmp_path)


@pytest.mark.parametrize(
    "value", [np.zeros((0, 4)), np.zeros((9, 4)), np.zeros((2, 3)), np.zeros(4), np.zeros((2, 4))]
)
def test_embeddings_that_do_not_fit_are_not_stored(tmp_path, value):
    with pytest.raises(ValueError, match="expected 1 to 8 rows of 4"):
        add_texts(tmp_path, FULL, {"a": value})


def test_a_cache_can_be_copied_with_files_open(path):
    add_texts(path, SPEC, {"a": rows(3)})
    cache = open_texts(path)
    cache["a"]
    np.testing.assert_array_equal(copy.deepcopy(cache).rows("a"), rows(3))


def damaged(path, **changes):
    """Write the file again with some header entries or tensors changed."""
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))["__metadata__"]
    tensors = load_file(path)
    (key,) = tensors
    if "tensor" in changes:
        tensors[key] = changes.pop("tensor")
    save_file(tensors, path, metadata=header | changes)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"format": "else"}, "expected 'mirage texts 1'"),
        ({"length": "many"}, "damaged"),
        ({"length": str(10**15)}, "damaged"),
        ({"dtype": "float32"}, "damaged"),
        ({"dtype": "object"}, "damaged"),
        ({"prompts": '{"0": "a"}'}, "damaged"),
        ({"prompts": "[]"}, "damaged"),
        ({"tensor": np.zeros((9, 4), np.float32)}, "damaged"),
        ({"tensor": np.zeros((2, 5), np.float32)}, "damaged"),
        ({"tensor": np.zeros((2, 4), np.int32)}, "damaged"),
    ],
)
def test_a_damaged_file_is_refused_before_anything_is_read(tmp_path, changes, match):
    path = tmp_path / "t.safetensors"
    add_texts(path, SPEC, {"a": rows(2)})
    damaged(path, **changes)
    with pytest.raises(ValueError, match=match):
        open_texts(path)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "t.safetensors"
    add_texts(path, SPEC, {"a": rows(2)})
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="damaged"):
        open_texts(path)
