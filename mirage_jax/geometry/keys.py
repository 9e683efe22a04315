"""Camera paths typed as keys: ``"w*16 l*24"`` walks 16 frames forward, then turns right for 24.

Grammar: actions separated by blanks; an action is one or more keys, optionally followed by ``*N``
(N frames). Keys of one action are held together: ``wl*8`` walks in a right-hand curve.

=======  =============================================================
``w s``  forward, backward: 0.02 x amplitude x depth scale a frame
``a d``  left, right: as far
``j l``  turn left, right: 3 degrees x amplitude a frame
``i k``  look up, down: 3 degrees x amplitude a frame, within 60
``.``    stay
=======  =============================================================

One action is one *video* frame. (Systems that take one action per latent frame of 4 video frames
move 0.25 m and 7.5 degrees per action; at a depth scale of 3 m ours are 0.06 m and 3 degrees.)
Walking stays level whatever the pitch, and follows the heading of half the frame's turn, so a curve
walked back (``sj`` after ``wl``) ends where it began.

Read next: ``trajectories.py`` (presets and options).
"""

import math
import re

import numpy as np

from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.motion import Motion, TrajectoryOptions, check_start, follow

STEP_FRACTION = 0.02
TURN_DEGREES = 3.0
PITCH_LIMIT_DEGREES = 60.0
MAX_FRAMES = 1_000_000

_ACTION = re.compile(r"([wsadjlik]+|\.)(?:\*(\d+))?")
# Per key: forward, right (steps), yaw to the right, pitch upwards (turns).
_EFFECT = {
    "w": (1, 0, 0, 0),
    "s": (-1, 0, 0, 0),
    "d": (0, 1, 0, 0),
    "a": (0, -1, 0, 0),
    "l": (0, 0, 1, 0),
    "j": (0, 0, -1, 0),
    "i": (0, 0, 0, 1),
    "k": (0, 0, 0, -1),
    ".": (0, 0, 0, 0),
}


def parse_keys(text: str) -> tuple[str, ...]:
    """Return the keys held in each frame: ``"w*2 wl"`` gives ``("w", "w", "wl")``.

    Raises:
      ValueError: nothing to do, an action that does not follow the grammar (named with its place),
        or more than ``MAX_FRAMES`` frames.
    """
    frames: list[str] = []
    for place, word in enumerate(text.split(), start=1):
        match = _ACTION.fullmatch(word)
        if match is None or len(set(match[1])) != len(match[1]):
            raise ValueError(
                f"keys: action {place} is not understood: got {word!r}, expected different keys "
                'out of w s a d j l i k (or a single "."), then optionally *N. For example '
                '"w*16 wl*8 l*24".'
            )
        count = 1 if match[2] is None else int(match[2][:12])
        if count == 0 or len(frames) + count > MAX_FRAMES:
            raise ValueError(
                f"keys: action {place} has a count out of range: got {word!r}, expected at least 1 "
                f"and at most {MAX_FRAMES} frames in all. Drop the action or lower its count."
            )
        frames.extend([match[1]] * count)
    if not frames:
        raise ValueError(
            'keys: nothing to do: got an empty text, expected actions such as "w*16 l*24".'
        )
    return tuple(frames)


def trajectory_from_keys(
    text: str,
    start: Camera,
    depth_scale: float,
    options: TrajectoryOptions | None = None,
    frames: int | None = None,
) -> Camera:
    """Return the path that the keys walk, one camera per video frame.

    Args:
      text: actions, see the module's grammar.
      start: a single camera ([4, 4] and [3, 3]); frame 0 of the result.
      depth_scale: typical z-depth of the scene in scene units.
      options: amplitude (factor on steps and turns), mirror and up are used.
      frames: length to fill up to by staying at the end; None for 1 + number of actions.

    Returns:
      Cameras [f], float32, frame 0 equal to `start` bit for bit.

    Raises:
      ValueError: see ``parse_keys``; also when `frames` is too short for the actions.
    """
    options = options or TrajectoryOptions()
    actions = parse_keys(text)
    frames = 1 + len(actions) if frames is None else frames
    if frames < 1 + len(actions):
        raise ValueError(
            f"frames is too small for the keys: got {frames}, expected at least "
            f"{1 + len(actions)} (the start and one frame per action). Ask for more frames or "
            "type fewer actions."
        )
    start = check_start(start, frames, depth_scale)
    actions = actions + (".",) * (frames - 1 - len(actions))
    return follow(_walk(actions, options.amplitude), start, depth_scale, options)


def _walk(actions: tuple[str, ...], amplitude: float) -> Motion:
    """Add up the frames' effects into a motion of 1 + len(actions) frames."""
    effects = np.array([np.sum([_EFFECT[key] for key in keys], axis=0) for keys in actions])
    step, turn = STEP_FRACTION * amplitude, math.radians(TURN_DEGREES * amplitude)
    limit = math.radians(PITCH_LIMIT_DEGREES)
    # Whole steps are counted before they are scaled, so opposite keys cancel to the last bit.
    yaw = np.concatenate([[0], np.cumsum(effects[:, 2])]) * turn
    pitch = np.zeros(len(actions) + 1)
    for frame, change in enumerate(effects[:, 3]):
        pitch[frame + 1] = np.clip(pitch[frame] + change * turn, -limit, limit)
    heading = 0.5 * (yaw[:-1] + yaw[1:])
    forward, right = effects[:, 0], effects[:, 1]
    moves = np.stack(
        [
            right * np.cos(heading) + forward * np.sin(heading),
            np.zeros(len(actions)),
            forward * np.cos(heading) - right * np.sin(heading),
        ],
        axis=-1,
    )
    position = np.concatenate([np.zeros((1, 3)), np.cumsum(moves * step, axis=0)])
    return Motion(yaw, pitch, position)
