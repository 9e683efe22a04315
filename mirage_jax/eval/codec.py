"""The codec on clips it has not seen, the linear codec of the same sizes beside it.

PSNR of the first frame, which is coded alone, and of the later ones, coded in groups; each clip
gives one window.
Read next: `mirage_jax/eval/baselines.py`, `mirage_jax/models/codec.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mirage_jax.eval import image, report
from mirage_jax.eval.baselines import fit_pca_codec
from mirage_jax.models import functional
from mirage_jax.models.codec import CodecConfig
from mirage_jax.rollout.decode import to_uint8
from mirage_jax.rollout.world import WorldSpec

_COLUMNS = (("first", "first frame dB", 2), ("later", "later frames dB", 2), ("ssim", "SSIM", 3))


def evaluate_codec(
    spec: WorldSpec,
    params: dict,
    val_clips: Sequence[Any],
    train_clips: Sequence[Any] | None,
    directory: Path,
    *,
    frames: int = 17,
) -> dict[str, Any]:
    """Score a codec and write codec.json and codec.md.

    Args:
        spec: the world's configs; its codec is measured.
        params: the codec's parameters.
        val_clips: random access to the clips it is measured on.
        train_clips: the clips the linear codec is fitted on; None leaves that row out.
        directory: where reports go.
        frames: frames of a window, 1 + stride * n.

    Returns:
        What codec.json holds.
    """
    windows = [np.asarray(val_clips[i]["rgb"][:frames]) for i in range(len(val_clips))]
    table = {"codec": score_codec(spec.codec, params, windows)}
    if train_clips is not None and isinstance(spec.codec, CodecConfig):
        table["PCA of the same sizes"] = score_codec(
            *fit_pca_codec(spec.codec, train_clips), windows
        )
    results = {"frames": frames, "clips": len(windows), "rows": report.summarize_table(table)}
    sizes = f"stride {spec.codec.spatial_stride}, {spec.codec.latent_channels} channels"
    text = f"""# Codec of world {spec.name} ({sizes})

{len(windows)} windows of {frames} frames; mean ± half of the 95 % bootstrap interval over windows.

{report.markdown_table(table, _COLUMNS)}
"""
    report.write_report(directory, "codec", results, text)
    return results


def score_codec(codec: Any, params: dict, windows: Sequence[np.ndarray]) -> dict[str, list[float]]:
    """Return PSNR of the first frame and of the later ones, and SSIM, for each window."""
    roundtrip = jax.jit(functools.partial(functional.apply, codec))
    scores: dict[str, list[float]] = {"first": [], "later": [], "ssim": []}
    for frames in windows:
        output = to_uint8(roundtrip(params, np.asarray(frames, np.float32)[None] / 127.5 - 1.0))[0]
        quality = image.psnr(output, frames)
        scores["first"].append(float(quality[0]))
        scores["later"].append(float(quality[1:].mean()))
        scores["ssim"].append(float(image.ssim(output[::4], frames[::4]).mean()))
    return scores
