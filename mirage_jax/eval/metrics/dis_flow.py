"""OpenCV's DIS flow (medium preset) on gray pictures enlarged 4x.

Small frames hold less than one of its patches otherwise. Its answers do not depend on what the
solver was asked before.
Read next: `flow.py`, `mirage_jax/eval/image.py`.
"""

from __future__ import annotations

import threading
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

ENLARGE = 4

_kept = threading.local()


def enlarged_flow(
    a: UInt8[np.ndarray, "H W 3"], b: UInt8[np.ndarray, "H W 3"]
) -> Float[np.ndarray, "H4 W4 2"]:
    """Return how far content of `a` lies to the right and down in `b`, in enlarged pixels."""
    size = (a.shape[1] * ENLARGE, a.shape[0] * ENLARGE)
    gray = [
        cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_CUBIC)
        for frame in (np.ascontiguousarray(a), np.ascontiguousarray(b))
    ]
    # OpenCV's stubs want a flow to start from; the call itself takes None.
    return _solver().calc(gray[0], gray[1], None)


def _solver() -> Any:
    """Return the solver of this thread, whose buffers are costly to make anew for each pair."""
    if not hasattr(_kept, "solver"):
        _kept.solver = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return _kept.solver
