"""Damaged, truncated, huge and hostile camera files: a ValueError that names the file, never more.

Each reader gets files of its own format with bytes changed, cut, repeated or inserted, and files
made up of the pieces it looks for. What is read without complaint must be finite cameras.
"""

import json
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from camera_path_cases import FILES, FORMAT_NAMES, random_path, written
from file_edits import EDITS, edited, fuzzed
from hypothesis import given
from hypothesis import strategies as st

from mirage_jax.geometry.camera_files import Reading, read_cameras

READING = Reading(matrices="c2w", world="original", hw=(12, 16), intrinsics=np.diag([9.0, 9, 1]))
FUZZED = fuzzed(40)


def assert_read_or_refused(file, kind=None, strict=True):
    """Read; a refusal must be a ValueError (or a missing file) that names the file."""
    refusal = ""
    try:
        found = read_cameras(file, READING, kind, strict)
    except (ValueError, FileNotFoundError) as error:
        refusal = str(error)
    if refusal:
        assert file.name in refusal or file.parent.name in refusal, refusal
        assert len(refusal) < 3000
        return None
    assert np.isfinite(found.cam_to_world).all()
    assert len(found) >= 1
    return found


@pytest.mark.parametrize("kind", FORMAT_NAMES)
def test_damaged_files_are_read_or_refused(kind, tmp_path):
    file = written(tmp_path, kind, random_path(3).rescaled((12, 16)))
    files = [file] if file.is_file() else sorted(file.iterdir())
    if kind == "w2c":
        files.append(tmp_path / "intrinsics.txt")
    originals = {part: part.read_bytes() for part in files}

    @FUZZED
    @given(which=st.integers(0, 9), edits=EDITS, strict=st.booleans())
    def check(which, edits, strict):
        part = files[which % len(files)]
        part.write_bytes(edited(originals[part], edits))
        assert_read_or_refused(file, kind, strict)
        part.write_bytes(originals[part])

    check()


WORDS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True, width=64).map(repr),
    st.integers(-(10**30), 10**30).map(str),
    st.sampled_from(
        ["1e999", "-0", "#", "[", "]", "[[", "1_0", "PINHOLE", "a.png", "", "\x00", "é"]
    ),
)
LINES = st.lists(st.lists(WORDS, min_size=0, max_size=21).map(" ".join), max_size=6).map("\n".join)


@pytest.mark.parametrize("name", ["a.txt", "a.tum", "w2c.txt", "images.txt"])
def test_made_up_text_is_read_or_refused(name, tmp_path):
    @FUZZED
    @given(LINES)
    def check(text):
        (tmp_path / name).write_text(text)
        assert_read_or_refused(tmp_path / name)

    check()


LEAVES = st.one_of(
    st.none(), st.booleans(), st.floats(), st.text(max_size=5), st.integers(-(10**400), 10**400),
    st.just(np.eye(4).tolist()), st.just(np.full((4, 4), 1e308).tolist()), st.integers(1, 9),
)  # fmt: skip
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4), max_leaves=8)
KEYS = ["fl_x", "fl_y", "cx", "cy", "w", "h", "camera_angle_x", "k1", "transform_matrix",
        "file_path", "time", "camera_model", "applied_transform"]  # fmt: skip
FRAMES = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=8)
CONTENTS = st.one_of(
    VALUES,
    st.builds(
        lambda top, frames: {**top, "frames": frames},
        FRAMES,
        st.one_of(VALUES, st.lists(FRAMES, min_size=1, max_size=3)),
    ),
    st.dictionaries(
        st.sampled_from(["cameras", "cameras_interp", "focal_length", "scale", "image_height",
                         "image_width"]),
        st.one_of(VALUES, st.lists(VALUES, max_size=3)), min_size=2,
    ),
)  # fmt: skip


