"""motion: how the picture moves from frame to frame, beside how the true one does.

`flow_error` is the endpoint error between the flow of adjacent generated and of adjacent true
frames (pixels a frame); `motion` is the generated motion magnitude over the true one, 1 as fast as
the truth; `flow_consistency` is WorldScore's formula with DIS flow and needs no truth, so that the
truth's own value is what to compare with; `psnr_moving` and `psnr_static` are of pixels that move
by themselves and of all others.
Read next: `mirage_jax/eval/metrics/flow.py`.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from mirage_jax.eval import image
from mirage_jax.eval.cases import Case
from mirage_jax.eval.metrics import flow
from mirage_jax.eval.scores import Score


def score_motion(case: Case, video: UInt8[np.ndarray, "f H W 3"], true_flows: np.ndarray) -> Score:
    """Judge the motion of a video.

    Args:
        case: with true frames and masks of what moves.
        video: what a system made of it.
        true_flows: of the true frames, from `flow.flows`.
    """
    fields = flow.flows(video)
    true = flow.motion_magnitude(true_flows)
    metrics = {
        "flow_error": float(flow.endpoint_error(fields, true_flows).mean()),
        "motion": flow.motion_magnitude(fields) / true if true > 0 else np.nan,
        "flow_consistency": flow.flow_consistency(video, fields),
    }
    if case.moving is not None:
        for name, where in (("psnr_moving", case.moving), ("psnr_static", ~case.moving)):
            values = [
                image.masked_psnr(a, b, mask)
                for a, b, mask in zip(video[1:], case.truth[1:], where[1:], strict=True)
            ]
            finite = np.isfinite(values)
            metrics[name] = float(np.asarray(values)[finite].mean()) if finite.any() else np.nan
    return Score(metrics)
