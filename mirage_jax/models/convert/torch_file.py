"""Finds the tensors of a PyTorch file (`.pth`, `.pt`, `.bin`) where they lie in it.

Conventions: such a file is an uncompressed zip archive with `data.pkl`, which says what there is,
and `data/N`, the raw values. Only the former is read, as data and never as a program; the tensors
become `StoredTensor`s. Shapes and offsets are checked against the archive before anything is
allocated.

Read next: `torch_stream.py` for the description, `sources.py` for who opens files.
"""

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mirage_jax.models.convert.torch_stream import TensorRecord, read_description
from mirage_jax.models.tensor_file import StoredTensor

_MAX_DESCRIPTION = 64 * 2**20  # bytes; a thousand tensors take about a tenth of a MiB
_MAX_NODES, _MAX_DEPTH = 1_000_000, 32
_LOCAL_HEADER = 30  # bytes before the name in a zip member's own header


def torch_tensors(path: Path) -> tuple[dict[str, StoredTensor], list[str]]:
    """Return the tensors of a PyTorch file by dotted name, and the names of all other values.

    Args:
      path: file written by `torch.save` of PyTorch 1.6 or later.

    Raises:
      ValueError: if it is of another kind, holds more than data, is damaged or big endian.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"cannot read {path} - expected the zip archive that torch.save writes since PyTorch "
            "1.6 - save it again in PyTorch: torch.save(torch.load(path, weights_only=True), path);"
            " if it is a Git LFS pointer or cut short, fetch it again"
        )
    with zipfile.ZipFile(path) as archive:
        members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        _check_members(path, members)
        if members.get("byteorder") and archive.read(members["byteorder"]) != b"little":
            raise ValueError(
                f"cannot read {path} - got big-endian values, expected little endian - save it "
                "again on the machine that wrote it, as safetensors"
            )
        tree = read_description(archive.read(members["data.pkl"]), str(path))
    tensors: dict[str, StoredTensor] = {}
    others: list[str] = []
    starts: dict[str, int] = {}
    for name, value in _leaves(tree, path):
        if isinstance(value, TensorRecord):
            tensors[name] = _located(path, name, value, members, starts)
        else:
            others.append(name)
    return tensors, others


def _check_members(path: Path, members: dict[str, zipfile.ZipInfo]) -> None:
    if "data.pkl" not in members or members["data.pkl"].file_size > _MAX_DESCRIPTION:
        raise ValueError(
            f"cannot read {path} - expected a member data.pkl of at most {_MAX_DESCRIPTION} bytes "
            "- it is not a file of torch.save"
        )
    packed = [m.filename for m in members.values() if m.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise ValueError(
            f"cannot read {path} - got compressed members ({packed[0]}, ...), expected them stored "
            "as torch.save does - save it again with torch.save"
        )


def _leaves(tree: Any, path: Path) -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, leaf); containers may be shared, hence the bounds."""
    todo = [("", tree, 0)]
    seen = 0
    while todo:
        name, node, depth = todo.pop()
        seen += 1
        if seen > _MAX_NODES or depth > _MAX_DEPTH:
            raise ValueError(
                f"cannot read {path} - got more than {_MAX_NODES} values or containers nested "
                f"deeper than {_MAX_DEPTH}, expected the tensors of a model - it is damaged or "
                "made to do harm"
            )
        if isinstance(node, dict | list) or (type(node) is tuple and node):
            items = node.items() if isinstance(node, dict) else enumerate(node)
            inner = [(f"{name}.{key}" if name else str(key), v, depth + 1) for key, v in items]
            todo.extend(reversed(inner))
        else:
            yield name, node


def _located(
    path: Path,
    name: str,
    record: TensorRecord,
    members: dict[str, zipfile.ZipInfo],
    starts: dict[str, int],
) -> StoredTensor:
    """Return where a tensor lies, after checking that it lies within its storage."""
    key = f"data/{record.storage.key}"
    numbers = (record.offset, *record.shape, *record.strides)
    fits = (
        key in members
        and len(record.shape) == len(record.strides)
        and all(type(number) is int and number >= 0 for number in numbers)
    )
    if fits:
        available = members[key].file_size // record.dtype.itemsize
        steps = zip(record.shape, record.strides, strict=True)
        last = record.offset + sum((size - 1) * step for size, step in steps)
        count = math.prod(record.shape)
        fits = count <= available and (count == 0 or last < available)
    if not fits:
        raise ValueError(
            f"cannot read {path} - {name} of shape {record.shape}, strides {record.strides} and "
            f"offset {record.offset} does not lie within its storage {key} - fetch the file "
            "again, or save a copy of the tensor (tensor.clone())"
        )
    if key not in starts:
        starts[key] = _start(path, members[key])
    offset = starts[key] + record.offset * record.dtype.itemsize
    strides = None if record.strides == _row_major(record.shape) else record.strides
    return StoredTensor(path, offset, record.shape, record.dtype, strides)


def _start(path: Path, member: zipfile.ZipInfo) -> int:
    """Return the byte where a stored member's contents begin."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(_LOCAL_HEADER)
    name, extra = (int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
    return member.header_offset + _LOCAL_HEADER + name + extra


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
