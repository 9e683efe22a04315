"""Fixed validation windows, and how predictions of their latents are scored in pictures.

Two kinds of windows, half of the clips each: the first chunk of a rollout (memory holds the start
picture) and the second (memory holds the start picture and the frames since). Predictions are
decoded after the true latents before them and compared with the true frames, whole frames, in dB.
Read next: `mirage_jax/train/denoiser_stage.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mirage_jax.data.captions import ClipTexts
from mirage_jax.models.config import ChunkConfig
from mirage_jax.train.feed import Batch
from mirage_jax.train.latents import CodecWeights, LatentSource, decode_pictures
from mirage_jax.train.objective import psnr, write_sheet
from mirage_jax.train.windows.draw import gather
from mirage_jax.train.windows.window import MemoryFrame, Window

_SHOWN_WINDOWS = 3


class ValidationWindows(NamedTuple):
    """Validation windows in batches of one kind.

    Attributes:
        batches: (arrays, whether they are first chunks).
        before: for each batch [b, k, h, w, c], the true latents before the window.
        truth: for each batch [b, f, H, W, 3] uint8, frames up to the end of the window.
        stride: video frames of a latent frame.
    """

    batches: list[tuple[Batch, bool]]
    before: list[np.ndarray]
    truth: list[np.ndarray]
    stride: int


def validation_windows(
    latents: LatentSource,
    clips: Sequence[dict],
    chunk: ChunkConfig,
    memory_frames: int,
    texts: ClipTexts | None = None,
) -> ValidationWindows:
    """Make the windows: even clips give first chunks, odd ones second chunks.

    Args:
        latents: of the validation clips.
        clips: the same clips.
        chunk: sizes of a chunk.
        memory_frames: slots of a window's memory.
        texts: of the same clips, for denoisers that read text.
    """
    result = ValidationWindows([], [], [], chunk.temporal_stride)
    for first in (True, False):
        chosen = range(0 if first else 1, len(clips), 2)
        if not chosen:
            continue
        start = 0 if first else max(chunk.latent_frames - 1, chunk.preceding)
        memory = [MemoryFrame(0, i, i == 0) for i in range(start + 1)]
        if len(memory) > memory_frames:
            memory = [memory[0], *memory[len(memory) - memory_frames + 1 :]]
        rows = [Window(i, 0, 0, start, first, tuple(memory)) for i in chosen]
        frames = 1 + chunk.temporal_stride * (start + chunk.latent_frames - 1)
        arrays = gather(latents, rows, chunk, memory_frames)
        if texts is not None:
            arrays["text"] = texts.embed(chosen)
        result.batches.append((arrays, first))
        result.before.append(np.stack([latents.clip(i).video[0, 0, :start] for i in chosen]))
        result.truth.append(np.stack([np.asarray(clips[i]["rgb"][:frames]) for i in chosen]))
    return result


def score_pictures(
    codec: CodecWeights,
    val: ValidationWindows,
    predictions: dict[str, list[Any]],
    path: Path | None,
) -> dict[str, float]:
    """Decode predictions, write a sheet of pictures and return PSNR in dB over the new frames.

    Args:
        codec: frozen codec.
        val: the windows.
        predictions: name -> for each batch [b, T, h, w, c] target latents.
        path: PNG: for each shown window the truth and then each prediction, one row each; or None.

    Returns:
        `psnr_<name>` of each prediction and `psnr_copy` of repeating the last given frame.
    """
    scores: dict[str, list[np.ndarray]] = {}
    rows: list[np.ndarray] = []
    for index, before in enumerate(val.before):
        truth = val.truth[index].astype(np.float32) / 127.5 - 1.0
        given = val.stride * before.shape[1] + 1
        new, shown = truth[:, given:], slice(val.stride - 1, None, val.stride)
        pictures = {"truth": new}
        for name, values in predictions.items():
            whole = np.concatenate([before, np.asarray(values[index])], axis=1)
            pictures[name] = decode_pictures(codec, whole)[:, given:]
        pictures["copy"] = np.broadcast_to(truth[:, given - 1 : given], new.shape)
        for name, frames in pictures.items():
            if name != "truth":
                scores.setdefault(f"psnr_{name}", []).append(psnr(frames, new))
        for window in range(min(_SHOWN_WINDOWS, len(new))):
            rows += [frames[window, shown] for frames in pictures.values()]
    if path is not None:
        write_sheet(path, rows)
    return {name: float(np.concatenate(parts).mean()) for name, parts in scores.items()}
