"""Camera paths to walk: presets, and smooth interpolation of keyframes.

Conventions: a path is a ``Camera`` of float32 NumPy arrays with one entry per *video* frame; entry
0 is the start camera bit for bit, and paths that close end on it bit for bit. Lengths are fractions
of `depth_scale`, the scene's typical z-depth in scene units (``depth.depth_scale``), so that a path
fits scenes of any unit. Right is +x, down is +y, forward is +z of the start camera (OpenCV), or of
its levelled copy when an up direction is given.

Presets (A = amplitude, D = depth scale; starts and stops are eased):

* ``out-and-back``: turn right by the horizontal field of view + 22 degrees while moving 0.12 A D to
  the right and at most 0.08 A D forward, then exactly back; the farthest view shares nothing with
  the first. At 90 degrees and 49 frames the peak speed is 6.8 degrees a frame.
* ``orbit``: once around the point 0.35 A D ahead, facing it.
* ``loop``: walk a circle of radius 0.25 A D to the right, facing along it.
* ``look-around``: turn 45 A degrees right, through to 45 A degrees left, and back; no travel.
* ``forward, backward, left, right, up, down``: travel 0.3 A D without turning.
* ``turn-left, turn-right``: turn by 90 A degrees on the spot.
* ``static``: stay.

The first four close. Read next: ``keys.py`` (paths typed as keys), ``camera_files/``.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from mirage_jax.geometry.camera import Camera, validate_camera
from mirage_jax.geometry.easing import once_around, there_and_back
from mirage_jax.geometry.interpolation import interpolate_intrinsics, interpolate_matrices

# How far beyond the field of view out-and-back turns: clear of it even when edges are soft.
_TURN_MARGIN_DEGREES = 22.0
_SHORTEST_CLOSED = 8


@dataclasses.dataclass(frozen=True)
class TrajectoryOptions:
    """What may be changed about a preset.

    Attributes:
      amplitude: factor on lengths and angles; the turn of out-and-back keeps its angle.
      mirror: exchange left and right.
      turn_degrees: angle of out-and-back, look-around and turn-*; None for the preset's own.
      hold_frames: frames at the end of a closed path that already stand at the start camera, its
        last frame included. Four (one latent frame) let the last latent see a still camera.
      hw: image size (height, width) of the intrinsics, to know the field of view; None assumes a
        principal point in the middle.
      up: world direction that is up, about which to turn; None turns about the camera's own axis.
    """

    amplitude: float = 1.0
    mirror: bool = False
    turn_degrees: float | None = None
    hold_frames: int = 4
    hw: tuple[int, int] | None = None
    up: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.amplitude) and self.amplitude >= 0):
            raise ValueError(
                f"TrajectoryOptions.amplitude is out of range: got {self.amplitude}, expected a "
                "finite number of at least 0. Use mirror=True for the other side."
            )
        if self.hold_frames < 1:
            raise ValueError(
                f"TrajectoryOptions.hold_frames is out of range: got {self.hold_frames}, expected "
                "at least 1 (the last frame itself). The default is 4."
            )
        if self.turn_degrees is not None and not 0 < self.turn_degrees <= 360:
            raise ValueError(
                f"TrajectoryOptions.turn_degrees is out of range: got {self.turn_degrees}, "
                "expected degrees in (0, 360]. Use mirror=True for the other side."
            )


@dataclasses.dataclass(frozen=True)
class Motion:
    """A path relative to its start: angles in radians, positions in units of the depth scale.

    Attributes:
      yaw: [f], positive to the right.
      pitch: [f], positive upwards.
      position: [f, 3] right, down, forward of the start.
    """

    yaw: Float[Any, "f"]
    pitch: Float[Any, "f"]
    position: Float[Any, "f 3"]


@dataclasses.dataclass(frozen=True)
class _Request:
    """What a preset needs to know: frames, options and the start's horizontal half angles."""

    frames: int
    options: TrajectoryOptions
    half_angles: tuple[float, float]

    def turn(self, preset_degrees: float) -> float:
        """Return the angle to turn, in radians."""
        if self.options.turn_degrees is not None:
            return math.radians(self.options.turn_degrees)
        return math.radians(preset_degrees)


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
            f"trajectory: unknown preset; got {name!r}, expected one of {', '.join(PRESETS)}. For "
            'keys such as "w*16 l*24" use keys.trajectory_from_keys, for files load_cameras.'
        )
    shortest = _SHORTEST_CLOSED + options.hold_frames if name in CLOSED_PRESETS else 2
    if frames < shortest and name != "static":
        raise ValueError(
            f"trajectory: too few frames for {name}: got {frames}, expected at least {shortest}. "
            "Ask for more frames, or for a shorter hold."
        )
    start = check_start(start, frames, depth_scale)
    request = _Request(frames, options, _half_angles(start, options.hw))
    return follow(PRESETS[name](request), start, depth_scale, options)


