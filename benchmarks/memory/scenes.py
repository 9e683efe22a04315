"""Points to remember and cameras to see them: a full frustum, one surface, a city of rooms.

Conventions: the grid is the release's 44x80 cells with 48 channels. Channel 0 of a token is the
number of its point, so that a read tells which point won whatever order a memory keeps; float32
holds such numbers exactly up to 2**24. World units are metres.

Read next: `stored.py` puts them into a memory.
"""

import functools
from typing import NamedTuple

import numpy as np

from mirage_jax.geometry.camera import Camera, camera_center
from mirage_jax.geometry.projection import camera_rays

GRID_HW = (44, 80)
CHANNELS = 48
_FOCAL = 60.0
_NEAR, _FAR = 1.0, 10.0
_DUPLICATES, _BEHIND, _OFF_SCREEN = 0.01, 0.02, 0.02
_ROOM = np.array([12.0, 9.0, 3.5])
_CENTER = np.array([3.0, -2.0, 1.5])


class Points(NamedTuple):
    """n points [n, 3] float32 and the camera [1] that sees them."""

    positions: np.ndarray
    camera: Camera


def frustum_volume(count: int, seed: int = 0) -> Points:
    """Fill the frustum evenly over cells and depth, with duplicates and points beside it.

    `count` points are in view. 1 % of them repeat others exactly; 2 % more are behind the camera
    and 2 % off the screen.
    """
    rng = np.random.default_rng(seed)
    height, width = GRID_HW
    beside = int(_BEHIND * count) + int(_OFF_SCREEN * count)
    u = rng.uniform(-0.5, width - 0.5, count + beside)
    v = rng.uniform(-0.5, height - 0.5, count + beside)
    z = rng.uniform(_NEAR, _FAR, count + beside)
    z[count : count + int(_BEHIND * count)] *= -1
    u[count + int(_BEHIND * count) :] += width * rng.choice((-1, 1))
    twins = rng.integers(0, count, (2, int(_DUPLICATES * count)))
    for axis in (u, v, z):
        axis[twins[0]] = axis[twins[1]]
    return Points(*_place(u, v, z, rng))


def single_surface(count: int, seed: int = 0) -> Points:
    """Spread points over one wavy surface that fills the view: nothing hides anything."""
    rng = np.random.default_rng(seed)
    height, width = GRID_HW
    u = rng.uniform(-0.5, width - 0.5, count)
    v = rng.uniform(-0.5, height - 0.5, count)
    z = 5 + np.sin(u / 9) + 0.7 * np.cos(v / 5)
    return Points(*_place(u, v, z, rng))


def cameras_along(camera: Camera, count: int) -> Camera:
    """Return cameras that move to the right from one camera, 2 cm apart."""
    poses = np.repeat(camera.cam_to_world, count, axis=0)
    poses[:, :3, 3] += 0.02 * np.arange(count, dtype=np.float32)[:, None] * poses[0, :3, 0]
    return Camera(poses, np.repeat(camera.intrinsics, count, axis=0))


def turned(camera: Camera, degrees: float) -> Camera:
    """Return one camera [1] turned about its own vertical axis."""
    angle = np.radians(degrees)
    turn = np.eye(4, dtype=np.float32)
    turn[0, 0] = turn[2, 2] = np.cos(angle)
    turn[0, 2], turn[2, 0] = np.sin(angle), -np.sin(angle)
    return Camera(camera.cam_to_world @ turn, camera.intrinsics)


def city_room(number: int, rows_each: int) -> np.ndarray:
    """Return points [n, 3] on the six sides of one room of a city, room 0 at the origin.

    Every room was looked at from its `room_camera` while turning round, so that this camera sees
    no hole in it. Rooms fill a quarter plane in growing squares, so that most of the city lies
    ahead of the camera in room 0, and all of it behind that room's own walls.
    """
    ring = int(np.sqrt(number))
    along = number - ring * ring
    place = (ring, along) if along <= ring else (2 * ring - along, ring)
    return (_first_room(rows_each) + np.array([*place, 0]) * (_ROOM + 0.4)).astype(np.float32)


def room_camera() -> Camera:
    """Return the camera [1] in room 0 that faces the city."""
    look = np.array([1.0, 0.8, 0.0]) / np.hypot(1.0, 0.8)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([(look[1], -look[0], 0.0), (0.0, 0.0, -1.0), look], axis=1)
    pose[:3, 3] = (3.0, 3.0, 1.6)
    return Camera(pose[None].astype(np.float32), _intrinsics()[None])


@functools.cache
def _first_room(rows: int) -> np.ndarray:
    frames = -(-rows // (GRID_HW[0] * GRID_HW[1]))
    views = [turned(room_camera(), 360 * i / frames) for i in range(frames)]
    return np.concatenate([_lift(view).reshape(-1, 3) for view in views])[:rows]


def _lift(camera: Camera) -> np.ndarray:
    """Return where the rays of a camera [1] in room 0 meet its walls: [1, h, w, 3]."""
    rays = camera_rays(camera, GRID_HW).astype(np.float64)
    origin = camera_center(camera)[:, None, None].astype(np.float64)
    with np.errstate(divide="ignore"):
        depth = np.where(rays > 0, (_ROOM - origin) / rays, -origin / rays)
    return origin + rays * depth.min(axis=-1, keepdims=True)


def tokens_of(first: int, count: int, channels: int = CHANNELS) -> np.ndarray:
    """Return tokens [n, c] float32 of points first..first+n-1; channel 0 is the point's number."""
    tokens = np.empty((count, channels), np.float32)
    tokens[:] = np.linspace(-1, 1, channels, dtype=np.float32)
    tokens[:, 0] = np.arange(first, first + count)
    return tokens


def _intrinsics() -> np.ndarray:
    height, width = GRID_HW
    return np.array([[_FOCAL, 0, width / 2], [0, _FOCAL, height / 2], [0, 0, 1]], np.float32)


def _place(
    u: np.ndarray, v: np.ndarray, z: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, Camera]:
    """Turn (column, row, depth) into world points of a camera that is not at the origin."""
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    matrix = _intrinsics().astype(np.float64)
    x, y = (u - matrix[0, 2]) / matrix[0, 0], (v - matrix[1, 2]) / matrix[1, 1]
    local = np.stack([x * z, y * z, z], axis=-1)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, _CENTER
    camera = Camera(pose[None].astype(np.float32), _intrinsics()[None])
    return (local @ rotation.T + _CENTER).astype(np.float32), camera
