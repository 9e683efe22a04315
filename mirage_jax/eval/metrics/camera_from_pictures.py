"""The camera of a generated frame, found in the picture by known geometry.

Each generated frame is compared with one true picture whose depth and camera are known: the true
frame at the same place of the path, or any other that shows the same things. SIFT features of both
(enlarged 4x, since small frames hold few) are matched over the whole picture, both ways and with
Lowe's ratio; matched points of the true picture are unprojected with its depth, and the camera that
sees them where the generated frame has them is solved for by RANSAC and refined (PnP of OpenCV). No
match is preferred for being near, so a frame that shows another place is not taken for the right
one; a picture without features has no camera, which is reported and never counted as good.

Conventions: OpenCV cameras, pixels with the centre of the top-left one at (0.5, 0.5), z-depth with
0 = unknown.
Read next: `camera.py` for the errors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from mirage_jax.geometry.camera import Camera, invert_rigid

_ENLARGE = 4
_RATIO = 0.85
_LEAST_POINTS = 12
_MOST_PIXELS = 1.5  # error of an inlier, in pixels of the frame
_FEATURES = 1500


class Features(NamedTuple):
    """Features of a picture.

    Attributes:
        spots: [n, 2] their pixel positions.
        values: [n, 128] unit vectors, alike where things look alike.
    """

    spots: Float[np.ndarray, "n 2"]
    values: Float[np.ndarray, "n 128"]


class Known(NamedTuple):
    """A picture with its geometry.

    Attributes:
        image: [H, W, 3] uint8.
        depth: [H, W] z-depth, 0 = unknown.
        camera: of the picture, intrinsics in its pixels.
        usable: [H, W] True where content stands still and is solid.
        features: of the picture, where they were found before.
    """

    image: UInt8[np.ndarray, "H W 3"]
    depth: Float[np.ndarray, "H W"]
    camera: Camera
    usable: Bool[np.ndarray, "H W"]
    features: Features | None = None


class Found(NamedTuple):
    """A camera found in a picture.

    Attributes:
        cam_to_world: [4, 4], or NaN where none was found.
        points: matched points that agree with it.
    """

    cam_to_world: Float[np.ndarray, "4 4"]
    points: int


def find_camera(
    picture: UInt8[np.ndarray, "H W 3"], known: Known, intrinsics: Float[Any, "3 3"]
) -> Found:
    """Find the camera that a picture was seen from.

    Args:
        picture: the generated frame.
        known: a true picture that shares content with it.
        intrinsics: of the generated frame, in pixels.

    Returns:
        The camera; NaN where fewer than 12 points agree.
    """
    of_known = picture_features(known.image) if known.features is None else known.features
    here, there = _matches(of_known, picture_features(picture))
    nothing = Found(np.full((4, 4), np.nan), 0)
    if len(here) < _LEAST_POINTS:
        return nothing
    points, solid = _points(here, known)
    if solid.sum() < _LEAST_POINTS:
        return nothing
    world, pixels = points[solid], there[solid]
    # Far from the world's origin single precision runs out: everything is about the known camera.
    origin = np.asarray(known.camera.cam_to_world, np.float64)[:3, 3]
    matrix = np.asarray(intrinsics, np.float64)
    cv2.setRNGSeed(0)
    done, turn, move, inliers = cv2.solvePnPRansac(
        world - origin,
        pixels,
        matrix,
        None,
        iterationsCount=500,
        reprojectionError=_MOST_PIXELS,
        confidence=0.999,
        flags=cv2.SOLVEPNP_SQPNP,
    )
    if not done or inliers is None or len(inliers) < _LEAST_POINTS:
        return nothing
    chosen = inliers[:, 0]
    turn, move = cv2.solvePnPRefineLM(
        (world - origin)[chosen], pixels[chosen], matrix, None, turn, move
    )
    world_to_cam = np.eye(4)
    world_to_cam[:3, :3] = cv2.Rodrigues(turn)[0]
    world_to_cam[:3, 3] = move[:, 0]
    camera = np.asarray(invert_rigid(world_to_cam), np.float64)
    camera[:3, 3] += origin
    return Found(camera, len(chosen))


def picture_features(picture: UInt8[np.ndarray, "H W 3"]) -> Features:
    """Return the SIFT features of a picture."""
    finder = cv2.SIFT.create(nfeatures=_FEATURES, contrastThreshold=0.02)
    gray = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    size = (gray.shape[1] * _ENLARGE, gray.shape[0] * _ENLARGE)
    keys, values = finder.detectAndCompute(
        cv2.resize(gray, size, interpolation=cv2.INTER_CUBIC), None
    )
    if values is None:
        return Features(np.zeros((0, 2)), np.zeros((0, 128), np.float32))
    # OpenCV counts from the centre of the first pixel, we from its corner.
    spots = (np.array([key.pt for key in keys]) + 0.5) / _ENLARGE
    return Features(spots, np.sqrt(values / np.maximum(values.sum(axis=1, keepdims=True), 1e-9)))


def _matches(a: Features, b: Features) -> tuple[np.ndarray, np.ndarray]:
    """Return pixel positions [n, 2] of features that are each other's best match."""
    if min(len(a.spots), len(b.spots)) < 2:
        return np.zeros((0, 2)), np.zeros((0, 2))
    likeness = a.values @ b.values.T
    forward, back = likeness.argmax(axis=1), likeness.argmax(axis=0)
    best = np.partition(likeness, -2, axis=1)[:, -2:]
    # Unit vectors: squared distance is 2 - 2 likeness.
    distance = np.sqrt(np.maximum(2.0 - 2.0 * best, 0.0))
    order = np.arange(len(forward))
    good = (back[forward] == order) & (distance[:, 1] < _RATIO * distance[:, 0])
    return a.spots[good], b.spots[forward[good]]


