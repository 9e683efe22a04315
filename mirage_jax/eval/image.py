"""Image metrics, fixed once so that numbers are comparable.

* PSNR: 10 log10(1 / MSE) on RGB in [0, 1], whole frame, one number a frame; averages are means of
  per-frame PSNR.
* SSIM: scikit-image, 11x11 Gaussian of sigma 1.5, C1 = 0.01^2, C2 = 0.03^2, population covariance,
  per channel and averaged, borders reflected by the filter and a 5-pixel rim left out of the mean
  (the library's rule).
* Displacement: magnitude of dense optical flow (OpenCV DIS, medium preset, on gray pictures
  enlarged 4x because small frames hold less than one of its patches), in pixels of the original
  frame. It separates misplacement from blur.

Frames are uint8 [..., H, W, 3]. Nothing here needs a downloaded network: there is no LPIPS under
another name.
Read next: `mirage_jax/eval/metrics/`, `mirage_jax/eval/scores/`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from skimage.metrics import structural_similarity

from mirage_jax.eval.metrics.dis_flow import ENLARGE, enlarged_flow

# Identical frames have infinite PSNR; 8-bit frames that differ anywhere stay below 98 dB at any
# size used here.
PSNR_OF_EQUAL_FRAMES = 100.0


class Displacement(NamedTuple):
    """Flow magnitude between two frames, in pixels: mean and median over the frame."""

    mean: float
    median: float


def psnr(
    a: UInt8[np.ndarray, "*f H W 3"], b: UInt8[np.ndarray, "*f H W 3"]
) -> Float[np.ndarray, "*f"]:
    """Return the PSNR of each frame in dB.

    Raises:
        ValueError: shapes differ or frames are not uint8.
    """
    _check_pair(a, b)
    square = ((a.astype(np.float32) - b.astype(np.float32)) / 255.0) ** 2
    error = np.mean(square, axis=(-3, -2, -1), dtype=np.float64)
    floor = 10.0 ** (-PSNR_OF_EQUAL_FRAMES / 10.0)
    return -10.0 * np.log10(np.maximum(error, floor))


def masked_psnr(
    a: UInt8[np.ndarray, "H W 3"], b: UInt8[np.ndarray, "H W 3"], mask: np.ndarray
) -> float:
    """Return the PSNR over the pixels of `mask` [H, W]; NaN where the mask is empty."""
    _check_pair(a, b)
    if not mask.any():
        return float("nan")
    return float(psnr(a[mask][None], b[mask][None]))


def ssim(
    a: UInt8[np.ndarray, "*f H W 3"], b: UInt8[np.ndarray, "*f H W 3"]
) -> Float[np.ndarray, "*f"]:
    """Return the SSIM of each frame, as defined in the module docstring.

    Raises:
        ValueError: shapes differ or frames are not uint8.
    """
    _check_pair(a, b)
    flat_a, flat_b = a.reshape(-1, *a.shape[-3:]), b.reshape(-1, *b.shape[-3:])
    values = [
        structural_similarity(
            x,
            y,
            channel_axis=-1,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for x, y in zip(flat_a, flat_b, strict=True)
    ]
    return np.asarray(values).reshape(a.shape[:-3])


def displacement(a: UInt8[np.ndarray, "H W 3"], b: UInt8[np.ndarray, "H W 3"]) -> Displacement:
    """Return how far content of `a` lies from where it is in `b`.

    Raises:
        ValueError: shapes differ or frames are not uint8.
    """
    _check_pair(a, b)
    length = np.linalg.norm(enlarged_flow(a, b), axis=-1) / ENLARGE
    return Displacement(mean=float(length.mean()), median=float(np.median(length)))


def _check_pair(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape or a.dtype != np.uint8 or b.dtype != np.uint8:
        raise ValueError(
            f"frames: got {a.dtype}{list(a.shape)} and {b.dtype}{list(b.shape)}, expected two "
            "uint8 arrays of one "
            "shape; convert with rollout.decode.to_uint8 and resize"
        )
