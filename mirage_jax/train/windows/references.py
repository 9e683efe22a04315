"""Reference frames of training windows, chosen as a rollout chooses them.

The history of a window is what a rollout would have made before it: the frames passed, frame k
itself, and those of the way out that its memory was made of. All of them are in a rollout's memory,
so overlap is measured on the points of all of them. Windows of a batch share one number of
references, at most what each has; first chunks have no past.
Read next: `mirage_jax/memory/overlap.py`, `mirage_jax/train/windows/draw.py`.
"""

from __future__ import annotations

import numpy as np

from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.projection import unproject
from mirage_jax.memory.overlap import best_views, view_overlaps
from mirage_jax.models.config import ChunkConfig
from mirage_jax.train.feed import Batch
from mirage_jax.train.latents import LatentSource
from mirage_jax.train.windows.window import Window


def draw_references(
    rng: np.random.Generator, latents: LatentSource, windows: list[Window], chunk: ChunkConfig
) -> Batch:
    """Return `references` [b, R, h, w, c] of a batch, best first, R drawn from 0 to the most.

    Rows of first chunks are zero. Nothing is returned where R is 0.
    """
    count = int(rng.integers(chunk.references.most + 1))
    chosen = [choose(latents, window, chunk)[:count] for window in windows if not window.first]
    count = min((len(frames) for frames in chosen), default=0)
    if not count:
        return {}
    one = latents.clip(0).video
    shape = (len(windows), count, *one.shape[3:])
    references, left = np.zeros(shape, one.dtype), iter(chosen)
    for row, window in enumerate(windows):
        if not window.first:
            video = latents.clip(window.clip).video[window.mirrored]
            ways, places = np.array(next(left)[:count]).T
            references[row] = video[ways, places]
    return {"references": references}


def choose(latents: LatentSource, window: Window, chunk: ChunkConfig) -> list[tuple[int, int]]:
    """Return (playing direction, position in it) of a window's references, best first."""
    clip, view = latents.clip(window.clip), window.mirrored
    history = [(window.direction, position) for position in range(window.start + 1)]
    history += [
        (1 - window.direction, frame.position) for frame in window.memory if frame.backwards
    ]
    target = window.start + np.arange(chunk.latent_frames)
    if window.still:
        target = np.full_like(target, window.start)
    seen = _frames(latents, [(window.direction, int(position)) for position in target])
    past = _frames(latents, history)
    views = clip.cam_to_world[view]
    matrix = clip.intrinsics[view]
    before, wanted = (
        Camera(views[i], np.broadcast_to(matrix, (len(i), 3, 3))) for i in (past, seen)
    )
    points = unproject(clip.depth[view][past], before)
    overlaps = view_overlaps(
        points[clip.keep[view][past]],
        before,
        wanted,
        (points.shape[1], points.shape[2]),
        chunk.references.voxel_size,
    )
    best = best_views(overlaps, chunk.references.most, chunk.references.threshold)
    return [history[i] for i in best]


def _frames(latents: LatentSource, played: list[tuple[int, int]]) -> np.ndarray:
    """Turn positions of playing directions into forward frames."""
    return np.array([latents.frames - 1 - i if way else i for way, i in played])
