"""What metrics are called in tables, which direction is better, and what they mean in a sentence.

Read next: `mirage_jax/eval/summary.py`.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class MetricName:
    """How a metric is shown.

    Attributes:
        title: heading with unit.
        better: "high", "low", "one" (closest to 1), or "" where neither is.
        decimals: that mean something.
        meaning: one sentence.
    """

    title: str
    better: str
    decimals: int
    meaning: str


METRICS: dict[str, MetricName] = {
    "psnr": MetricName(
        "PSNR dB", "high", 2, "Of whole frames; a mean of PSNR, not PSNR of a mean."
    ),
    "ssim": MetricName("SSIM", "high", 3, "Gaussian window of 11 pixels, sigma 1.5, per channel."),
    "lpips_alex": MetricName("LPIPS alex", "low", 3, "LPIPS 0.1, AlexNet, true weights."),
    "lpips_vgg": MetricName("LPIPS vgg", "low", 3, "LPIPS 0.1, VGG16, true weights."),
    "displacement": MetricName(
        "displacement px", "low", 2, "Median length of DIS flow to the true picture, in pixels."
    ),
    "displacement_mean": MetricName(
        "mean displacement px", "low", 2, "Mean length of DIS flow to the true picture, in pixels."
    ),
    "sharpness": MetricName(
        "sharpness", "one", 2, "Variance of the Laplacian over the truth's: blur is below 1."
    ),
    "frechet_dct": MetricName(
        "Fréchet (DCT)", "low", 1, "Between sets of 8x8 patches, on cosine features; not FID."
    ),
    "hole_rate": MetricName("holes", "", 3, "Share of cells where the memory read showed nothing."),
    "farthest": MetricName(
        "farthest vs start dB", "", 1, "PSNR of the middle of the path against the start picture."
    ),
    "overlap": MetricName(
        "start in view", "", 3, "Share of the start view's points in the picture of the middle."
    ),
    "camera_score": MetricName(
        "camera score", "high", 3, "WorldScore's formula; frames without a camera are its worst."
    ),
    "rotation": MetricName(
        "rotation °", "low", 2, "Mean angle between the camera asked for and the one found."
    ),
    "translation": MetricName(
        "translation", "low", 3, "Mean distance of those, over the scene's typical depth."
    ),
    "found": MetricName("camera found", "high", 3, "Share of telling frames that show a camera."),
    "flow_error": MetricName(
        "flow error px", "low", 2, "Endpoint error of frame-to-frame DIS flow beside the truth's."
    ),
    "motion": MetricName(
        "motion", "one", 2, "Motion magnitude over the true one; a still picture has 0."
    ),
    "flow_consistency": MetricName(
        "flow consistency px", "low", 2, "There-and-back distance of DIS flow; needs no truth."
    ),
    "psnr_moving": MetricName("moving dB", "high", 2, "PSNR of pixels that move by themselves."),
    "psnr_static": MetricName("static dB", "high", 2, "PSNR of all other pixels."),
}
for _net, _who in (
    ("raft_large", "RAFT (large, torchvision's weights)"),
    ("raft_small", "RAFT (small, torchvision's weights)"),
    ("net", "the network of --raft, whose weights are not torchvision's"),
):
    METRICS[f"displacement_{_net}"] = MetricName(
        f"displacement px, {_net}", "low", 2, f"Median length of flow to the true picture, {_who}."
    )
    METRICS[f"flow_error_{_net}"] = MetricName(
        f"flow error px, {_net}", "low", 2, f"Endpoint error of frame-to-frame flow, {_who}."
    )
HEADLINE = {
    "nvs": "psnr",
    "revisit": "psnr",
    "camera": "camera_score",
    "motion": "flow_error",
}
