"""nvs: the generated frames beside the true ones of a recorded path, frame by frame.

PSNR is of every frame; SSIM, LPIPS, displacement and the patches of the Fréchet distance are of
every fourth, which are enough to tell systems apart and cost a quarter. Displacement is the median
flow between the generated and the true picture: how far things stand from where they should.
Curves are means over the frames that a chunk adds.
Read next: `comeback.py`.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, UInt8

from mirage_jax.eval import image
from mirage_jax.eval.cases import Case
from mirage_jax.eval.metrics import detail, frechet
from mirage_jax.eval.scores import Ruler, Score

EVERY = 4


def score_following(
    case: Case,
    video: UInt8[np.ndarray, "f H W 3"],
    visibility: Bool[np.ndarray, "l h w"] | None,
    ruler: Ruler,
) -> Score:
    """Judge a video along a recorded path.

    Args:
        case: with the true frames.
        video: what a system made of it.
        visibility: where its memory showed something; None for systems that read nothing.
        ruler: chunks, and LPIPS where it is known.
    """
    truth = case.truth
    some = np.arange(EVERY, len(truth), EVERY)
    quality = image.psnr(video, truth)
    likeness = image.ssim(video[some], truth[some])
    moved = [image.displacement(truth[k], video[k]).median for k in some]
    metrics = {
        "psnr": float(quality[1:].mean()),
        "ssim": float(likeness.mean()),
        "displacement": float(np.mean(moved)),
        "sharpness": detail.sharpness(video[some], truth[some]),
    }
    if ruler.lpips is not None:
        metrics[ruler.lpips.name] = float(ruler.lpips(video[some], truth[some]).mean())
    if ruler.raft is not None:
        length = np.linalg.norm(ruler.raft(truth[some], video[some]), axis=-1)
        metrics[f"displacement_{ruler.raft.name}"] = float(np.median(length, axis=(1, 2)).mean())
    if visibility is not None:
        metrics["hole_rate"] = detail.hole_rate(visibility)
    sums = frechet.patch_sums(video[some])
    return Score(
        metrics=metrics,
        curves={
            "psnr_by_chunk": _by_chunk(quality, np.arange(len(truth)), ruler.chunk_ends),
            "displacement_by_chunk": _by_chunk(np.array(moved), some, ruler.chunk_ends),
        },
        sums={"patches": [sums.patches, sums.total.tolist(), sums.outer.tolist()]},
    )


def _by_chunk(values: np.ndarray, frames: np.ndarray, ends: tuple[int, ...]) -> list[float]:
    """Return the mean over the frames of each chunk, the start picture left out."""
    starts = (1, *ends[:-1])
    means = []
    for start, end in zip(starts, ends, strict=True):
        inside = (frames >= start) & (frames < end)
        means.append(float(values[inside].mean()) if inside.any() else float("nan"))
    return means
