"""What a rollout leaves on disk: video, cameras used, memory and its point cloud, metrics.

Every file can be read by other tools: H.264, npz, safetensors, PLY, PNG, JSON.
Read next: `mirage_jax/rollout/video.py`, `mirage_jax/memory/files.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.camera_files import save_cameras
from mirage_jax.memory import files as memory_files
from mirage_jax.memory.state import LatentMemory
from mirage_jax.rollout.loop import ChunkResult
from mirage_jax.rollout.video import write_video
from mirage_jax.rollout.world import World

VIDEO, CAMERAS, MEMORY, POINTS = "video.mp4", "cameras.npz", "memory.safetensors", "memory.ply"
METRICS, SHEET, STATE = "metrics.json", "sheet.png", "state.safetensors"


def write_rollout(
    directory: Path,
    world: World,
    frames: UInt8[np.ndarray, "f H W 3"],
    cameras: Camera,
    memory: LatentMemory,
    fps: float,
) -> None:
    """Write video, cameras, memory and point cloud of one rollout.

    Args:
        directory: folder, made if needed.
        world: that made it.
        frames: the video.
        cameras: [f] as used, intrinsics in pixels.
        memory: at the end, one memory.
        fps: of the video.
    """
    directory.mkdir(parents=True, exist_ok=True)
    write_video(directory / VIDEO, frames, fps)
    save_cameras(directory / CAMERAS, cameras, world.spec.frame_hw)
    memory_files.save(directory / MEMORY, memory, world.spec.memory)
    memory_files.export_ply(directory / POINTS, memory)


def chunk_metrics(
    results: Sequence[ChunkResult], memories: Sequence[LatentMemory]
) -> dict[str, Any]:
    """Return timings and memory sizes by chunk.

    Args:
        results: of one rollout.
        memories: one memory after each chunk.

    Returns:
        `seconds.chunks` (one mapping step -> seconds each), `memory` (bytes, rows and dropped
        rows by chunk) and `references` (past latent frames shown, by chunk).
    """
    return {
        "references": [list(result.references[0]) for result in results],
        "seconds": {"chunks": [result.seconds for result in results]},
        "memory": {
            "bytes_per_chunk": [memory_files.nbytes(memory).used for memory in memories],
            "rows_per_chunk": [int(memory.count) for memory in memories],
            "dropped_rows": int(memories[-1].dropped) if memories else 0,
            "capacity_bytes": memory_files.nbytes(memories[-1]).capacity if memories else 0,
        },
    }


def single_memory(memory: LatentMemory, index: int = 0) -> LatentMemory:
    """Take one memory out of a stack, as NumPy arrays."""
    return jax.tree.map(lambda leaf: np.asarray(leaf[index]), memory)


def write_metrics(directory: Path, metrics: Mapping[str, Any]) -> None:
    """Write metrics.json; NaN and infinity are not JSON and must not be among the values."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / METRICS).write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n")
