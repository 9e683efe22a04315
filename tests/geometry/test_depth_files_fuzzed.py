"""Damaged, truncated, huge and hostile depth files: an error that names the file, never more."""

import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from file_edits import EDITS, edited, fuzzed
from geometry.test_depth_files import MM, exr_bytes, room_depth, written
from hypothesis import given
from hypothesis import strategies as st

from mirage_jax.geometry.depth_files import archives, read_depth

FUZZED = fuzzed(60)


def assert_read_or_refused(file):
    refusal = ""
    try:
        found = read_depth(file, MM)
    except (ValueError, TypeError) as error:
        refusal = str(error)
    if refusal:
        assert file.name in refusal, refusal
        assert len(refusal) < 3000
        return
    assert np.isfinite(found.values).all()
    assert (found.values >= 0).all()


@pytest.mark.parametrize("kind", ["npy", "npz", "png", "tif", "exr", "zip"])
def test_damaged_files_are_read_or_refused(kind, tmp_path):
    file, _ = written(tmp_path, kind, np.round(room_depth((12, 16)), 3))
    original = file.read_bytes()

    @FUZZED
    @given(edits=EDITS)
    def check(edits):
        file.write_bytes(edited(original, edits))
        assert_read_or_refused(file)

    check()


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.png", "a.tif", "a.exr", "a.zip"])
def test_bytes_of_any_kind_are_read_or_refused(name, tmp_path):
    @FUZZED
    @given(st.binary(max_size=200))
    def check(content):
        (tmp_path / name).write_bytes(content)
        assert_read_or_refused(tmp_path / name)

    check()


def huge_png(side):
    """A PNG of some hundred bytes that announces side x side pixels of 16 bits."""

    def chunk(kind, content):
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", side, side, 16, 0, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(b"\x00" * 9)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def huge_exr(side):
    """An EXR file whose header announces side x side pixels."""
    content = exr_bytes(np.ones((4, 4), np.float32))
    box = struct.pack("<4i", 0, 0, 3, 3)
    assert content.count(box) == 2
    return content.replace(box, struct.pack("<4i", 0, 0, side - 1, side - 1))


def claims(name, folder):
    file = folder / name
    if name == "a.npy":
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (900000, 90000), }"
        size = struct.pack("<H", len(header))
        file.write_bytes(b"\x93NUMPY\x01\x00" + size + header)
    elif name == "a.npz":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            claims("a.npy", folder)
            archive.writestr("depth.npy", (folder / "a.npy").read_bytes())
    elif name == "a.png":
        file.write_bytes(huge_png(30_000))
    elif name == "a.exr":
        file.write_bytes(huge_exr(30_000))
    elif name == "a.zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("0.exr", huge_exr(30_000))
    elif name == "b.zip":  # a bomb: more zeros than a picture may take
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("0.png", bytes(3 << 20))
    return file


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.png", "a.exr", "a.zip", "b.zip"])
def test_claimed_sizes_are_refused_before_memory_is_taken(name, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 2 << 20)
    file = claims(name, tmp_path)
    tracemalloc.start()
    with pytest.raises(ValueError, match=rf"{name}.*(too large|cannot be read)"):
        read_depth(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 << 20


def test_pickles_are_never_opened(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="a.npy.*holds Python objects"):
        read_depth(tmp_path / "a.npy")
