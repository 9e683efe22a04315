"""Saving a rollout between chunks.

A stopped one can go on and ends bit for bit as if it had not stopped.

One safetensors file holds memory, latents and, where they are kept, reads of the last frames; its
header holds the next chunk's number and a fingerprint of everything that decides the result
(configs, seed, start pictures, cameras, prompts). A state with another fingerprint is refused.
Read next: `mirage_jax/rollout/loop.py`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mirage_jax import config as config_lib
from mirage_jax.atomic import replacing
from mirage_jax.geometry.camera import Camera
from mirage_jax.memory.read import MemoryRead
from mirage_jax.memory.state import BUCKET_SLOTS, LINE, LatentMemory
from mirage_jax.rollout.chunk import Start
from mirage_jax.rollout.loop import RolloutConfig, RolloutState
from mirage_jax.rollout.world import World

_TOKENS, _READ_TOKENS = "tokens", "kept.tokens"
_READ_FIELDS = MemoryRead._fields


def fingerprint(
    world: World,
    start: Start,
    cameras: Camera,
    config: RolloutConfig,
    *given: Iterable[Any] | None,
) -> str:
    """Return a digest of all that decides a rollout but its length and the weights' values.

    Args:
        world: configs and parameters.
        start: start pictures [b].
        cameras: [b, f] of the video frames.
        config: how it is run.
        *given: arrays of the prompt and of the depth along the path, where there are any.
    """
    digest = hashlib.sha256()
    settings = [config_lib.to_dict(world.spec), dataclasses.asdict(config)]
    digest.update(json.dumps(settings, sort_keys=True).encode())
    more = [part for parts in given for part in parts or () if part is not None]
    for array in (*start, *cameras, *more):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def save_state(path: Path, state: RolloutState, mark: str) -> None:
    """Write a state; a reader sees the old file or the whole new one.

    Args:
        path: file to write.
        state: after a chunk.
        mark: from `fingerprint`.
    """
    arrays = {f"memory.{name}": np.asarray(leaf) for name, leaf in state.memory._asdict().items()}
    # NumPy has no bfloat16 of its own: tokens are stored as float32, which holds every narrower
    # type exactly.
    header = {
        "next_chunk": str(state.next_chunk),
        "fingerprint": mark,
        _TOKENS: str(state.memory.tokens.dtype),
    }
    arrays["memory.tokens"] = arrays["memory.tokens"].astype(np.float32)
    arrays["latents"] = np.asarray(state.latents)
    if state.kept is not None:
        header[_READ_TOKENS] = str(state.kept.tokens.dtype)
        arrays |= {f"kept.{k}": np.asarray(leaf) for k, leaf in state.kept._asdict().items()}
        arrays[_READ_TOKENS] = arrays[_READ_TOKENS].astype(np.float32)
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with replacing(path) as temporary:
        save_file(arrays, temporary, metadata=header)


def load_state(path: Path, mark: str) -> RolloutState:
    """Read a state.

    Args:
        path: file from `save_state`.
        mark: fingerprint of the rollout that is to be continued.

    Raises:
        ValueError: the file is broken or belongs to another rollout.
    """
    import jax.numpy as jnp

    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            header = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(
            f"--resume: got {path} ({error}), expected a whole state file; delete it to start over"
        ) from error
    if header.get("fingerprint") != mark:
        raise ValueError(
            f"--resume: {path} belongs to a rollout with another scene, path, seed or config, "
            "expected the same; "
            "repeat its options or write to another folder"
        )
    leaves = {name: jnp.asarray(arrays[f"memory.{name}"]) for name in LatentMemory._fields}
    leaves["tokens"] = leaves["tokens"].astype(header[_TOKENS])
    leaves = _in_pages(leaves)
    kept = None
    if _READ_TOKENS in header:
        kept = MemoryRead(**{name: jnp.asarray(arrays[f"kept.{name}"]) for name in _READ_FIELDS})
        kept = kept._replace(tokens=kept.tokens.astype(header[_READ_TOKENS]))
    memory, chunk = LatentMemory(**leaves), int(header["next_chunk"])
    return RolloutState(memory, arrays["latents"], chunk, kept)


def _in_pages(leaves: dict[str, Any]) -> dict[str, Any]:
    """Return tables that were written row by row, or by bucket, as they lie in pages and lines."""
    pages, rows = leaves["order"].shape, leaves["origin"]
    if rows.shape != leaves["positions"].shape:
        rows = rows.reshape(*pages, 3).swapaxes(-1, -2)
    flat = {name: leaves[name].reshape(pages) for name in ("depth", "time")}
    weight = leaves["weight"]
    weight = weight.reshape(pages if weight.size else (*pages[:-2], 0, pages[-1]))
    lines = leaves["directory"]
    if lines.shape[-1] == BUCKET_SLOTS and lines.shape[-2] % LINE == 0:
        lines = lines.reshape(*lines.shape[:-2], -1, LINE * BUCKET_SLOTS)
    return leaves | flat | {"origin": rows, "weight": weight, "directory": lines}
