"""Draws training windows: target frames, those before them, and the frames that memory was made of.

A window is what one chunk of a rollout sees. The clean frame k is followed by the frames to be
generated; a first chunk starts from a picture encoded alone and has nothing before it, a later one
has `preceding` frames. Memory frames are listed oldest first, the order in which rollout writes:
the way out (frames of the clip played the other way, which pass through the very cameras of the
targets), then frames already passed, then frame k itself.

Every draw is a pure function of (seed, step). Rows `[:num_first]` of a batch are first chunks.
Read next: `mirage_jax/train/denoiser_stage.py`.
"""

from __future__ import annotations

import numpy as np

from mirage_jax.data.captions import ClipTexts, draw_dropped
from mirage_jax.models.config import ChunkConfig
from mirage_jax.prng import Purpose, generator_for
from mirage_jax.train.feed import Batch, Rows
from mirage_jax.train.latents import LatentSource
from mirage_jax.train.windows.config import WindowConfig
from mirage_jax.train.windows.references import draw_references
from mirage_jax.train.windows.window import MemoryFrame, Window

# A start picture is the oldest frame of most memories; the others go on from a longer past.
_START_PICTURE = 0.7
# How far back frames of the same way are drawn from, in latent frames.
_PAST_REACH = 16


def draw_batch(
    latents: LatentSource,
    config: WindowConfig,
    chunk: ChunkConfig,
    texts: ClipTexts | None = None,
    *,
    seed: int,
    step: int,
    clips: np.ndarray,
    rows: Rows = None,
) -> Batch:
    """Return the arrays of the windows of one step; see `gather` for their meaning.

    `clips` [b] are the clips of all rows. All windows of the batch are drawn, and those of `rows`
    (None: of all rows) gathered.

    With `config.references` there are also `references`, see `references.py`; with `texts`
    `text` [b, n, dt], the embedding of each clip's caption or, in dropped rows, of the empty
    prompt.
    """
    rng = generator_for(seed, step, Purpose.CLIP_WINDOW)
    batch = len(clips)
    windows = [
        draw_window(rng, latents, int(clip), row < config.num_first(batch), config, chunk)
        for row, clip in enumerate(clips)
    ]
    own = np.arange(batch) if rows is None else np.asarray(rows)
    arrays = gather(latents, [windows[row] for row in own], chunk, config.memory_frames)
    if config.references and chunk.references.most:
        drawn = draw_references(rng, latents, windows, chunk)
        arrays |= {name: array[own] for name, array in drawn.items()}
    if texts is None:
        return arrays
    dropped = draw_dropped(seed, step, batch, config.text_dropout)
    return arrays | {"text": texts.embed(clips[own], dropped[own])}


def draw_window(
    rng: np.random.Generator,
    latents: LatentSource,
    clip: int,
    first: bool,
    config: WindowConfig,
    chunk: ChunkConfig,
) -> Window:
    """Draw one window of a clip.

    Raises:
        ValueError: if the clip is too short for a chunk and what precedes it.
    """
    frames = latents.frames
    lowest = 0 if first else chunk.preceding
    highest = frames - chunk.latent_frames
    if highest < lowest:
        raise ValueError(
            f"clips: got {frames} latent frames, expected at least "
            f"{chunk.latent_frames + chunk.preceding}; record longer clips or shorten the chunk"
        )
    mirrored, direction = int(rng.integers(latents.views)), int(rng.integers(2))
    start = int(rng.integers(lowest, highest + 1))
    memory: tuple[MemoryFrame, ...] = ()
    if rng.random() >= config.memory_off:
        memory = _draw_memory(rng, first, start, frames, config, chunk)
    still = bool(rng.random() < config.still_fraction)
    if still and memory:  # as on a return: the picture of this very place came first
        memory = (memory[-1]._replace(start=True), *memory[:-1])
    return Window(clip, mirrored, direction, start, first, memory, still)


