"""Pairs of frames of recorded clips: one that was written into a memory, one it is read for later.

Which cells of the later frame the earlier one saw is told by true depth and cameras alone, so every
way of reading is scored on the same cells. The pairs of the validation split are listed in
`pairs.json`; other data get pairs by the same rule.

Conventions: frames are multiples of 2, so that they end a latent group of the small codec. Cells
are squares of the frame, as many as the latent grid has.
Read next: `rows.py` (ways to read), `evaluate.py` (the measurement).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from mirage_jax.eval.views import is_usable
from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.projection import project, unproject

# Video frames between the frame that is written and the one it is read for.
GAPS = (4, 8, 16, 32, 64)
FIXED_LIST = Path(__file__).with_name("pairs.json")

# Depths of one surface differ by less than this, relative.
_SAME_SURFACE = 0.05
# Share of a cell's pixels that must have been seen.
_SEEN_SHARE = 0.75
# Share of pixels that must have been seen for a pair to say anything.
_LEAST_SEEN = 0.25
# Where in the part of a clip that leaves room for the gap the written frames lie.
_STARTS = (0.25, 0.75)


class ReadPair(NamedTuple):
    """A written frame and a later one of the same clip."""

    clip: int
    source: int
    target: int


class SeenCells(NamedTuple):
    """What the written frame saw of the later one's cells.

    Attributes:
        seen: three quarters or more of the cell's pixels lie on a surface that the written frame
            saw, and nothing there moves or turns with the camera.
        zoom: log of the depth the surface was seen at over its depth now; 0 where not seen.
        angle: radians between the directions it was seen from then and now; 0 where not seen.
    """

    seen: Bool[np.ndarray, "h w"]
    zoom: Float[np.ndarray, "h w"]
    angle: Float[np.ndarray, "h w"]


def frame_camera(clip: Mapping[str, Any], frame: int) -> Camera:
    """Return the camera of a frame, intrinsics in pixels."""
    return Camera(
        np.asarray(clip["cam_to_world"][frame], np.float32),
        np.asarray(clip["intrinsics"], np.float32),
    )


def seen_cells(
    clip: Mapping[str, Any], source: int, target: int, grid_hw: tuple[int, int]
) -> SeenCells:
    """Tell which cells of one frame another frame saw, from true depth and cameras.

    Args:
        clip: with depth, cameras and masks.
        source: the frame that saw.
        target: the frame whose cells are asked about.
        grid_hw: cells; they divide the frame.
    """
    depth = [np.asarray(clip["depth"][frame], np.float32) for frame in (source, target)]
    still = [
        _still(clip, frame) & (d > 0) for frame, d in zip((source, target), depth, strict=True)
    ]
    cameras = [frame_camera(clip, frame) for frame in (source, target)]
    points = unproject(depth[1], cameras[1]).reshape(-1, 3)
    uv, z = project(points, cameras[0])
    height, width = depth[0].shape
    inside = (z > 0) & (uv >= 0).all(-1) & (uv[:, 0] < width) & (uv[:, 1] < height)
    column, row = (np.where(inside, uv[:, k], 0).astype(int) for k in (0, 1))
    there = depth[0][row, column]
    seen = inside & still[0][row, column] & still[1].reshape(-1)
    seen &= np.abs(z - there) < _SAME_SURFACE * there
    zoom = np.log(np.where(seen, z, 1.0)) - np.log(np.where(seen, depth[1].reshape(-1), 1.0))
    angle = np.where(seen, _angles(points, *(c.cam_to_world[:3, 3] for c in cameras)), 0.0)
    count = _sum_cells(seen.reshape(height, width), grid_hw)
    known = np.maximum(count, 1)
    means = (_sum_cells(v.reshape(height, width), grid_hw) / known for v in (zoom, angle))
    pixels = (height // grid_hw[0]) * (width // grid_hw[1])
    return SeenCells(count >= _SEEN_SHARE * pixels, *means)


def pairs_for(clips: Sequence[Any]) -> tuple[dict[int, list[ReadPair]], bool]:
    """Return the pairs of each gap, and True where they are those of the fixed list."""
    stored = json.loads(FIXED_LIST.read_text())
    if stored["clips"] != fingerprint(clips):
        return choose_pairs(clips), False
    return {
        int(gap): [ReadPair(clip, first, first + int(gap)) for clip, first in starts]
        for gap, starts in stored["pairs"].items()
    }, True


def choose_pairs(clips: Sequence[Any], gaps: Sequence[int] = GAPS) -> dict[int, list[ReadPair]]:
    """Choose up to two pairs of each clip and gap, without looking at pictures.

    Left out are pairs whose frames face a wall or the sky, or share less than a quarter of their
    pixels.
    """
    pairs: dict[int, list[ReadPair]] = {gap: [] for gap in gaps}
    for index in range(len(clips)):
        clip = clips[index]
        for gap in gaps:
            room = len(clip["rgb"]) - 1 - gap
            if room < 0:
                continue
            for source in sorted({2 * round(share * room / 2) for share in _STARTS}):
                ends = (source, source + gap)
                if not all(is_usable(clip["depth"][frame]) for frame in ends):
                    continue
                if seen_cells(clip, *ends, clip["depth"].shape[1:]).seen.mean() >= _LEAST_SEEN:
                    pairs[gap].append(ReadPair(index, *ends))
    return pairs


def write_list(clips: Sequence[Any], path: Path = FIXED_LIST) -> None:
    """Write the fixed list for a split: `python -m mirage_jax.eval.reads.pairs DATA`."""
    chosen = {
        str(gap): [[pair.clip, pair.source] for pair in pairs]
        for gap, pairs in choose_pairs(clips).items()
    }
    lines = ",\n".join(f'  "{gap}": {json.dumps(starts)}' for gap, starts in chosen.items())
    path.write_text(f'{{"clips": "{fingerprint(clips)}", "pairs": {{\n{lines}\n}}}}\n')


def fingerprint(clips: Sequence[Any]) -> str:
    """Return a digest of the camera paths of all clips: same recordings, same digest."""
    digest = hashlib.sha256()
    for index in range(len(clips)):
        digest.update(np.ascontiguousarray(clips[index]["cam_to_world"], np.float32).tobytes())
    return digest.hexdigest()[:16]


def _still(clip: Mapping[str, Any], frame: int) -> Bool[np.ndarray, "H W"]:
    """Return True where nothing moves or turns with the camera, as sprites do."""
    moving = np.asarray(clip["moving"][frame], bool)
    return ~moving & ~np.asarray(clip["sprite"][frame], bool) if "sprite" in clip else ~moving


def _angles(points: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the angle at each point between the directions to two places."""
    a, b = points - first, points - second
    norm = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    cosine = np.sum(a * b, axis=-1) / np.maximum(norm, 1e-12)
    return np.arccos(np.clip(cosine, -1.0, 1.0))


def _sum_cells(values: np.ndarray, grid_hw: tuple[int, int]) -> np.ndarray:
    """Return the sum over each cell's pixels."""
    h, w = grid_hw
    return values.reshape(h, values.shape[0] // h, w, values.shape[1] // w).sum((1, 3))


if __name__ == "__main__":
    import sys

    from mirage_jax.data.source import open_clips

    write_list(open_clips(sys.argv[1], "val"))  # type: ignore[arg-type]
