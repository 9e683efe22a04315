"""What is drawn of a memory: points with colours, cameras, and from where to look at them.

Conventions: everything is turned so that the cameras' mean up direction is +z; without cameras the
world's own z is up. Nothing here draws. Read next: `memory_view.py`.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, UInt8
from scipy.spatial import cKDTree

from mirage_jax.geometry.camera import Camera, camera_center

# Points above the highest eye by more than this share of the scene's height are left out.
_ABOVE_EYES = 0.05
_ELEVATION_DEGREES = 42.0
# Points that tell a surface's direction, and half a tile's side over their spread: on a regular
# grid tiles then just meet.
_NEIGHBOURS = 10
_CLOSING = 0.72
# A surface is a floor or a ceiling where its normal is this close to upright.
_LEVEL = 0.75


@dataclasses.dataclass(frozen=True)
class DrawnScene:
    """Points and cameras in a world whose +z is up.

    Attributes:
        points: [n, 3] that are drawn, scene units.
        colors: [n, 3] in 0..1.
        tiles: [n, 2, 3] half sides of the tile that stands for a point, along the surface.
        cameras: [f], which may be none.
        image_hw: size of the image that the intrinsics belong to.
        hidden: points left out because they are above the eyes.
    """

    points: Float[np.ndarray, "n 3"]
    colors: Float[np.ndarray, "n 3"]
    tiles: Float[np.ndarray, "n 2 3"]
    cameras: Camera
    image_hw: tuple[int, int]
    hidden: int

    @property
    def centers(self) -> Float[np.ndarray, "f 3"]:
        """Places of the cameras."""
        return camera_center(self.cameras)

    def tile_corners(self) -> Float[np.ndarray, "n 4 3"]:
        """Return the four corners of each point's tile, in turn."""
        signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float)
        return self.points[:, None] + np.einsum("kt,nti->nki", signs, self.tiles)

    def extent(self) -> Float[np.ndarray, "2 3"]:
        """Return the least and greatest corner of points and cameras; far strays do not count."""
        low, high = np.percentile(self.points, (0.5, 99.5), axis=0)
        both = np.concatenate([[low, high], self.centers])
        return np.stack([both.min(0), both.max(0)])

    def camera_scale(self) -> float:
        """Return how deep frusta are drawn, scene units."""
        low, high = self.extent()
        return 0.05 * float(np.linalg.norm((high - low)[:2]))


@dataclasses.dataclass(frozen=True)
class OrbitView:
    """A perspective camera looking down at a scene: rows right, up, back, and where it is."""

    axes: Float[np.ndarray, "3 3"]
    place: Float[np.ndarray, " 3"]

    def project(
        self, points: Float[np.ndarray, "n 3"]
    ) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, " n"]]:
        """Return picture coordinates (unit focal length, y up) and depth."""
        local = (np.asarray(points) - self.place) @ self.axes.T
        depth = np.maximum(-local[:, 2], 1e-6)
        return local[:, :2] / depth[:, None], depth


def drawn_scene(
    positions: Float[np.ndarray, "n 3"],
    depth: Float[np.ndarray, " n"],
    colors: UInt8[np.ndarray, "n 3"],
    cameras: Camera | None,
    image_hw: tuple[int, int] = (1, 1),
    hide_above: bool = True,
) -> DrawnScene:
    """Turn a memory's rows and cameras upright and leave out what hides the rest.

    Args:
        positions: world points.
        depth: z-depth each was seen at: how coarse the grid was there.
        colors: of each.
        cameras: [f], or None.
        image_hw: size of the image that the cameras' intrinsics belong to.
        hide_above: leave out what is above the eyes.

    Raises:
        ValueError: there are no points.
    """
    if not len(positions):
        raise ValueError("view: the memory holds no rows, so there is nothing to draw.")
    if cameras is None:
        cameras = Camera(np.zeros((0, 4, 4)), np.zeros((0, 3, 3)))
    turn = _upright(cameras)
    poses = np.array(cameras.cam_to_world, np.float64)
    poses[:, :3] = turn @ poses[:, :3]
    upright = Camera(poses, np.asarray(cameras.intrinsics, np.float64))
    points = positions.astype(np.float64) @ turn.T
    eyes = camera_center(upright)[:, 2]
    shown = _below_eyes(points[:, 2], eyes if hide_above else eyes[:0])
    return DrawnScene(
        points=points[shown],
        colors=colors[shown] / 255.0,
        tiles=_tiles(points, depth)[shown],
        cameras=upright,
        image_hw=image_hw,
        hidden=int((~shown).sum()),
    )


