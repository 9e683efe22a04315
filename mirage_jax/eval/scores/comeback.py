"""revisit: the last frame of a path that returns to where it began, beside the start picture.

The path leaves the view completely and its last latent frame stands at the start camera. `farthest`
is the PSNR of the frame in the middle of the last lap against the start picture: high only for
something that never left, which is how a copy is recognised. `overlap` is the share of the start
view's points that lie in the picture there, whatever hides them: 0 means it was left. With several
laps curves hold the return of each.
Read next: `camera.py`.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, UInt8

from mirage_jax.eval import image
from mirage_jax.eval.cases import Case
from mirage_jax.eval.metrics import detail
from mirage_jax.eval.scores import Ruler, Score
from mirage_jax.eval.views import overlap
from mirage_jax.geometry.camera import index_camera


def score_return(
    case: Case,
    video: UInt8[np.ndarray, "f H W 3"],
    visibility: Bool[np.ndarray, "l h w"] | None,
    ruler: Ruler,
    laps: int = 1,
) -> Score:
    """Judge the returns of a video.

    Args:
        case: with the start picture.
        video: of `laps` laps of equal length.
        visibility: where its memory showed something; None for systems that read nothing.
        ruler: LPIPS where it is known.
        laps: how often the path was walked.
    """
    start, lap = case.scene.image, (len(video) - 1) // laps
    returns = video[lap::lap]
    first = np.broadcast_to(start, returns.shape)
    quality, likeness = image.psnr(returns, first), image.ssim(returns, first)
    moved = [image.displacement(start, frame) for frame in returns]
    metrics = {
        "psnr": float(quality[-1]),
        "ssim": float(likeness[-1]),
        "displacement": moved[-1].median,
        "displacement_mean": moved[-1].mean,
        "sharpness": detail.sharpness(returns[-1:], start[None]),
        "overlap": overlap(case.scene, index_camera(case.cameras, len(video) - 1 - lap // 2)),
        "farthest": float(image.psnr(video[-1 - lap // 2], start)),
    }
    if ruler.lpips is not None:
        metrics[ruler.lpips.name] = float(ruler.lpips(returns[-1:], start[None])[0])
    if visibility is not None:
        metrics["hole_rate"] = detail.hole_rate(visibility[-1:])
    curves = {
        "psnr_by_lap": quality.tolist(),
        "displacement_by_lap": [value.median for value in moved],
    }
    return Score(metrics, curves if laps > 1 else {})
