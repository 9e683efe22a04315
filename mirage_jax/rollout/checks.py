"""What a rollout refuses before anything is computed.

Read next: `mirage_jax/rollout/loop.py`.
"""

from __future__ import annotations

import numpy as np

from mirage_jax.geometry.camera import Camera, validate_camera
from mirage_jax.rollout.chunk import Prompt, Providers, Start
from mirage_jax.rollout.world import WorldSpec


def check_start(spec: WorldSpec, start: Start, cameras: Camera) -> None:
    """Raise unless pictures, cameras and frame count fit the world and each other."""
    expected = (len(start.image), *spec.frame_hw)
    for name, array, shape in (
        ("image", start.image, (*expected, 3)),
        ("depth", start.depth, expected),
        ("mask", start.keep, expected),
    ):
        if np.shape(array) != shape:
            raise ValueError(
                f"{name}: got shape {np.shape(array)}, expected {shape} for the world "
                f"{spec.name!r}; fit the "
                "scene with rollout.scene.fit_scene"
            )
    validate_camera(cameras, "cameras")
    batch, frames = np.shape(cameras.cam_to_world)[:2]
    stride = spec.chunk.temporal_stride
    if batch != expected[0]:
        raise ValueError(
            f"cameras: got {batch} paths, expected {expected[0]}, one for each start picture"
        )
    if frames < 1 + stride or (frames - 1) % stride:
        raise ValueError(
            f"cameras: got {frames} frames, expected 1 + {stride}n with n >= 1; round up with "
            "rollout.plan.round_up_frames and repeat the last camera"
        )


def check_given(spec: WorldSpec, providers: Providers, prompt: Prompt | None) -> None:
    """Raise unless depth and text that the world needs are there."""
    if spec.depth_head is None and providers.depth is None:
        raise ValueError(
            f"depth: the world {spec.name!r} has no depth head, expected a provider of depth; give "
            "depth along the path, see rollout.depths"
        )
    width = spec.denoiser.text_width
    given = None if prompt is None else prompt.text.shape
    if bool(width) != (given is not None) or (given is not None and given[-1] != width):
        raise ValueError(
            f"prompt: got embeddings of shape {given}, expected [chunks, n, {width}] for the world "
            f"{spec.name!r}" + ("; give a prompt, an empty one will do" if width else ", none at 0")
        )
    if spec.sampling.guidance != 1.0 and (prompt is None or prompt.negative is None):
        raise ValueError(
            f"sampling.guidance: got {spec.sampling.guidance} without a negative prompt, expected "
            "one; give the embeddings of the empty prompt, or set guidance to 1.0"
        )
