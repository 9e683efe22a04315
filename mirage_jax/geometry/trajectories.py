"""Camera paths to walk: presets by name, and smooth interpolation of keyframes.

Conventions: a path is a ``Camera`` of float32 NumPy arrays with one entry per *video* frame; entry
0 is the start camera bit for bit, and paths that close end on it bit for bit. Lengths are fractions
of `depth_scale`, the scene's typical z-depth in scene units (``depth.depth_scale``), so that a path
fits scenes of any unit.

Read next: ``presets.py`` and ``presets_of_peers.py`` (what the names do), ``keys.py`` (paths typed
as keys), ``camera_files/``.
"""

import numpy as np

from mirage_jax.geometry.camera import Camera, validate_camera
from mirage_jax.geometry.interpolation import interpolate_intrinsics, interpolate_matrices
from mirage_jax.geometry.motion import (
    Request,
    TrajectoryOptions,
    check_start,
    follow,
    half_angles,
)
from mirage_jax.geometry.presets import CLOSED_PRESETS, OWN_PRESETS
from mirage_jax.geometry.presets_of_peers import PEER_PRESETS

__all__ = [
    "CLOSED_PRESETS",
    "OWN_PRESETS",
    "PRESETS",
    "TrajectoryOptions",
    "interpolate_cameras",
    "trajectory",
]

PRESETS = {**OWN_PRESETS, **PEER_PRESETS}
_SHORTEST_CLOSED = 8


def trajectory(
    name: str,
    start: Camera,
    frames: int,
    depth_scale: float,
    options: TrajectoryOptions | None = None,
) -> Camera:
    """Return the preset path `name`, one camera per video frame.

    No collision is looked for: the path is sized by `depth_scale` alone.

    Args:
      name: one of ``PRESETS``.
      start: a single camera ([4, 4] and [3, 3]).
      frames: number of video frames, the start included.
      depth_scale: typical z-depth of the scene in scene units, e.g. its median.
      options: amplitude, side, hold and so on; None for the defaults.

    Returns:
      Cameras [f], float32; frame 0 equals `start` bit for bit, and so does the last frame of
      out-and-back, orbit, loop, look-around and static.

    Raises:
      ValueError: unknown name, too few frames, a depth scale that is not positive, a bad camera.
    """
    options = options or TrajectoryOptions()
    if name not in PRESETS:
        raise ValueError(
            f"trajectory: unknown preset; got {name!r}, expected one of {', '.join(OWN_PRESETS)}, "
            "or a peer's (mirage cameras presets lists them). For "
            'keys such as "w*16 l*24" use keys.trajectory_from_keys, for files load_cameras.'
        )
    shortest = _SHORTEST_CLOSED + options.hold_frames if name in CLOSED_PRESETS else 2
    if frames < shortest and name != "static":
        raise ValueError(
            f"trajectory: too few frames for {name}: got {frames}, expected at least {shortest}. "
            "Ask for more frames, or for a shorter hold."
        )
    start = check_start(start, frames, depth_scale)
    request = Request(frames, options, half_angles(start, options.hw), depth_scale)
    return follow(PRESETS[name](request), start, depth_scale, options)


def interpolate_cameras(keyframes: Camera, frames: int) -> Camera:
    """Pass smoothly through keyframes that are evenly spaced in time.

    Positions and intrinsics follow a shape-preserving cubic (no overshoot), rotations a spline with
    continuous angular acceleration (slerp between two keyframes).

    Args:
      keyframes: cameras [k], k >= 1.
      frames: number of frames to return.

    Returns:
      Cameras [f], float32; the first and last equal the first and last keyframe bit for bit.
    """
    keyframes = validate_camera(keyframes, "keyframes")
    poses, intrinsics = keyframes
    if poses.ndim != 3:
        raise ValueError(
            f"keyframes must be a sequence of cameras: got cam_to_world of shape {poses.shape}, "
            "expected [k, 4, 4]. Stack single cameras with stack_cameras."
        )
    if frames < 1:
        raise ValueError(f"frames is out of range: got {frames}, expected at least 1.")
    knots = np.arange(len(poses), dtype=np.float64)
    times = np.linspace(0.0, max(len(poses) - 1, 1), frames)
    path = interpolate_matrices(poses, knots, times)
    matrices = interpolate_intrinsics(intrinsics, knots, times)
    return Camera(path.astype(np.float32), matrices.astype(np.float32))