def orbit_view(scene: DrawnScene) -> OrbitView:
    """Return a view from above and behind the cameras' mean direction, or from the south."""
    low, high = scene.extent()
    target = (low + high) / 2
    forward = np.array([0.0, 1.0])
    if len(scene.centers):
        forward = scene.cameras.cam_to_world[:, :2, 2].mean(0)
        length = np.linalg.norm(forward)
        forward = forward / length if length > 1e-6 else np.array([0.0, 1.0])
    lift = np.radians(_ELEVATION_DEGREES)
    back = np.array([*(-forward * np.cos(lift)), np.sin(lift)])
    right = np.array([forward[1], -forward[0], 0.0])
    distance = 1.5 * np.linalg.norm((high - low)[:2])
    return OrbitView(np.stack([right, np.cross(back, right), back]), target + distance * back)


def frustum_edges(
    cameras: Camera, index: int, image_hw: tuple[int, int], depth: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the eight edges of one camera's pyramid, as pairs of world points."""
    pose, matrix = cameras.cam_to_world[index], cameras.intrinsics[index]
    height, width = image_hw
    pixels = np.array([(0, 0, 1), (width, 0, 1), (width, height, 1), (0, height, 1)], float)
    rays = pixels @ np.linalg.inv(matrix).T
    corners = pose[:3, 3] + depth * rays @ pose[:3, :3].T
    sides = [(pose[:3, 3], corner) for corner in corners]
    return sides + [(corners[i], corners[(i + 1) % 4]) for i in range(4)]


def _upright(cameras: Camera) -> Float[np.ndarray, "3 3"]:
    """Return the smallest rotation that brings the cameras' mean up direction to +z."""
    if not len(cameras.cam_to_world):
        return np.eye(3)
    up = -np.asarray(cameras.cam_to_world, np.float64)[:, :3, 1].mean(0)
    up /= max(np.linalg.norm(up), 1e-9)
    axis, cosine = np.cross(up, (0, 0, 1)), up[2]
    if cosine < -1 + 1e-9:
        return np.diag([1.0, -1.0, -1.0])
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + cross + cross @ cross / (1 + cosine)


def _below_eyes(height: Float[np.ndarray, " n"], eyes: Float[np.ndarray, " f"]) -> np.ndarray:
    if not len(eyes):
        return np.ones(len(height), bool)
    margin = _ABOVE_EYES * float(np.ptp(height))
    shown = height <= eyes.max() + margin
    # A camera that looks at nothing but what is above it still gets a picture.
    return shown if shown.mean() > 0.1 else np.ones(len(height), bool)


def _tiles(
    points: Float[np.ndarray, "n 3"], depth: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n 2 3"]:
    """Return half sides of tiles that follow the surface through each point's neighbours.

    The neighbours' flattest direction is the tile's normal. Its sides are level and upright on a
    wall, along the axes on a floor, and as long as the neighbours spread that way, so that a floor
    seen at a grazing angle gets long tiles. The depth a point was seen at bounds them, so that
    strays do not become walls.
    """
    count = min(_NEIGHBOURS, len(points))
    if count < 4:
        return np.broadcast_to(0.1 * np.eye(3)[:2], (len(points), 2, 3))
    _, near = cKDTree(points).query(points, k=count)
    offsets = points[near] - points[near].mean(axis=1, keepdims=True)
    spread = np.einsum("nki,nkj->nij", offsets, offsets) / count
    normal = np.linalg.eigh(spread)[1][:, :, 0]
    floor = np.abs(normal[:, 2:]) > _LEVEL
    along = np.cross(normal, np.where(floor, (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
    along /= np.maximum(np.linalg.norm(along, axis=-1, keepdims=True), 1e-9)
    axes = np.stack([along, np.cross(normal, along)], axis=1)
    sides = np.sqrt(np.maximum(np.einsum("nti,nij,ntj->nt", axes, spread, axes), 0))
    typical = np.median(sides / np.maximum(depth, 1e-9)[:, None]) * depth[:, None]
    return _CLOSING * np.clip(sides, 0.6 * typical, 1.8 * typical)[..., None] * axes
