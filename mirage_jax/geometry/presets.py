"""The package's own camera paths.

A = amplitude, D = depth scale; starts and stops are eased:

* ``out-and-back``: turn right by the horizontal field of view + 22 degrees while moving 0.12 A D to
  the right and at most 0.08 A D forward, then exactly back; the farthest view shares nothing with
  the first. At 90 degrees and 49 frames the peak speed is 6.8 degrees a frame.
* ``orbit``: once around the point 0.35 A D ahead, facing it.
* ``loop``: walk a circle of radius 0.25 A D to the right, facing along it.
* ``look-around``: turn 45 A degrees right, through to 45 A degrees left, and back; no travel.
* ``forward, backward, left, right, up, down``: travel 0.3 A D without turning.
* ``turn-left, turn-right``: turn by 90 A degrees on the spot.
* ``dolly-zoom, dolly-zoom-out``: travel 0.3 A D forward (backward) while the focal length shrinks
  (grows) so that what is D away keeps its size.
* ``static``: stay.

The first four close. Read next: ``presets_of_peers.py``, ``trajectories.py``.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mirage_jax.geometry.easing import once_around, there_and_back
from mirage_jax.geometry.motion import Motion, Request

Preset = Callable[[Request], Motion]
# How far beyond the field of view out-and-back turns: clear of it even when edges are soft.
_TURN_MARGIN_DEGREES = 22.0
_TRAVEL = 0.3


def _motion(yaw: np.ndarray, right: Any = 0.0, down: Any = 0.0, forward: Any = 0.0) -> Motion:
    """Build a motion without pitch from a yaw and three coordinates, each [f] or constant."""
    axes = np.broadcast_arrays(yaw, right, down, forward)[1:]
    return Motion(yaw, np.zeros_like(yaw), np.stack(axes, axis=-1).astype(np.float64))


def _out_and_back(request: Request) -> Motion:
    left, right = request.half_angles
    turn = request.turn(math.degrees(left + right) + _TURN_MARGIN_DEGREES)
    way = there_and_back(request.frames, request.options.hold_frames)
    sideways = 0.12 * request.options.amplitude
    # Going forward carries points past the edge of the first view towards the last one; going
    # sideways carries them away. This bound makes the second win for every depth.
    ahead = min(0.08 * request.options.amplitude, sideways / math.tan(max(left, right)))
    return _motion(turn * way, right=sideways * way, forward=ahead * way)


def _angle_around(request: Request) -> np.ndarray:
    """Return a full turn [f] whose end is exactly zero again."""
    way = once_around(request.frames, request.options.hold_frames)
    return 2 * np.pi * np.where(way == 1, 0.0, way)


def _orbit(request: Request) -> Motion:
    angle, radius = _angle_around(request), 0.35 * request.options.amplitude
    # Moving right around a point ahead means turning left to keep facing it.
    return _motion(-angle, right=radius * np.sin(angle), forward=radius * (1 - np.cos(angle)))


def _loop(request: Request) -> Motion:
    angle, radius = _angle_around(request), 0.25 * request.options.amplitude
    return _motion(angle, right=radius * (1 - np.cos(angle)), forward=radius * np.sin(angle))


def _look_around(request: Request) -> Motion:
    turn = request.turn(45.0 * request.options.amplitude)
    return _motion(turn * np.sin(_angle_around(request)))


def _travel(axis: int, sign: float) -> Preset:
    def preset(request: Request) -> Motion:
        position = np.zeros((request.frames, 3))
        way = once_around(request.frames, 1)
        position[:, axis] = sign * _TRAVEL * request.options.amplitude * way
        return Motion(np.zeros(request.frames), np.zeros(request.frames), position)

    return preset


def _turn(sign: float) -> Preset:
    def preset(request: Request) -> Motion:
        angle = request.turn(90.0 * request.options.amplitude)
        return _motion(sign * angle * once_around(request.frames, 1))

    return preset


def _static(request: Request) -> Motion:
    return _motion(np.zeros(request.frames))


def _dolly_zoom(sign: float) -> Preset:
    def preset(request: Request) -> Motion:
        travel = _TRAVEL * request.options.amplitude
        if sign > 0 and travel > 0.9:
            raise ValueError(
                f"dolly-zoom: the amplitude is too large: got {request.options.amplitude}, "
                "expected at most 3, where the camera is close to what keeps its size."
            )
        ahead = sign * travel * once_around(request.frames, 1)
        moved = _motion(np.zeros(request.frames), forward=ahead)
        return Motion(moved.yaw, moved.pitch, moved.position, zoom=1.0 - ahead)

    return preset


OWN_PRESETS: dict[str, Preset] = {
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
    "dolly-zoom": _dolly_zoom(1.0),
    "dolly-zoom-out": _dolly_zoom(-1.0),
    "static": _static,
}
CLOSED_PRESETS = frozenset({"out-and-back", "orbit", "loop", "look-around"})
