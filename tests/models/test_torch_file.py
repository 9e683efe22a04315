"""PyTorch files: a real one, and streams written opcode by opcode that must be refused."""

import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from mirage_jax.models.convert.torch_file import torch_tensors

GOLDEN = Path(__file__).parents[1] / "golden" / "tensors.pth"  # written by torch.save
_COUNT = np.arange(24, dtype=np.float32)
EXPECTED = {
    "generator.vace.module.turned": _COUNT.reshape(2, 3, 4).transpose(2, 0, 1),
    "generator.vace.part": _COUNT[5:9],
    "generator.vace.bf16": np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16),
    "parameter": np.ones(2, np.float32),
    "scalar": np.array(3, np.int64),
    "empty": np.zeros((0, 3), np.float32),
    "f16": np.array([0.5], np.float16),
    "f8": np.array([1, -2]).astype(ml_dtypes.float8_e4m3fn),
    "u16": np.array([7], np.uint16),
    "flags": np.array([True, False]),
    "list.0": np.zeros(1, np.float32),
    "linear.weight": np.array([[1, 2]], np.float32),
    "linear.bias": np.zeros(1, np.float32),
}


def saved(path: Path, description: bytes, *, compression=zipfile.ZIP_STORED, **members: bytes):
    """Write an archive as torch.save lays it out."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("x/data.pkl", description)
        for name, data in members.items():
            archive.writestr(f"x/{name.replace('__', '/')}", data)
    return path


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def tensor(storage: str = "FloatStorage", *, offset=0, size=2, stride=1, key="0") -> bytes:
    """Return the opcodes of one vector."""
    first, count, step = (b"K" + bytes([n]) for n in (offset, size, stride))
    kept = b"(" + text("storage") + b"ctorch\n" + storage.encode() + b"\n" + text(key)
    kept += text("cpu") + b"K\x02tQ"
    rest = first + count + b"\x85" + step + b"\x85\x89ccollections\nOrderedDict\n)RtR"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + kept + rest


def described(value: bytes) -> bytes:
    """Return the opcodes of {"w": value}."""
    return b"\x80\x02}" + text("w") + value + b"s."


def test_a_file_of_torch_save_is_read_exactly():
    tensors, others = torch_tensors(GOLDEN)
    assert sorted(others) == ["rate", "step"]
    assert tensors.keys() == EXPECTED.keys()
    for name, value in EXPECTED.items():
        np.testing.assert_array_equal(tensors[name].read(), value, strict=True)


def test_a_stream_written_by_hand_is_read(tmp_path):
    values = np.array([2.0, 3.0], np.float32)
    path = saved(tmp_path / "a.pt", described(tensor()), data__0=values.tobytes())
    tensors, _ = torch_tensors(path)
    np.testing.assert_array_equal(tensors["w"].read(), values)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (b"cos\nsystem\n" + text("touch owned") + b"\x85R", r"os\.system"),
        (b"cbuiltins\neval\n" + text("1") + b"\x85R", r"builtins\.eval"),
        (text("posix") + text("system") + b"\x93" + text("true") + b"\x85R", r"posix\.system"),
        (b"(" + text("true") + b"ios\nsystem\n", "INST"),
        (b"ccollections\nOrderedDict\n)\x81", "NEWOBJ"),
        (b"\x82\x01", "EXT1"),
        (b"ctorch\nFloatStorage\n)R", "a call of"),
        (b"ctorch.storage\n_load_from_bytes\n", r"_load_from_bytes"),
        (text("x") + b"}b", "state for a str"),
    ],
)
def test_anything_but_tensors_is_refused_by_name_and_never_run(tmp_path, monkeypatch, value, named):
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path / "bad.pth", described(value))
    with pytest.raises(ValueError, match=f"bad.pth.*{named}.*safetensors"):
        torch_tensors(path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (tensor(offset=1), "does not lie within its storage"),
        (tensor(size=255, stride=0), "does not lie within its storage"),
        (tensor(size=2, stride=200), "does not lie within its storage"),
        (tensor("DoubleStorage"), "does not lie within its storage"),
        (tensor(key="7"), "does not lie within its storage"),
        (tensor(key="../../etc/passwd"), "does not lie within its storage"),
        (b"t", "damaged"),
        (b"h\x09", "damaged"),
        (b"]q\x00h\x00a", "nested"),
    ],
)
def test_streams_that_lie_are_refused(tmp_path, value, message):
    path = saved(tmp_path / "bad.pth", described(value), data__0=bytes(8))
    with pytest.raises(ValueError, match=message):
        torch_tensors(path)


def test_containers_that_hold_each_other_many_times_over_do_not_take_forever(tmp_path):
    stream = b"\x80\x02]q\x00"
    for index in range(1, 30):
        inner = b"h" + bytes([index - 1])
        stream += b"]q" + bytes([index]) + b"(" + inner + inner + b"e"
    path = saved(tmp_path / "bad.pth", stream + b".")
    with pytest.raises(ValueError, match="more than 1000000 values"):
        torch_tensors(path)


def test_other_kinds_of_files_are_refused_with_the_cure(tmp_path):
    (tmp_path / "legacy.pth").write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
    with pytest.raises(ValueError, match=r"torch\.save\(torch\.load"):
        torch_tensors(tmp_path / "legacy.pth")
    good, data = described(tensor()), bytes(8)
    with pytest.raises(ValueError, match="big-endian"):
        torch_tensors(saved(tmp_path / "big.pth", good, data__0=data, byteorder=b"big"))
    packed = saved(tmp_path / "p.pth", good, compression=zipfile.ZIP_DEFLATED, data__0=data)
    with pytest.raises(ValueError, match="compressed"):
        torch_tensors(packed)
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        archive.writestr("x/readme", b"")
    with pytest.raises(ValueError, match=r"expected a member data\.pkl"):
        torch_tensors(tmp_path / "other.pth")