def check_start(start: Camera, frames: int, depth_scale: float) -> Camera:
    """Check what every path starts from; return the start camera in float32."""
    start = validate_camera(start, "start")
    if start.cam_to_world.ndim != 2:
        raise ValueError(
            f"start must be a single camera: got cam_to_world of shape {start.cam_to_world.shape}, "
            "expected (4, 4). Take one with index_camera(camera, 0)."
        )
    if frames < 1:
        raise ValueError(f"frames is out of range: got {frames}, expected at least 1.")
    if not (math.isfinite(depth_scale) and depth_scale > 0):
        raise ValueError(
            f"depth_scale is out of range: got {depth_scale}, expected a positive finite distance "
            "in scene units. Use the median depth of the first frame."
        )
    return Camera(start.cam_to_world.astype(np.float32), start.intrinsics.astype(np.float32))


def follow(motion: Motion, start: Camera, depth_scale: float, options: TrajectoryOptions) -> Camera:
    """Carry out a motion from a start camera; frames that do not differ from it keep its bits."""
    side = -1.0 if options.mirror else 1.0
    yaw, pitch = side * motion.yaw, motion.pitch
    position = motion.position * np.array([side, 1.0, 1.0])
    basis = _level_basis(start, options.up)
    turn = Rotation.from_rotvec(np.outer(yaw, [0.0, 1.0, 0.0])).as_matrix()
    # Pitch is about the camera's own x axis, hence applied first.
    tilt = Rotation.from_rotvec(np.outer(pitch, [1.0, 0.0, 0.0])).as_matrix()
    pose = start.cam_to_world.astype(np.float64)
    path = np.tile(pose, (len(yaw), 1, 1))
    path[:, :3, :3] = pose[:3, :3] @ basis @ turn @ basis.T @ tilt
    path[:, :3, 3] += depth_scale * position @ (pose[:3, :3] @ basis).T
    still = (yaw == 0) & (pitch == 0) & (position == 0).all(axis=-1)
    cam_to_world = path.astype(np.float32)
    cam_to_world[still] = start.cam_to_world
    return Camera(cam_to_world, np.tile(start.intrinsics, (len(yaw), 1, 1)))


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


def _half_angles(start: Camera, hw: tuple[int, int] | None) -> tuple[float, float]:
    """Return the angles from the optical axis to the left and right image edge, in radians."""
    focal, center = float(start.intrinsics[0, 0]), float(start.intrinsics[0, 2])
    width = 2 * center if hw is None else hw[1]
    if not 0 < center < width:
        raise ValueError(
            f"start.intrinsics has its principal point outside the image: got cx = {center} for a "
            f"width of {width}, expected 0 < cx < width. Give intrinsics in pixels of options.hw."
        )
    return math.atan(center / focal), math.atan((width - center) / focal)


