"""Smooth camera paths through given cameras: between keyframes, and at other times.

Conventions: NumPy float64 on the host. Rotations follow a spline with continuous angular velocity
and acceleration (the geodesic between two), positions and intrinsics a shape-preserving cubic,
which does not overshoot: a camera that stands still between two keyframes stays where it is.

Read next: ``trajectories.py``, ``camera_files/camera_path.py``.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation, RotationSpline, Slerp

from mirage_jax.geometry.camera_files.camera_path import CameraPath

_MOST_FRAMES = 1_000_000


def interpolate_matrices(
    cam_to_world: Float[Any, "k 4 4"], knots: Float[Any, " k"], times: Float[Any, " f"]
) -> Float[np.ndarray, "f 4 4"]:
    """Return rigid transforms at `times`, which lie within the increasing `knots`.

    At a knot itself the given matrix comes back bit for bit.
    """
    given = np.asarray(cam_to_world, np.float64)
    path = np.tile(np.eye(4), (len(times), 1, 1))
    if len(given) == 1:
        path[:] = given[0]
        return path
    turning = (Slerp if len(given) == 2 else RotationSpline)(
        knots, Rotation.from_matrix(given[:, :3, :3])
    )
    path[:, :3, :3] = turning(times).as_matrix()
    path[:, :3, 3] = PchipInterpolator(knots, given[:, :3, 3])(times)
    return _exact_at_knots(path, given, knots, times)


def interpolate_intrinsics(
    intrinsics: Float[Any, "k 3 3"], knots: Float[Any, " k"], times: Float[Any, " f"]
) -> Float[np.ndarray, "f 3 3"]:
    """Return intrinsics at `times`; at a knot itself those given."""
    given = np.asarray(intrinsics, np.float64)
    if len(given) == 1 or (given == given[:1]).all():
        return np.tile(given[0], (len(times), 1, 1))
    return _exact_at_knots(PchipInterpolator(knots, given)(times), given, knots, times)


def resample(path: CameraPath, frames: int | None = None, fps: float | None = None) -> CameraPath:
    """Return a path at evenly spaced times; give `frames` or `fps`.

    Args:
      path: cameras; where their times are not known they are taken as evenly spaced.
      frames: how many cameras to return; the first and last are kept bit for bit.
      fps: cameras a second; the last one is the last time that the path still reaches.

    Returns:
      The path with its new times; names are dropped, since frames are other ones.

    Raises:
      ValueError: neither or both given, out of range, or times that do not increase.
    """
    if (frames is None) == (fps is None):
        raise ValueError("resample: give either frames or fps. Got neither or both.")
    knots = path.seconds
    if (np.diff(knots) <= 0).any():
        index = int(np.argmax(np.diff(knots) <= 0))
        raise ValueError(
            f"resample: times must increase: got {knots[index]:g} then {knots[index + 1]:g} at "
            f"frames {index} and {index + 1}. Sort the cameras, or drop those of equal time."
        )
    if fps is not None:
        length = (knots[-1] - knots[0]) * fps
        if not (fps > 0 and length < _MOST_FRAMES):
            raise ValueError(
                f"resample: fps is out of range: got {fps:g}, expected a positive number that "
                f"makes at most {_MOST_FRAMES:,} frames."
            )
        # Times in a file are rounded: a last frame that is missed by a hair is meant.
        times = np.minimum(knots[0] + np.arange(int(length + 1e-3) + 1) / fps, knots[-1])
    elif frames is None or not 1 <= frames <= _MOST_FRAMES:
        raise ValueError(
            f"resample: frames is out of range: got {frames}, expected 1 to {_MOST_FRAMES:,}."
        )
    else:
        times = np.linspace(knots[0], knots[-1], frames)
    lens = path.intrinsics
    return dataclasses.replace(
        path,
        cam_to_world=interpolate_matrices(path.cam_to_world, knots, times),
        intrinsics=None if lens is None else interpolate_intrinsics(lens, knots, times),
        times=times,
        names=None,
    )


def _exact_at_knots(
    path: np.ndarray, given: np.ndarray, knots: np.ndarray, times: np.ndarray
) -> np.ndarray:
    place = np.clip(np.searchsorted(knots, times), 0, len(knots) - 1)
    hit = knots[place] == times
    path[hit] = given[place[hit]]
    return path