@FUZZED
@given(content=CONTENTS)
def test_made_up_json_is_read_or_refused(content, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert_read_or_refused(tmp_path / "a.json")


ARRAYS = st.sampled_from(
    [
        *(np.array(value) for value in (3, "x", 4, -1, np.inf, [1 + 2j], ["a"], [0], [0, 1, 2])),
        *(np.zeros(shape) for shape in ((0, 4, 4), (2, 4, 4), (1, 8, 9))),
        *(np.full((2, 4, 4), value) for value in (np.nan, 1e300, True)),
        *(np.eye(4), np.eye(4)[None], np.eye(4).reshape(1, 16), np.eye(3), np.ones((3, 7))),
        np.array([5, 5, 2, 2.0]),
    ]
)
ARCHIVES = st.dictionaries(
    st.sampled_from(["w2c", "intrinsics", "image_height", "image_width", "times", "names",
                     "poses_c2w", "depths", "inds", "data"]),
    ARRAYS, min_size=2,
)  # fmt: skip


@FUZZED
@given(arrays=ARCHIVES, strict=st.booleans())
def test_made_up_archives_are_read_or_refused(arrays, strict, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    for kind in (None, "trajectory", "geometry", "vipe"):
        assert_read_or_refused(tmp_path / "a.npz", kind, strict)


@FUZZED
@given(array=ARRAYS)
def test_made_up_arrays_are_read_or_refused(array, tmp_path):
    np.save(tmp_path / "a.npy", array)
    assert_read_or_refused(tmp_path / "a.npy")


def huge_files(folder):
    """Small files that announce terabytes, and deep or endless ones."""
    one_image = struct.pack("<i7di", 1, 1, 0, 0, 0, 0, 0, 0, 1) + b"a\0"
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (%d, 4, 4), }" % 10**11
    npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n"
    yield "images.bin", struct.pack("<Q", 2**62)
    yield "images.bin", struct.pack("<Q", 1) + one_image + struct.pack("<Q", 2**60)
    yield "images.bin", struct.pack("<Q", 1) + struct.pack("<i7di", 1, *[0] * 7, 1) + b"a" * 9000
    yield "cameras.bin", struct.pack("<Q", 2**61)
    yield "cameras.bin", struct.pack("<Q", 1) + struct.pack("<iiQQ", 1, 1, 2**63, 2**63)
    yield "a.npy", npy + b"\0" * 128
    yield "a.json", b"[" * 200_000
    yield "a.json", b'{"frames": [' + b"[" * 100_000
    yield "a.json", b'{"cameras": [' + b"9" * 5000 + b'], "focal_length": 1}'
    yield "w2c.txt", b"[" * 200_000
    yield "a.txt", b"1 " * (9 << 20)
    yield "images.txt", b"1 1 0 0 0 0 0 0 " + b"9" * 100_000 + b" a.png\n"


@pytest.mark.parametrize("number", range(12))
def test_files_that_announce_more_than_they_hold_take_no_memory(number, tmp_path):
    name, content = list(huge_files(tmp_path))[number]
    (tmp_path / name).write_bytes(content)
    if name == "cameras.bin":
        (tmp_path / "images.bin").write_bytes(struct.pack("<Q", 0))
    tracemalloc.start()
    try:
        assert assert_read_or_refused(tmp_path / name) is None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20


def test_an_archive_that_inflates_without_end_is_not_inflated(tmp_path):
    np.savez(tmp_path / "a.npz", intrinsics=np.eye(3), image_height=1, image_width=1)
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (2200000, 4, 4), }\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("w2c.npy", "w") as stream:
            stream.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
            for _ in range(269):
                stream.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"array 'w2c' is too large"):
            read_cameras(tmp_path / "a.npz")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


def test_errors_name_file_and_place(tmp_path):
    file = written(tmp_path, "tum", random_path(4))
    lines = file.read_text().splitlines()
    lines[3] = lines[3].rsplit(maxsplit=1)[0] + " 9"
    file.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"path.tum: line 4: not a unit quaternion"):
        read_cameras(file)
    file = written(tmp_path, "nerfstudio", random_path(4))
    content = json.loads(file.read_text())
    content["frames"][2]["transform_matrix"][0][0] = 7
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"transforms.json: frames\[2\].* not a rotation"):
        read_cameras(file)
    assert FILES["nerfstudio"] == file.name
