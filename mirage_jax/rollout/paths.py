"""What `--path` may say: a preset, keys to press, a camera file, or the scene's own recorded path.

Every path starts at the scene's camera; a camera file is moved so that its first camera does.
Lengths of presets and keys follow the scene's typical depth. Frame counts are rounded up to
whole groups by standing still at the end.
Read next: `mirage_jax/geometry/trajectories.py`, `mirage_jax/geometry/keys.py`,
`mirage_jax/geometry/camera_files/`.
"""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from mirage_jax.geometry.camera import Camera, compose, invert_rigid, rescale_intrinsics
from mirage_jax.geometry.camera_files import Reading, load_cameras
from mirage_jax.geometry.depth import depth_scale
from mirage_jax.geometry.keys import trajectory_from_keys
from mirage_jax.geometry.trajectories import (
    OWN_PRESETS,
    PRESETS,
    TrajectoryOptions,
    interpolate_cameras,
    trajectory,
)
from mirage_jax.rollout.plan import round_up_frames
from mirage_jax.rollout.scene import Scene
from mirage_jax.world_model import FAR

RECORDED = "recorded"
_AS_THE_FORMAT_SAYS = Reading()
_KEY_CHARACTERS = set("wsadijklqeuo.*0123456789 ")


class ResolvedPath(NamedTuple):
    """A path as it will be walked.

    Attributes:
        cameras: [f] in pixels of the scene.
        notes: what the user should be told about them.
        recorded: [f] which frame of the scene's recording each camera is; None for other paths.
    """

    cameras: Camera
    notes: tuple[str, ...]
    recorded: Int[np.ndarray, " f"] | None = None


def resolve_path(
    text: str,
    scene: Scene,
    frames: int | None,
    *,
    default_frames: int,
    temporal_stride: int = 4,
    reading: Reading = _AS_THE_FORMAT_SAYS,
    smooth: bool = False,
) -> ResolvedPath:
    """Turn `--path` and `--frames` into cameras.

    Args:
        text: name of a preset, "recorded", keys such as "w*16 l*24", or a camera file.
        scene: where it starts, at the world's frame size.
        frames: video frames wanted; None takes the path's own length, or the default for presets.
        default_frames: length of presets.
        temporal_stride: the codec's; the length is rounded up to 1 + stride * n.
        reading: answers to what a camera file leaves open.
        smooth: the cameras of a file are keyframes: pass through them in the frames wanted.

    Returns:
        One camera for each frame, and notes on anything that was changed.

    Raises:
        ValueError: nothing is known by that name, or the cameras do not hold.
    """
    if text in PRESETS:
        wanted = round_up_frames(frames or default_frames, temporal_stride)
        options = TrajectoryOptions(hw=scene.depth.shape)
        cameras = trajectory(text, scene.camera, wanted, typical_depth(scene), options)
        return _with_length(cameras, frames or default_frames, temporal_stride)
    if text == RECORDED:
        if scene.path is None:
            raise ValueError(
                f"--path: got 'recorded' but the scene {scene.name!r} holds one camera, expected a "
                f"geometry.npz with a path; choose one of {', '.join(OWN_PRESETS)}"
            )
        cameras = scene.path
    elif Path(text).is_file() or (Path(text).is_dir() and not set(text) <= _KEY_CHARACTERS):
        cameras = _from_file(Path(text), scene, reading)
        if smooth:
            wanted = round_up_frames(frames or default_frames, temporal_stride)
            cameras = interpolate_cameras(cameras, wanted)
    elif set(text) <= _KEY_CHARACTERS:
        cameras = trajectory_from_keys(text, scene.camera, typical_depth(scene))
    else:
        raise ValueError(
            f'--path: got {text!r}, expected a preset, keys such as "w*16 l*24", or an existing '
            f"camera file; {_hint(text)}"
        )
    walked = _with_length(cameras, frames or len(cameras.cam_to_world), temporal_stride)
    if text != RECORDED:
        return walked
    order = np.minimum(np.arange(len(walked.cameras.cam_to_world)), len(cameras.cam_to_world) - 1)
    return walked._replace(recorded=order)


def _hint(text: str) -> str:
    """Return what may have been meant by a name that nothing has."""
    if near := difflib.get_close_matches(text, PRESETS, n=1):
        return f"did you mean {near[0]!r}?"
    return f"presets: {', '.join(OWN_PRESETS)}, {RECORDED}; more: mirage cameras presets"


def typical_depth(scene: Scene) -> float:
    """Return the median z-depth of a scene, sky left out unless there is nothing else."""
    depth = np.asarray(scene.depth)
    near = np.where(depth < FAR, depth, 0.0)
    return depth_scale(near if near.any() else depth)


def closes(cameras: Camera, tolerance: float = 1e-4) -> bool:
    """Return True if the path moves and its last camera stands where the first did."""
    first, last = cameras.cam_to_world[0], cameras.cam_to_world[-1]
    steps = np.diff(cameras.cam_to_world[:, :3, 3], axis=0)
    length = float(np.linalg.norm(steps, axis=-1).sum())
    near = np.linalg.norm(first[:3, 3] - last[:3, 3]) <= tolerance * max(length, 1.0)
    moved = np.abs(cameras.cam_to_world - first).max() > tolerance
    return bool(near and np.abs(first[:3, :3] - last[:3, :3]).max() <= tolerance and moved)


def _from_file(path: Path, scene: Scene, reading: Reading) -> Camera:
    """Read cameras, move them to the scene's start; files without intrinsics get the scene's."""
    intrinsics = np.asarray(scene.camera.intrinsics)
    # Which world a transforms.json is in does not matter: the path is moved to the scene.
    reading = dataclasses.replace(reading, world=reading.world or "original")
    cameras, hw = load_cameras(path, intrinsics, reading)
    if hw is not None and hw != scene.depth.shape:
        cameras = cameras._replace(
            intrinsics=rescale_intrinsics(cameras.intrinsics, hw, scene.depth.shape)
        )
    move = compose(np.asarray(scene.camera.cam_to_world), invert_rigid(cameras.cam_to_world[0]))
    moved = compose(move[None], cameras.cam_to_world)
    # The start is the scene's camera to the last bit, so that a path which closes still does.
    same = np.all(cameras.cam_to_world == cameras.cam_to_world[:1], axis=(1, 2))
    moved = np.where(same[:, None, None], np.asarray(scene.camera.cam_to_world), moved)
    return cameras._replace(cam_to_world=moved.astype(np.float32))


def _with_length(cameras: Camera, frames: int, stride: int) -> ResolvedPath:
    """Cut the path, or stand still at its end, to have `frames` rounded up."""
    have, wanted = len(cameras.cam_to_world), round_up_frames(frames, stride)
    notes = []
    if wanted != frames:
        notes.append(f"{frames} frames rounded up to {wanted}: the codec makes 1 + {stride}n")
    if have < frames:
        notes.append(
            f"the path has {have} cameras: standing still at its end for {wanted - have} frames"
        )
    order = np.minimum(np.arange(wanted), have - 1)
    return ResolvedPath(
        Camera(*(np.asarray(leaf, np.float32)[order] for leaf in cameras)), tuple(notes)
    )
