"""What a rollout leaves on disk: video, cameras used, memory and its point cloud, metrics.

Every file can be read by other tools: H.264, npz, safetensors, PLY, PNG, JSON.
Read next: `mirage_jax/rollout/video.py`, `mirage_jax/memory/files.py`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
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
from mirage_jax.rollout.video import beside, write_any
from mirage_jax.rollout.world import World

# Streams of pictures, and the files that each of them may be written to.
STREAMS = ("video", "conditioning", "side_by_side")
FORMATS = {"mp4": ".mp4", "gif": ".gif", "webp": ".webp", "frames": ""}
VIDEO, CAMERAS, MEMORY, POINTS = "video.mp4", "cameras.npz", "memory.safetensors", "memory.ply"
METRICS, SHEET, STATE = "metrics.json", "sheet.png", "state.safetensors"


def parse_saved(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Turn "mp4,webp,side_by_side" into streams and formats; video and mp4 are always among them.

    Raises:
        ValueError: an unknown word.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    known = (*FORMATS, *STREAMS)
    for word in words:
        if word not in known:
            near = difflib.get_close_matches(word, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"as in mp4,webp,{STREAMS[-1]}"
            raise ValueError(f"--save: got {word!r}, expected {', '.join(known)}; {hint}")
    streams = tuple(name for name in STREAMS if name == STREAMS[0] or name in words)
    return streams, tuple(name for name in FORMATS if name == "mp4" or name in words)


def write_streams(
    directory: Path,
    frames: UInt8[np.ndarray, "f H W 3"],
    conditioning: UInt8[np.ndarray, "f H W 3"] | None,
    saved: tuple[tuple[str, ...], tuple[str, ...]],
    fps: float,
) -> list[str]:
    """Write a video, what memory showed for it, and both side by side; returns the names.

    Args:
        directory: folder, made if needed.
        frames: the video.
        conditioning: what memory alone showed; needed by the other two streams.
        saved: from `parse_saved`.
        fps: of the videos.
    """
    streams, formats = saved
    names = []
    for stream in streams:
        for suffix in (FORMATS[name] for name in formats):
            if stream == "video":
                pictures: Iterable[Any] = frames
            elif conditioning is None:
                continue
            else:
                both = stream == "side_by_side"
                pictures = beside(conditioning, frames) if both else conditioning
            write_any(directory / f"{stream}{suffix}", pictures, fps)
            names.append(f"{stream}{suffix}")
    return names


def write_rollout(
    directory: Path,
    world: World,
    cameras: Camera,
    memory: LatentMemory,
) -> None:
    """Write cameras, memory and point cloud of one rollout.

    Args:
        directory: folder, made if needed.
        world: that made it.
        cameras: [f] as used, intrinsics in pixels.
        memory: at the end, one memory.
    """
    directory.mkdir(parents=True, exist_ok=True)
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
        rows by chunk, and `writes.chunks`: what became of the cells of each write, see
        `kept_out.WriteCounts`) and `references` (past latent frames shown, by chunk).
    """
    counts = [result.state.counts for result in results]
    return {
        "references": [list(result.references[0]) for result in results],
        "seconds": {"chunks": [result.seconds for result in results]},
        "memory": {
            "bytes_per_chunk": [memory_files.nbytes(memory).used for memory in memories],
            "rows_per_chunk": [int(memory.count) for memory in memories],
            "dropped_rows": int(memories[-1].dropped) if memories else 0,
            "writes": {"chunks": [counts.of(0) for counts in counts if counts is not None]},
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
