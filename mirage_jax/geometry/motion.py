"""What a camera path is before it has a start: angles, positions and zoom, and how it is followed.

Conventions: right is +x, down is +y, forward is +z of the start camera (OpenCV), or of its levelled
copy when an up direction is given. Lengths are in units of the scene's typical depth.

Read next: ``presets.py``, ``presets_of_peers.py``, ``trajectories.py``.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from mirage_jax.geometry.camera import Camera, validate_camera


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
      speed: WorldScore's camera speed in scene units, for its presets; None for 0.3 A D.
    """

    amplitude: float = 1.0
    mirror: bool = False
    turn_degrees: float | None = None
    hold_frames: int = 4
    hw: tuple[int, int] | None = None
    up: tuple[float, float, float] | None = None
    speed: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.amplitude) and self.amplitude >= 0):
            raise ValueError(
                f"TrajectoryOptions.amplitude is out of range: got {self.amplitude}, expected a "
                "finite number of at least 0. Use mirror=True for the other side."
            )
        if self.speed is not None and not (math.isfinite(self.speed) and self.speed > 0):
            raise ValueError(
                f"TrajectoryOptions.speed is out of range: got {self.speed}, expected a positive "
                "distance in scene units. WorldScore's own is 1."
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
      rotation: [f, 3, 3] further turns of the walker, between yaw and pitch; None for none.
      zoom: [f] factors on the focal lengths; None for 1.
    """

    yaw: Float[np.ndarray, " f"]
    pitch: Float[np.ndarray, " f"]
    position: Float[np.ndarray, "f 3"]
    rotation: Float[np.ndarray, "f 3 3"] | None = None
    zoom: Float[np.ndarray, " f"] | None = None


@dataclasses.dataclass(frozen=True)
class Request:
    """What a preset needs to know.

    Attributes:
      frames: how many.
      options: of the caller.
      half_angles: of the start, from the optical axis to the left and right edge, radians.
      depth_scale: of the scene, scene units.
    """

    frames: int
    options: TrajectoryOptions
    half_angles: tuple[float, float]
    depth_scale: float = 1.0

    def turn(self, preset_degrees: float) -> float:
        """Return the angle to turn, in radians."""
        if self.options.turn_degrees is not None:
            return math.radians(self.options.turn_degrees)
        return math.radians(preset_degrees)


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
    still = (yaw == 0) & (pitch == 0) & (position == 0).all(axis=-1)
    if motion.rotation is not None:
        mirror = np.diag([side, 1.0, 1.0])
        turn = turn @ mirror @ motion.rotation @ mirror
        still &= (motion.rotation == np.eye(3)).all(axis=(1, 2))
    # Pitch is about the camera's own x axis, hence applied first.
    tilt = Rotation.from_rotvec(np.outer(pitch, [1.0, 0.0, 0.0])).as_matrix()
    pose = start.cam_to_world.astype(np.float64)
    path = np.tile(pose, (len(yaw), 1, 1))
    path[:, :3, :3] = pose[:3, :3] @ basis @ turn @ basis.T @ tilt
    path[:, :3, 3] += depth_scale * position @ (pose[:3, :3] @ basis).T
    cam_to_world = path.astype(np.float32)
    cam_to_world[still] = start.cam_to_world
    intrinsics = np.tile(start.intrinsics, (len(yaw), 1, 1))
    if motion.zoom is not None:
        intrinsics[:, :2, :2] *= motion.zoom[:, None, None].astype(np.float32)
    return Camera(cam_to_world, intrinsics)


def facing(
    position: Float[np.ndarray, "f 3"], target: Float[np.ndarray, "*f 3"]
) -> Float[np.ndarray, "f 3 3"]:
    """Return the walker's turns that look from each position to a target, without roll."""
    forward = target - position
    forward = forward / np.linalg.norm(forward, axis=-1, keepdims=True)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right = right / np.linalg.norm(right, axis=-1, keepdims=True)
    return np.stack([right, np.cross(forward, right), forward], axis=-1)


def half_angles(start: Camera, hw: tuple[int, int] | None) -> tuple[float, float]:
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
