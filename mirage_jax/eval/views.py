"""Start views and recorded paths out of clips, for evaluation.

A view is one frame of a clip with its depth, camera and mask; moving things are not remembered,
things that stand (sprites too) are. Clips are read in order, so an evaluation of n views always
uses the same ones.
Read next: `mirage_jax/eval/cases.py`, `mirage_jax/eval/follow.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mirage_jax.geometry.camera import Camera, index_camera
from mirage_jax.geometry.projection import project, unproject
from mirage_jax.rollout.chunk import Start
from mirage_jax.rollout.scene import Scene
from mirage_jax.world_model import FAR

# A start view needs this fraction of pixels nearer than the sky and farther than an arm's length.
_USABLE_FRACTION = 0.5
_ARM_LENGTH = 0.6


def clip_scene(clip: Mapping[str, Any], frame: int = 0, name: str = "clip") -> Scene:
    """Return a frame of a clip as a scene, with the rest of the recording after it as its path."""
    cameras = Camera(
        np.asarray(clip["cam_to_world"], np.float32)[frame:],
        np.broadcast_to(clip["intrinsics"], (len(clip["rgb"]) - frame, 3, 3)).astype(np.float32),
    )
    return Scene(
        name=name,
        image=np.asarray(clip["rgb"][frame]),
        depth=np.asarray(clip["depth"][frame], np.float32),
        keep=~np.asarray(clip["moving"][frame], bool),
        camera=index_camera(cameras, 0),
        path=cameras,
        frames=np.asarray(clip["rgb"][frame:]),
    )


def pick_views(clips: Sequence[Mapping[str, Any]], count: int) -> list[Scene]:
    """Pick start views until there are enough.

    First frames of all clips come first, then their middles, then their quarters.

    Views with a wall in the face or mostly sky are passed over: nothing can be told from a return
    to them.

    Args:
        clips: random access to clips.
        count: views wanted.

    Returns:
        The views.

    Raises:
        ValueError: the clips do not hold that many usable views.
    """
    views: list[Scene] = []
    for fraction in (0.0, 0.5, 0.25, 0.75):
        for index in range(len(clips)):
            if len(views) == count:
                return views
            clip = clips[index]
            frame = int(fraction * (len(clip["rgb"]) - 1))
            if is_usable(clip["depth"][frame]):
                views.append(clip_scene(clip, frame, f"{index:04d}_{frame:03d}"))
    if len(views) < count:
        raise ValueError(
            f"--views: got {count}, expected at most the {len(views)} usable views of these "
            f"{len(clips)} clips; "
            "record more clips or ask for fewer views"
        )
    return views


def is_usable(depth: np.ndarray) -> bool:
    """Return True where enough of a frame lies between an arm's length and the sky."""
    depth = np.asarray(depth, np.float32)
    return bool(np.mean((depth > _ARM_LENGTH) & (depth < FAR)) >= _USABLE_FRACTION)


def stack_starts(scenes: Sequence[Scene]) -> Start:
    """Return the start pictures of scenes of one size, stacked."""
    return Start(
        image=np.stack([scene.image for scene in scenes]),
        depth=np.stack([np.asarray(scene.depth, np.float32) for scene in scenes]),
        keep=np.stack([scene.keep for scene in scenes]),
    )


def overlap(scene: Scene, camera: Camera) -> float:
    """Return the fraction of a scene's known pixels that fall into the picture of another camera.

    Occlusion is not looked at: 0 means that nothing of the scene's view can be seen there.
    """
    height, width = scene.depth.shape
    points = unproject(np.asarray(scene.depth, np.float32), scene.camera).reshape(-1, 3)
    points = points[np.asarray(scene.depth).reshape(-1) > 0]
    uv, z = project(points, camera)
    inside = (
        (z > 0)
        & (uv[..., 0] >= 0)
        & (uv[..., 0] < width)
        & (uv[..., 1] >= 0)
        & (uv[..., 1] < height)
    )
    return float(np.mean(inside))
