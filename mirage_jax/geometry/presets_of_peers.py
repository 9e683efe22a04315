"""The presets of GEN3C, SEVA and WorldScore, with their magnitudes, sized by the scene's depth.

Steps are even, as in those systems, not eased. A = amplitude, D = depth scale.

* ``gen3c-{left, right, up, down, zoom-in, zoom-out}``: 0.3 A D, of which n frames cover (n - 1)/n;
  ``gen3c-{clockwise, counterclockwise}``: once round a circle of radius 0.3 A D. The camera faces
  the point D ahead; ``...-no-rotation`` keeps its direction and ``...-trajectory-aligned`` looks
  twice as far to the side of its motion. GEN3C writes -p where a world-to-camera matrix has -R p,
  so a turned camera stands at R^T p; so it does here.
* ``seva-...``: its unit is D / 10, the distance of its look-at point being 10, which is faced all
  along. ``orbit``: round that point, ending one step before closing; ``spiral``: radii 1, 1, 0.5
  units, two turns; ``lemniscate``: 60 degrees wide; ``move-{forward, ...}``: 0.99 units;
  ``zoom-in, zoom-out``: the field of view to 0.28 or 1.5 of itself; ``dolly-zoom-in, -out``: the
  same while moving 0.99 units backward (forward); ``roll``: a full turn about the optical axis.
* ``worldscore-...``: with the camera speed s (0.3 A D, or the option `speed`; 1 in the benchmark):
  ``push-in, pull-out``: s; ``move-left, move-right``: 0.5 s; ``orbit-left, orbit-right``: 30
  degrees round the point s ahead; ``pan-left, pan-right``: 30 degrees; ``fixed``. Between the two
  keyframes rotations follow a geodesic and world-to-camera translations a line.

Read next: ``trajectories.py``.
"""

import math

import numpy as np
from scipy.spatial.transform import Rotation

from mirage_jax.geometry.motion import Motion, Request, facing
from mirage_jax.geometry.presets import Preset

_AHEAD = np.array([0.0, 0.0, 1.0])
_GEN3C_DISTANCE = 0.3
_SEVA_UNIT, _SEVA_MOVE = 0.1, 0.99
_SEVA_RADII, _SEVA_TURNS, _SEVA_RISE, _SEVA_LEMNISCATE = (1.0, 1.0, 0.5), 2, 0.5, 60.0
# Where its spiral looks: between 0.9 of the near and 5 times the far bound, three quarters of the
# way in disparity, for bounds of 1 and 5.
_SEVA_FOCUS = 1.0 / (0.25 / 0.9 + 0.75 / 25.0)
_SEVA_ZOOM = {"in": 0.28, "out": 1.5}
_WIDEST = math.radians(170.0)
_WORLDSCORE_SPEED, _WORLDSCORE_DEGREES = 0.3, 30.0

_DIRECTIONS = {
    "left": (-1, 0, 0),
    "right": (1, 0, 0),
    "up": (0, -1, 0),
    "down": (0, 1, 0),
    "forward": (0, 0, 1),
    "backward": (0, 0, -1),
}


def _moved(position: np.ndarray, rotation: np.ndarray | None = None, zoom=None) -> Motion:
    """Return a motion without yaw and pitch."""
    still = np.zeros(len(position))
    return Motion(still, still, position, rotation, zoom)


def _gen3c(name: str, rotation: str) -> Preset:
    def preset(request: Request) -> Motion:
        distance, frames = _GEN3C_DISTANCE * request.options.amplitude, request.frames
        if name in ("clockwise", "counterclockwise"):
            side = 1.0 if name == "clockwise" else -1.0
            angle = 2 * np.pi * np.arange(frames) / (frames - 1)
            circle = [side * (np.cos(angle) - 1), np.sin(angle), np.zeros(frames)]
            position = distance * np.stack(circle, axis=-1)
        else:
            axis = {"zoom-in": "forward", "zoom-out": "backward"}.get(name, name)
            position = distance * np.outer(np.arange(frames) / frames, _DIRECTIONS[axis])
        if rotation == "no-rotation":
            return _moved(position)
        aligned = rotation == "trajectory-aligned"
        turns = facing(position, _AHEAD + 2 * position if aligned else _AHEAD)
        return _moved(np.einsum("fij,fj->fi", turns, position), turns)

    return preset


def _seva_move(direction: str) -> Preset:
    def preset(request: Request) -> Motion:
        way = np.linspace(0, _SEVA_MOVE, request.frames) * _SEVA_UNIT * request.options.amplitude
        position = np.outer(way, _DIRECTIONS[direction])
        return _moved(position, facing(position, _AHEAD))

    return preset


def _seva_orbit(request: Request) -> Motion:
    angle = 2 * np.pi * np.arange(request.frames) / request.frames
    radius = request.options.amplitude
    circle = [np.sin(angle), 0 * angle, 1 - np.cos(angle)]
    return Motion(-angle, 0 * angle, radius * np.stack(circle, axis=-1))


