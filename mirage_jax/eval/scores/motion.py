"""motion: how the picture moves from frame to frame, beside how the true one does.

`flow_error` is the endpoint error between the flow of adjacent generated and of adjacent true
frames (pixels a frame); `motion` is the generated motion magnitude over the true one, 1 as fast as
the truth; `flow_consistency` is WorldScore's formula with DIS flow and needs no truth, so that the
truth's own value is what to compare with; `psnr_moving` and `psnr_static` are of pixels that move
by themselves and of all others.
Read next: `mirage_jax/eval/metrics/flow.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from mirage_jax.eval import image
from mirage_jax.eval.cases import Case
from mirage_jax.eval.metrics import flow
from mirage_jax.eval.scores import Ruler, Score


class TrueFlow(NamedTuple):
    """Flow of adjacent true frames [f - 1, H, W, 2]: that of DIS, and RAFT's where it is known."""

    dis: Float[np.ndarray, "n H W 2"]
    raft: Float[np.ndarray, "n H W 2"] | None


def true_flow(case: Case, ruler: Ruler) -> TrueFlow:
    """Return the flow of a case's true frames."""
    truth = case.truth
    return TrueFlow(
        flow.flows(truth), None if ruler.raft is None else ruler.raft(truth[:-1], truth[1:])
    )


def score_motion(
    case: Case, video: UInt8[np.ndarray, "f H W 3"], known: TrueFlow, ruler: Ruler
) -> Score:
    """Judge the motion of a video.

    Args:
        case: with true frames and masks of what moves.
        video: what a system made of it.
        known: of the true frames.
        ruler: RAFT where it is known.
    """
    fields = flow.flows(video)
    true = flow.motion_magnitude(known.dis)
    metrics = {
        "flow_error": float(flow.endpoint_error(fields, known.dis).mean()),
        "motion": flow.motion_magnitude(fields) / true if true > 0 else np.nan,
        "flow_consistency": flow.flow_consistency(video, fields),
    }
    if ruler.raft is not None and known.raft is not None:
        error = flow.endpoint_error(ruler.raft(video[:-1], video[1:]), known.raft)
        metrics[f"flow_error_{ruler.raft.name}"] = float(error.mean())
    if case.moving is not None:
        for name, where in (("psnr_moving", case.moving), ("psnr_static", ~case.moving)):
            values = [
                image.masked_psnr(a, b, mask)
                for a, b, mask in zip(video[1:], case.truth[1:], where[1:], strict=True)
            ]
            finite = np.isfinite(values)
            metrics[name] = float(np.asarray(values)[finite].mean()) if finite.any() else np.nan
    return Score(metrics)
