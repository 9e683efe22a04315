"""Moves weights from file to file, one tensor at a time.

Conventions: a target file is laid out from shapes before anything is read, then each tensor of the
source is read, reordered and written where it belongs, layers of a stacked parameter one by one.
So memory holds one tensor and its copy, whatever the size of the model, and a conversion that is
cut short leaves no file. Values keep their dtype; a stacked parameter whose layers differ in dtype
is kept in float32 and the header remembers what each layer was, so that all come back as they were.

Read next: `layout.py` for entries, `../tensor_file.py` for how files are written.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mirage_jax.models.convert.layout import Entry, read
from mirage_jax.models.functional import Path as TreePath
from mirage_jax.models.tensor_file import (
    DTYPES,
    StoredTensor,
    TensorWriter,
    stored_metadata,
    stored_tensors,
)

Progress = Callable[[int], None]
_MIXED = "layer_dtypes"  # header key: dtype of each layer, where they differ
_CODES = {dtype: code for code, dtype in DTYPES.items()}


def _silent(_: int) -> None:
    """Report progress to nobody."""


def import_file(
    path: Path,
    entries: Sequence[Entry],
    theirs: Mapping[str, Any],
    *,
    metadata: Mapping[str, str],
    dtype: Any = None,
    ours: Mapping[TreePath, np.ndarray] | None = None,
    progress: Progress = _silent,
) -> None:
    """Write our parameter file from tensors of others, which were checked before.

    Args:
      path: file to write.
      entries: one for every tensor.
      theirs: name -> tensor.
      metadata: strings for the header.
      dtype: of floating parameters; None keeps those of the source.
      ours: further parameters by path, which the source does not hold.
      progress: called with the number of bytes read, after each tensor.
    """
    ours = ours or {}
    layout, mixed = _our_layout(entries, theirs, dtype)
    targets = layout | {"/".join(p): value for p, value in ours.items()}
    header = dict(metadata) | ({_MIXED: json.dumps(mixed)} if mixed else {})
    with TensorWriter(path, targets, header) as file:
        for where, value in ours.items():
            file.write("/".join(where), value)
        for entry in sorted(entries, key=lambda e: _place(theirs[e.theirs])):
            name, value = "/".join(entry.ours), read(theirs[entry.theirs])
            size = value.nbytes
            value = entry.form.to_ours(value).astype(layout[name].dtype, copy=False)
            file.write(name, value, entry.layer)
            progress(size)


def _our_layout(
    entries: Iterable[Entry], theirs: Mapping[str, Any], dtype: Any
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return shape and dtype of each parameter of ours, and the dtypes of unequal layers."""
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, list[np.dtype]] = {}
    for entry in entries:
        tensor, name = theirs[entry.theirs], "/".join(entry.ours)
        dtypes.setdefault(name, []).append(_target(np.dtype(tensor.dtype), dtype))
        shape = entry.form.to_ours(np.broadcast_to(np.float32(0), tensor.shape)).shape
        shapes[name] = shape if entry.layer is None else (len(dtypes[name]), *shape)
    layout = {
        name: jax.ShapeDtypeStruct(shape, _common(name, dtypes[name]))
        for name, shape in shapes.items()
    }
    mixed = {name: [_CODES[d] for d in all_] for name, all_ in dtypes.items() if len(set(all_)) > 1}
    return layout, mixed


def import_bytes(entries: Iterable[Entry], theirs: Mapping[str, Any]) -> int:
    """Return the bytes that `import_file` reads."""
    tensors = [theirs[entry.theirs] for entry in entries]
    return sum(math.prod(t.shape) * np.dtype(t.dtype).itemsize for t in tensors)


