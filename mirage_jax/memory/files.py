"""Memories on disk: safetensors to continue from, PLY to look at, npz to compute with.

Conventions: only rows in use are stored, in the order they were written, so a file is as large as
what is remembered and does not depend on pages, partitions or devices. A loaded memory holds the
same rows bit for bit and shows the same; its pages are made anew. Files appear whole or not at all:
they are written beside their place and moved there. Nothing is pickled, and names, types and shapes
are checked from the header before any table is read.

Read next: `state.py`.
"""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from plyfile import PlyData, PlyElement
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mirage_jax import config as config_lib
from mirage_jax.atomic import replacing
from mirage_jax.memory.rows import StoredRows, from_rows, rows_in_order
from mirage_jax.memory.state import LatentMemory, MemoryConfig, check_memory

_FORMAT = "mirage_jax.memory.v2"
_STORED_DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "int32": "I32"}
# Fields that say how the stored rows came about; reading with others gives shifted or mixed rows.
_BINDING = ("channels", "token_dtype", "half_cell", "retention", "voxel_size")
# Tables with one entry a row.
_ROW_TABLES = ("positions", "order", "tokens", "origin", "depth", "time", "axes", "weight")


class MemoryBytes(NamedTuple):
    """Bytes of the rows in use, and of all tables with their directory and bounds."""

    used: int
    capacity: int


def nbytes(memory: LatentMemory) -> MemoryBytes:
    """Return how many bytes the rows in use and the whole memory take; batches are summed."""
    rows = sum(getattr(memory, name).nbytes for name in _ROW_TABLES)
    capacity = sum(table.nbytes for table in memory)
    count = int(np.sum(np.asarray(memory.count)))
    return MemoryBytes(rows // memory.depth.size * count, capacity)


def save(path: str | os.PathLike[str], memory: LatentMemory, config: MemoryConfig) -> None:
    """Write one memory to a safetensors file; an interrupted save leaves the old file untouched.

    Args:
        path: Where to write; missing folders are made.
        memory: One memory, not a stack.
        config: Its config, stored beside it.

    Raises:
        ValueError: If memory and config do not agree.
    """
    check_memory(memory, config, "save memory")
    stored = rows_in_order(memory)
    tables = ((name, getattr(stored, name)) for name in _stored_names(config))
    rows = {name: np.ascontiguousarray(table) for name, table in tables}
    header = {
        "format": _FORMAT,
        "config": json.dumps(config_lib.to_dict(config)),
        "count": str(len(stored.depth)),
        "dropped": str(int(memory.dropped)),
    }
    with replacing(path) as temporary:
        save_file(rows, temporary, metadata=header)


def load(
    path: str | os.PathLike[str], config: MemoryConfig | None = None
) -> tuple[LatentMemory, MemoryConfig]:
    """Read a memory from a file written by `save`.

    Args:
        path: The file.
        config: Config to continue with; None takes the stored one. It may change the capacity and
            how the memory is read, but not the conventions its rows were written by.

    Returns:
        The memory at the config's capacity, and that config.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a whole memory file, or does not fit the config.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"load memory: no file at {path}; give the path that `save` wrote to."
        )
    try:
        with safe_open(path, "numpy") as file:
            count, dropped, stored = _parse_header(path, file.metadata() or {})
            config = stored if config is None else config
            _check_config(path, config, stored, count)
            _check_tables(path, file, stored, count)
            rows = StoredRows(
                **_assumed(count) | {name: file.get_tensor(name) for name in _stored_names(stored)}
            )
    except SafetensorError as error:
        raise ValueError(
            f"load memory: {path} is not a whole safetensors file ({error}); it may be truncated, "
            "save it again."
        ) from error
    return from_rows(rows, config, dropped), config


def export_ply(
    path: str | os.PathLike[str],
    memory: LatentMemory,
    colors: UInt8[np.ndarray, "n 3"] | None = None,
) -> None:
    """Write the rows in use as a coloured point cloud (binary PLY), for any mesh viewer.

    Args:
        path: Where to write; missing folders are made.
        memory: One memory.
        colors: RGB of each row in use, in the order of `rows_in_order`. None shows the tokens in
            false colours: their three leading principal components.

    Raises:
        ValueError: If `colors` is not one RGB triple per row in use.
        TypeError: If `colors` is not uint8.
    """
    rows = rows_in_order(memory)
    count, positions = len(rows.depth), rows.positions
    if colors is None:
        colors = false_colors(rows)
    colors = np.asarray(colors)
    if colors.shape != (count, 3):
        raise ValueError(
            f"export_ply: colors has shape {list(colors.shape)}, expected [{count}, 3], one RGB "
            "triple for each row in use."
        )
    if colors.dtype != np.uint8:
        raise TypeError(f"export_ply: colors has dtype {colors.dtype}, expected uint8 in 0..255.")
    fields = [(axis, "f4") for axis in "xyz"] + [(c, "u1") for c in ("red", "green", "blue")]
    vertices = np.empty(count, fields)
    columns = [*positions.T, *colors.T]
    for (name, _), column in zip(fields, columns, strict=True):
        vertices[name] = column
    data = PlyData([PlyElement.describe(vertices, "vertex")], text=False)
    with replacing(path) as temporary:
        data.write(str(temporary))


def false_colors(rows: StoredRows) -> UInt8[np.ndarray, "k 3"]:
    """Return RGB from the tokens' three leading principal components, two sigma to either side."""
    tokens = rows.tokens.astype(np.float32)
    centered = tokens - tokens.mean(axis=0) if len(tokens) else tokens
    _, vectors = np.linalg.eigh(centered.T @ centered)
    parts = centered @ vectors[:, ::-1][:, :3]
    spread = parts.std(axis=0) if len(tokens) else np.ones(parts.shape[1])
    shade = np.zeros((len(tokens), 3), np.float32)
    shade[:, : parts.shape[1]] = parts / np.maximum(spread, 1e-12)
    return np.clip(127.5 + 63.75 * shade, 0, 255).astype(np.uint8)


def export_npz(path: str | os.PathLike[str], memory: LatentMemory) -> None:
    """Write the rows in use as arrays named as the fields of `StoredRows`, oldest first.

    bfloat16 tokens, which NumPy does not know, are written as float32.

    Args:
        path: Where to write; missing folders are made.
        memory: One memory.
    """
    tables = rows_in_order(memory)._asdict()
    if tables["tokens"].dtype.name == "bfloat16":
        tables["tokens"] = tables["tokens"].astype(np.float32)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **tables)


