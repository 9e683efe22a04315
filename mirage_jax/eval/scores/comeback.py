"""revisit: the last frame of a path that returns to where it began, beside the start picture.

The path leaves the view completely and its last latent frame stands at the start camera. `farthest`
is the PSNR of the frame in the middle of the last lap against the start picture: high only for
something that never left, which is how a copy is recognised. `overlap` is the share of the start
view's points that lie in the picture there, whatever hides them: 0 means it was left. With several
laps curves hold the return of each. The camera of the return is found in the picture by the start
picture's depth, as in `camera.py`.
Read next: `camera.py`.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, UInt8

from mirage_jax.eval import image
from mirage_jax.eval.cases import Case
from mirage_jax.eval.metrics import detail
from mirage_jax.eval.metrics.camera import rotation_degrees
from mirage_jax.eval.metrics.camera_from_pictures import Known, find_camera
from mirage_jax.eval.scores import Ruler, Score
from mirage_jax.eval.views import overlap
from mirage_jax.geometry.camera import index_camera
from mirage_jax.rollout.paths import typical_depth
from mirage_jax.world_model import FAR


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
        ruler: LPIPS and RAFT where they are known.
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
    metrics |= _camera_error(case, returns[-1])
    if ruler.lpips is not None:
        metrics[ruler.lpips.name] = float(ruler.lpips(returns[-1:], start[None])[0])
    if ruler.raft is not None:
        length = np.linalg.norm(ruler.raft(start[None], returns[-1:]), axis=-1)
        metrics[f"displacement_{ruler.raft.name}"] = float(np.median(length))
    if visibility is not None:
        metrics["hole_rate"] = detail.hole_rate(visibility[-1:])
    curves = {
        "psnr_by_lap": quality.tolist(),
        "displacement_by_lap": [value.median for value in moved],
    }
    return Score(metrics, curves if laps > 1 else {})


def _camera_error(case: Case, picture: np.ndarray) -> dict[str, float]:
    """Return how far from the start camera the return was seen; NaN where that cannot be told."""
    scene = case.scene
    depth = np.asarray(scene.depth, np.float64)
    known = Known(scene.image, depth, scene.camera, scene.keep & (depth > 0) & (depth < FAR))
    true = np.asarray(scene.camera.cam_to_world, np.float64)
    found = find_camera(picture, known, scene.camera.intrinsics).cam_to_world
    if not np.isfinite(found).all():
        return {"rotation": np.nan, "translation": np.nan, "found": 0.0}
    away = np.linalg.norm(found[:3, 3] - true[:3, 3])
    return {
        "rotation": float(rotation_degrees(found, true)),
        "translation": float(away / typical_depth(scene)),
        "found": 1.0,
    }