def export_files(
    stem: Path,
    entries: Sequence[Entry],
    source: Path,
    *,
    shard_bytes: int,
    dtype: Any = None,
    scale: float = 1.0,
    progress: Progress = _silent,
) -> list[Path]:
    """Write tensors for others from our parameter file.

    Args:
      stem: of the files to write, without suffix; several get numbers and an index file.
      entries: one for every tensor.
      source: our file, which must have the parameters of the entries.
      shard_bytes: largest size of a file, if no single tensor is larger.
      dtype: of floating tensors; None keeps what they were.
      scale: of a LoRA, multiplied into its B.
      progress: called with the number of bytes read, after each tensor.

    Returns:
      The files with weights.
    """
    ours = {tuple(name.split("/")): t for name, t in stored_tensors(source).items()}
    layout = _their_layout(entries, ours, source, dtype)
    shards = _packed(layout, shard_bytes)
    files: list[Path] = []
    index: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        part = f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
        path = stem.with_name(f"{stem.name}{part}.safetensors")
        with TensorWriter(path, {e.theirs: layout[e] for e in shard}, {"format": "pt"}) as file:
            for entry in sorted(shard, key=lambda e: _place(_slice(ours, e))):
                value = _slice(ours, entry).read()
                size = value.nbytes
                if scale != 1.0 and entry.ours[-1] == "b":
                    value = value.astype(np.float32) * np.float32(scale)
                value = entry.form.to_theirs(value).astype(layout[entry].dtype, copy=False)
                file.write(entry.theirs, value)
                progress(size)
        files.append(path)
        index |= {entry.theirs: path.name for entry in shard}
    if len(files) > 1:
        total = sum(_nbytes(leaf) for leaf in layout.values())
        text = {"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))}
        name = f"{stem.name}.safetensors.index.json"
        stem.with_name(name).write_text(json.dumps(text, indent=2) + "\n")
    return files


def _their_layout(
    entries: Iterable[Entry], ours: Mapping[TreePath, StoredTensor], source: Path, dtype: Any
) -> dict[Entry, Any]:
    mixed = json.loads(stored_metadata(source).get(_MIXED, "{}"))
    layout = {}
    for entry in entries:
        codes = mixed.get("/".join(entry.ours))
        given = DTYPES[codes[entry.layer or 0]] if codes else ours[entry.ours].dtype
        shape = entry.their_shape(ours[entry.ours].shape)
        layout[entry] = jax.ShapeDtypeStruct(shape, _target(given, dtype))
    return layout


def _packed(layout: Mapping[Entry, Any], limit: int) -> list[list[Entry]]:
    """Cut entries, in their order, into runs of at most `limit` bytes."""
    shards: list[list[Entry]] = []
    room = 0
    for entry, leaf in layout.items():
        if not shards or _nbytes(leaf) > room:
            shards.append([])
            room = limit
        shards[-1].append(entry)
        room -= _nbytes(leaf)
    return shards


def _slice(ours: Mapping[TreePath, StoredTensor], entry: Entry) -> StoredTensor:
    tensor = ours[entry.ours]
    return tensor if entry.layer is None else tensor.layer(entry.layer)


def _place(tensor: Any) -> tuple[str, int]:
    """Order tensors as they lie in their files, so that files are read from front to back."""
    return str(getattr(tensor, "path", "")), getattr(tensor, "offset", 0)


def _nbytes(leaf: Any) -> int:
    return math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize


def _target(given: np.dtype, wanted: Any) -> np.dtype:
    floating = wanted is not None and jnp.issubdtype(given, jnp.floating)
    return np.dtype(wanted) if floating else given


def _common(name: str, dtypes: Sequence[np.dtype]) -> np.dtype:
    """Return the one dtype of all layers, or float32 where that holds all of them exactly."""
    if len(set(dtypes)) == 1:
        return dtypes[0]
    if all(jnp.issubdtype(d, jnp.floating) and d.itemsize <= 4 for d in dtypes):
        return np.dtype(np.float32)
    raise ValueError(
        f"{name}: got layers of dtypes {', '.join(sorted({str(d) for d in dtypes}))}, expected one "
        "that holds all; give one with --dtype"
    )