def _parse_header(path: Path, header: dict[str, str]) -> tuple[int, int, MemoryConfig]:
    """Return count, dropped and config of a file, or say that it is not a memory."""
    if header.get("format") != _FORMAT:
        raise ValueError(
            f"load memory: {path} has format {header.get('format')!r}, expected {_FORMAT!r}; it is "
            "another kind of safetensors file."
        )
    try:
        config = config_lib.from_dict(MemoryConfig, json.loads(header["config"]))
        return int(header["count"]), int(header["dropped"]), config
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"load memory: the header of {path} is damaged ({error}); save the memory again."
        ) from error


def _check_config(path: Path, config: MemoryConfig, stored: MemoryConfig, count: int) -> None:
    """Raise ValueError if rows written under `stored` cannot live under `config`."""
    for name in _BINDING:
        got, expected = getattr(config, name), getattr(stored, name)
        if got != expected:
            raise ValueError(
                f"load memory: config.{name} is {got!r}, but {path} was written with "
                f"{expected!r}; use the stored value."
            )
    if not 0 <= count <= config.capacity:
        raise ValueError(
            f"load memory: {path} holds {count} rows, config.capacity is {config.capacity}; raise "
            "the capacity."
        )


def _stored_names(config: MemoryConfig) -> list[str]:
    """Return the tables of a file; for the others see `_assumed`."""
    left_out = {"weight": config.retention != "mean", "axes": not config.axes}
    return [name for name in StoredRows._fields if not left_out.get(name, False)]


def _assumed(count: int) -> dict[str, np.ndarray]:
    """Return the tables that a file may lack: rows are no means, and do not know their axes."""
    return {
        "weight": np.ones(count, np.float32),
        "axes": np.zeros((count, 3, 2), np.float16),
    }


def _check_tables(path: Path, file: Any, stored: MemoryConfig, count: int) -> None:
    """Compare the file's names, types and shapes with what its header promises."""
    expected = {
        "positions": ("float32", [count, 3]),
        "tokens": (stored.token_dtype, [count, stored.channels]),
        "origin": ("float32", [count, 3]),
        "depth": ("float32", [count]),
        "time": ("int32", [count]),
        "weight": ("float32", [count]),
        "axes": ("float16", [count, 3, 2]),
    }
    expected = {name: expected[name] for name in _stored_names(stored)}
    names = set(file.keys())
    if names != set(expected):
        raise ValueError(
            f"load memory: {path} lacks {sorted(set(expected) - names)} and has unexpected "
            f"{sorted(names - set(expected))}; expected exactly {sorted(expected)}."
        )
    for name, (dtype, shape) in expected.items():
        table = file.get_slice(name)
        if table.get_shape() != shape or table.get_dtype() != _STORED_DTYPES[dtype]:
            raise ValueError(
                f"load memory: '{name}' in {path} is {table.get_dtype()}{table.get_shape()}, "
                f"expected {_STORED_DTYPES[dtype]}{shape}; save the memory again."
            )