def _draw_memory(
    rng: np.random.Generator,
    first: bool,
    start: int,
    frames: int,
    config: WindowConfig,
    chunk: ChunkConfig,
) -> tuple[MemoryFrame, ...]:
    """Draw what a memory is made of, oldest first, frame `start` last."""
    extra = int(rng.integers(config.memory_frames)) if config.memory_frames > 1 else 0
    if first and rng.random() < 0.5:
        extra = 0
    returning = rng.random() < config.return_fraction
    low, high = max(0, start - 6), min(frames, start + chunk.latent_frames + 6)
    out, past = set(), set()
    for _ in range(extra):
        if start == 0 or (returning and rng.random() < 0.75):
            if returning:
                out.add(frames - 1 - int(rng.integers(low, high)))
        else:
            past.add(int(rng.integers(max(0, start - _PAST_REACH), start)))
    listed = [MemoryFrame(1, i, False) for i in sorted(out)]
    listed += [MemoryFrame(0, i, False) for i in sorted(past)]
    if listed and rng.random() < _START_PICTURE:
        listed[0] = listed[0]._replace(start=True)
    return (*listed, MemoryFrame(0, start, first))


def gather(
    latents: LatentSource, windows: list[Window], chunk: ChunkConfig, memory_frames: int
) -> Batch:
    """Collect the arrays of windows.

    Args:
        latents: cache of the split.
        windows: one for each row.
        chunk: target and preceding frames, and how a start picture is stored.
        memory_frames: slots for memory frames; unused ones have `memory_keep` False everywhere.

    Returns:
        `target` [b, T, h, w, c], `preceding` [b, P, h, w, c] (copies of frame k in first chunks),
        `cam_to_world` [b, T + P, 4, 4], `intrinsics` [b, T + P, 3, 3], `depth`, `known`, `sky`
        [b, T, h, w], and `memory_latents`, `memory_depth`, `memory_keep`, `memory_cam_to_world`,
        `memory_intrinsics` with the axes [b, N, ...].
    """
    rows = [_gather_one(latents, window, chunk, memory_frames) for window in windows]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _gather_one(latents: LatentSource, window: Window, chunk: ChunkConfig, slots: int) -> Batch:
    clip, view = latents.clip(window.clip), window.mirrored
    target = np.arange(window.start, window.start + chunk.latent_frames)
    past = np.arange(window.start - chunk.preceding, window.start)
    if window.first:
        past = np.full(chunk.preceding, window.start)
    if window.still:
        target, past = np.full_like(target, window.start), np.full_like(past, window.start)
    seen = _forward(latents, window.direction, target)
    shown = np.concatenate([seen, _forward(latents, window.direction, past)])
    video = clip.video[view]
    if window.still:
        made = clip.held[view][shown]
    else:
        made = video[window.direction, np.concatenate([target, past])]
    targets, before = made[: len(target)].copy(), made[len(target) :]
    if window.first:
        targets[0] = clip.single[view][seen[0]]
    intrinsics = clip.intrinsics[view]
    batch = {
        "target": targets,
        "preceding": before,
        "cam_to_world": clip.cam_to_world[view][shown],
        "intrinsics": np.broadcast_to(intrinsics, (len(shown), 3, 3)),
        "depth": clip.depth[view][seen],
        "known": clip.known[view][seen],
        "sky": clip.sky[view][seen],
    }
    frames = list(window.memory) or [MemoryFrame(0, window.start, window.first)]
    filler = [frames[0]] * (slots - len(frames))
    # Unused slots come first: they write nothing, and frame k stays the last.
    used = np.array([False] * len(filler) + [bool(window.memory)] * len(frames))
    indices, stored = [], []
    for frame in filler + frames:
        direction = window.direction ^ frame.backwards
        index = int(_forward(latents, direction, np.array(frame.position)))
        indices.append(index)
        start = (clip.held if chunk.write.start == "held" else clip.single)[view][index]
        stored.append(start if frame.start else video[direction, frame.position])
    return batch | {
        "memory_latents": np.stack(stored),
        "memory_depth": clip.depth[view][indices],
        "memory_keep": clip.keep[view][indices] & used[:, None, None],
        "memory_cam_to_world": clip.cam_to_world[view][indices],
        "memory_intrinsics": np.broadcast_to(intrinsics, (slots, 3, 3)),
    }


def _forward(latents: LatentSource, direction: int, index: np.ndarray) -> np.ndarray:
    """Turn indices of a playing direction into forward ones."""
    return latents.frames - 1 - index if direction else index