def _level_basis(start: Camera, up: tuple[float, float, float] | None) -> np.ndarray:
    """Return the 3x3 columns right, down, forward of the walker, in the start camera's frame."""
    if up is None:
        return np.eye(3)
    down = -start.cam_to_world[:3, :3].astype(np.float64).T @ np.asarray(up, dtype=np.float64)
    length = np.linalg.norm(down)
    forward = np.array([0.0, 0.0, 1.0])
    if length > 0:
        down = down / length
        forward = forward - down * down[2]
    if length == 0 or not np.isfinite(length) or np.linalg.norm(forward) < 1e-3:
        raise ValueError(
            f"TrajectoryOptions.up is unusable: got {up}, expected a direction other than zero and "
            "not along the start camera's view. Pass None to turn about the camera's own axis."
        )
    forward = forward / np.linalg.norm(forward)
    return np.stack([np.cross(down, forward), down, forward], axis=-1)


def _motion(yaw: np.ndarray, right: Any = 0.0, down: Any = 0.0, forward: Any = 0.0) -> Motion:
    """Build a motion without pitch from a yaw and three coordinates, each [f] or constant."""
    axes = np.broadcast_arrays(yaw, right, down, forward)[1:]
    return Motion(yaw, np.zeros_like(yaw), np.stack(axes, axis=-1).astype(np.float64))


def _out_and_back(request: _Request) -> Motion:
    left, right = request.half_angles
    turn = request.turn(math.degrees(left + right) + _TURN_MARGIN_DEGREES)
    way = there_and_back(request.frames, request.options.hold_frames)
    sideways = 0.12 * request.options.amplitude
    # Going forward carries points past the edge of the first view towards the last one; going
    # sideways carries them away. This bound makes the second win for every depth.
    ahead = min(0.08 * request.options.amplitude, sideways / math.tan(max(left, right)))
    return _motion(turn * way, right=sideways * way, forward=ahead * way)


def _angle_around(request: _Request) -> np.ndarray:
    """Return a full turn [f] whose end is exactly zero again."""
    way = once_around(request.frames, request.options.hold_frames)
    return 2 * np.pi * np.where(way == 1, 0.0, way)


def _orbit(request: _Request) -> Motion:
    angle, radius = _angle_around(request), 0.35 * request.options.amplitude
    # Moving right around a point ahead means turning left to keep facing it.
    return _motion(-angle, right=radius * np.sin(angle), forward=radius * (1 - np.cos(angle)))


def _loop(request: _Request) -> Motion:
    angle, radius = _angle_around(request), 0.25 * request.options.amplitude
    return _motion(angle, right=radius * (1 - np.cos(angle)), forward=radius * np.sin(angle))


def _look_around(request: _Request) -> Motion:
    turn = request.turn(45.0 * request.options.amplitude)
    return _motion(turn * np.sin(_angle_around(request)))


def _travel(axis: int, sign: float) -> Callable[[_Request], Motion]:
    def preset(request: _Request) -> Motion:
        position = np.zeros((request.frames, 3))
        way = once_around(request.frames, 1)
        position[:, axis] = sign * 0.3 * request.options.amplitude * way
        return Motion(np.zeros(request.frames), np.zeros(request.frames), position)

    return preset


def _turn(sign: float) -> Callable[[_Request], Motion]:
    def preset(request: _Request) -> Motion:
        angle = request.turn(90.0 * request.options.amplitude)
        return _motion(sign * angle * once_around(request.frames, 1))

    return preset


def _static(request: _Request) -> Motion:
    return _motion(np.zeros(request.frames))


PRESETS: dict[str, Callable[[_Request], Motion]] = {
    "out-and-back": _out_and_back,
    "orbit": _orbit,
    "loop": _loop,
    "look-around": _look_around,
    "forward": _travel(2, 1.0),
    "backward": _travel(2, -1.0),
    "left": _travel(0, -1.0),
    "right": _travel(0, 1.0),
    "up": _travel(1, -1.0),
    "down": _travel(1, 1.0),
    "turn-left": _turn(-1.0),
    "turn-right": _turn(1.0),
    "static": _static,
}
CLOSED_PRESETS = frozenset({"out-and-back", "orbit", "loop", "look-around"})
