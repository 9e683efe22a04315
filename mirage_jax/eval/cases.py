"""Scenes of a protocol with what is known about them: true frames, depth, masks, cameras.

Everything is at the world's frame size, which the recording must have: masks and depth are compared
pixel by pixel.
Read next: `mirage_jax/eval/run_protocol.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from mirage_jax.eval.protocols import Item, Protocol, picture_sum
from mirage_jax.eval.views import clip_scene
from mirage_jax.geometry.camera import Camera, index_camera
from mirage_jax.geometry.trajectories import TrajectoryOptions, trajectory
from mirage_jax.rollout.paths import typical_depth
from mirage_jax.rollout.scene import Scene
from mirage_jax.world_model import FAR


@dataclasses.dataclass(frozen=True)
class Case:
    """One item, ready to be run and judged.

    Attributes:
        item: which one.
        scene: its start.
        cameras: [f] cameras of the video.
        truth: [f, H, W, 3] true frames.
        depths: [f, H, W] z-depth of the true frames, or None where the path was not recorded.
        solid: [f, H, W] True where the truth is neither moving, nor a sprite, nor sky.
        moving: [f, H, W] True where something moves.
    """

    item: Item
    scene: Scene
    cameras: Camera
    truth: UInt8[np.ndarray, "f H W 3"]
    depths: Float[np.ndarray, "f H W"] | None = None
    solid: Bool[np.ndarray, "f H W"] | None = None
    moving: Bool[np.ndarray, "f H W"] | None = None


def read_clip(clips: Sequence[Mapping[str, Any]], item: Item, hw: tuple[int, int]) -> Mapping:
    """Return the clip of an item, after checking that it is the one that is meant.

    Raises:
        ValueError: another recording, or another frame size.
    """
    cure = (
        "record as the README says, or make a list of this data set with mirage evaluate items "
        "and give it as --items"
    )
    if item.clip >= len(clips):
        raise ValueError(f"--data: got {len(clips)} clips, expected clip {item.clip}; {cure}")
    clip = clips[item.clip]
    if item.frame >= len(clip["rgb"]) or picture_sum(clip["rgb"][item.frame]) != item.picture:
        raise ValueError(
            f"--data: got another recording as clip {item.clip} ({clip.get('level', '')!r}), "
            f"expected one of {item.level!r} whose frame {item.frame} has the checksum "
            f"{item.picture}; {cure}"
        )
    if clip["rgb"].shape[1:3] != hw:
        raise ValueError(
            f"--data: got frames of {clip['rgb'].shape[1:3]}, expected those of the world, {hw}; "
            "record or prepare the data set at that size"
        )
    return clip


def recorded_case(clip: Mapping[str, Any], item: Item, frames: int) -> Case:
    """Return a case that follows the recorded path.

    Raises:
        ValueError: the clip is too short.
    """
    part = slice(item.frame, item.frame + frames)
    truth = np.asarray(clip["rgb"][part])
    if len(truth) < frames:
        raise ValueError(
            f"frames: got {frames}, expected at most the {len(truth)} that clip {item.clip} has "
            f"from frame {item.frame} on; ask for fewer with --frames"
        )
    scene = clip_scene(clip, item.frame, item.name)
    path = Camera(*(np.asarray(leaf) for leaf in scene.path or ()))
    depths, moving = np.asarray(clip["depth"][part], np.float32), np.asarray(clip["moving"][part])
    sprite = np.asarray(clip["sprite"][part]) if "sprite" in clip else np.zeros_like(moving)
    return Case(
        item=item,
        scene=scene,
        cameras=index_camera(path, slice(0, frames)),
        truth=truth,
        depths=depths,
        solid=(depths > 0) & (depths < FAR) & ~moving & ~sprite,
        moving=moving,
    )


def case_of(clip: Mapping[str, Any], protocol: Protocol, item: Item, place: int) -> Case:
    """Return the case of an item: along its recorded path, or along a closed one for revisit.

    Args:
        clip: of the item.
        protocol: whose frames and path it has.
        item: which.
        place: in the list; every second closed path is mirrored.
    """
    if protocol.name != "revisit":
        return recorded_case(clip, item, protocol.setting.frames)
    scene = clip_scene(clip, item.frame, item.name)
    cameras = closed_laps(scene, protocol, mirror=bool(place % 2))
    # What stands still looks the same at every return; the recording does not go there.
    held = np.broadcast_to(scene.image, (len(cameras.cam_to_world), *scene.image.shape))
    return Case(item=item, scene=scene, cameras=cameras, truth=held)


def closed_laps(scene: Any, protocol: Protocol, mirror: bool) -> Camera:
    """Return the closed path of a scene, walked as often as the setting says."""
    setting = protocol.setting
    lap = trajectory(
        setting.path,
        scene.camera,
        setting.frames,
        typical_depth(scene),
        TrajectoryOptions(mirror=mirror, hw=scene.depth.shape),
    )
    order = np.concatenate(
        [np.arange(setting.frames), *[np.arange(1, setting.frames)] * (setting.laps - 1)]
    )
    return Camera(*(np.asarray(leaf)[order] for leaf in lap))