def _seva_spiral(request: Request) -> Motion:
    angle = 2 * np.pi * _SEVA_TURNS * np.arange(request.frames) / request.frames
    curve = [np.cos(angle), np.sin(angle), np.sin(angle * _SEVA_RISE)]
    places = np.stack(curve, axis=-1) * _SEVA_RADII
    turns = facing(places, _SEVA_FOCUS * _AHEAD)
    # Seen from its first camera, which is the start.
    position = (places - places[0]) @ turns[0]
    return _moved(_SEVA_UNIT * request.options.amplitude * position, turns[0].T @ turns)


def _seva_lemniscate(request: Request) -> Motion:
    angle = 2 * np.pi * np.arange(request.frames) / request.frames + np.pi / 2
    width = request.options.amplitude * math.tan(math.radians(_SEVA_LEMNISCATE / 2))
    across = width * np.cos(angle) / (1 + np.sin(angle) ** 2)
    position = np.stack([across, across * np.sin(angle), 0 * angle], axis=-1)
    return _moved(position, facing(position, _AHEAD))


def _seva_zoom(way: str, direction: str | None = None) -> Preset:
    def preset(request: Request) -> Motion:
        view = sum(request.half_angles)
        views = view + np.linspace(0, 1, request.frames) * (_SEVA_ZOOM[way] - 1) * view
        if views[-1] > _WIDEST:
            raise ValueError(
                f"seva zoom: the field of view would grow to {math.degrees(views[-1]):.0f} degrees "
                f"from {math.degrees(view):.0f}, expected at most 170. Start with a longer lens."
            )
        zoom = np.tan(view / 2) / np.tan(views / 2)
        if direction is None:
            return _moved(np.zeros((request.frames, 3)), zoom=zoom)
        moved = _seva_move(direction)(request)
        return _moved(moved.position, moved.rotation, zoom)

    return preset


def _seva_roll(request: Request) -> Motion:
    angle = 2 * np.pi * np.arange(request.frames) / request.frames
    turns = Rotation.from_rotvec(np.outer(angle, _AHEAD)).as_matrix()
    return _moved(np.zeros((request.frames, 3)), turns)


def _speed(request: Request) -> float:
    """Return WorldScore's camera speed in units of the depth scale."""
    if request.options.speed is not None:
        return request.options.speed / request.depth_scale
    return _WORLDSCORE_SPEED * request.options.amplitude


def _worldscore_move(direction: str, share: float) -> Preset:
    def preset(request: Request) -> Motion:
        way = np.linspace(0, share * _speed(request), request.frames)
        return _moved(np.outer(way, _DIRECTIONS[direction]))

    return preset


def _worldscore_turn(side: float, orbit: bool) -> Preset:
    """Turn to `side` (1 is right); an orbit moves to the other side and keeps facing ahead."""

    def preset(request: Request) -> Motion:
        way, full = np.linspace(0, 1, request.frames), side * math.radians(_WORLDSCORE_DEGREES)
        position = np.zeros((request.frames, 3))
        if orbit:
            # The world-to-camera translation of the second keyframe, negated, shrinks to zero.
            last = _speed(request) * np.array([-math.sin(full), 0.0, math.cos(full) - 1])
            turns = Rotation.from_rotvec(np.outer(full * way, [0.0, 1.0, 0.0])).as_matrix()
            position = np.einsum("fij,j->fi", turns, last) * way[:, None]
        return Motion(full * way, 0 * way, position)

    return preset


_GEN3C_NAMES = ("left", "right", "up", "down", "zoom-in", "zoom-out", "clockwise",
                "counterclockwise")  # fmt: skip
PEER_PRESETS: dict[str, Preset] = {
    **{f"gen3c-{name}": _gen3c(name, "center-facing") for name in _GEN3C_NAMES},
    **{
        f"gen3c-{name}-{rotation}": _gen3c(name, rotation)
        for rotation in ("no-rotation", "trajectory-aligned")
        for name in _GEN3C_NAMES
    },
    "seva-orbit": _seva_orbit,
    "seva-spiral": _seva_spiral,
    "seva-lemniscate": _seva_lemniscate,
    "seva-zoom-in": _seva_zoom("in"),
    "seva-zoom-out": _seva_zoom("out"),
    "seva-dolly-zoom-in": _seva_zoom("in", "backward"),
    "seva-dolly-zoom-out": _seva_zoom("out", "forward"),
    **{f"seva-move-{name}": _seva_move(name) for name in _DIRECTIONS},
    "seva-roll": _seva_roll,
    "worldscore-push-in": _worldscore_move("forward", 1.0),
    "worldscore-pull-out": _worldscore_move("backward", 1.0),
    "worldscore-move-left": _worldscore_move("left", 0.5),
    "worldscore-move-right": _worldscore_move("right", 0.5),
    "worldscore-orbit-left": _worldscore_turn(1.0, True),
    "worldscore-orbit-right": _worldscore_turn(-1.0, True),
    "worldscore-pan-left": _worldscore_turn(-1.0, False),
    "worldscore-pan-right": _worldscore_turn(1.0, False),
    "worldscore-fixed": _worldscore_move("forward", 0.0),
}