def _points(spots: np.ndarray, known: Known) -> tuple[np.ndarray, np.ndarray]:
    """Return world points [n, 3] of positions in a known picture, and where they can be trusted.

    A point on the edge of a thing may belong to either side, so all four pixels around it must be
    usable and agree in depth.
    """
    height, width = known.depth.shape
    corner = np.floor(spots - 0.5).astype(int)
    columns = np.clip(corner[:, 0, None] + [0, 1, 0, 1], 0, width - 1)
    rows = np.clip(corner[:, 1, None] + [0, 0, 1, 1], 0, height - 1)
    around = np.asarray(known.depth, np.float64)[rows, columns]
    usable = known.usable[rows, columns].all(axis=1) & (around > 0).all(axis=1)
    # A plane's inverse depth is linear in the picture, its depth is not.
    inverse = 1.0 / np.where(around > 0, around, 1.0)
    along = np.clip(spots - 0.5 - corner, 0.0, 1.0)
    weights = np.stack(
        [
            (1 - along[:, 0]) * (1 - along[:, 1]),
            along[:, 0] * (1 - along[:, 1]),
            (1 - along[:, 0]) * along[:, 1],
            along[:, 0] * along[:, 1],
        ],
        axis=1,
    )
    depth = 1.0 / np.sum(weights * inverse, axis=1)
    level = np.ptp(around, axis=1) < 0.2 * around.min(axis=1)
    matrix = np.asarray(known.camera.intrinsics, np.float64)
    y = (spots[:, 1] - matrix[1, 2]) / matrix[1, 1]
    x = (spots[:, 0] - matrix[0, 2] - matrix[0, 1] * y) / matrix[0, 0]
    local = np.stack([x, y, np.ones_like(x)], axis=1) * depth[:, None]
    camera = np.asarray(known.camera.cam_to_world, np.float64)
    return local @ camera[:3, :3].T + camera[:3, 3], usable & level
