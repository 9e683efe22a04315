"""Detail of pictures: sharpness beside the truth, and the share of a read that shows nothing.

Sharpness is the variance of the Laplacian (four neighbours, gray in 0 to 255, borders reflected) of
the generated frames over that of the true ones: 1 is as sharp as the truth, blur is below. A number
above 1 is noise or ringing, not quality.
Read next: `frechet.py`, where blur cannot win either.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, UInt8


def laplacian_variance(frame: UInt8[np.ndarray, "H W 3"]) -> float:
    """Return the variance of the Laplacian of a picture's gray values."""
    gray = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(gray, cv2.CV_64F, ksize=1, borderType=cv2.BORDER_REFLECT).var())


def sharpness(got: UInt8[np.ndarray, "f H W 3"], true: UInt8[np.ndarray, "f H W 3"]) -> float:
    """Return the detail of frames over that of the true ones; NaN where the truth has none."""
    have, wanted = (sum(laplacian_variance(frame) for frame in video) for video in (got, true))
    return have / wanted if wanted > 0 else float("nan")


def hole_rate(visibility: Bool[np.ndarray, "n h w"]) -> float:
    """Return the share of cells where a read showed nothing."""
    return float(1.0 - np.mean(visibility))
