"""How the recorded camera moves: walking, looking around, going out and coming back.

A policy is asked once a frame for the next displacement and turn, given what was just observed.
Displacements are map units a frame in the world frame, turns are degrees a frame to the left.
All randomness comes from the generator handed in, so a clip is a function of its seed.  Speeds
are those of a person walking or looking about at 17.5 frames a second; changes are smooth.

Read next: ``steering.py`` for how walking avoids walls, ``record.py`` for what is rejected.
"""

import dataclasses
import math
from typing import NamedTuple, Protocol

import numpy as np

from mirage_jax.data.doom.engine import Observation
from mirage_jax.data.doom.steering import measure_clearance


class Motion(NamedTuple):
    """One frame's wish: displacement in map units (world x, y) and a turn in degrees (left)."""

    dx: float
    dy: float
    turn: float


class Policy(Protocol):
    """Decides the motion of each frame from the observation before it."""

    def next_motion(self, observation: Observation) -> Motion:
        """Return the motion that leads to the next frame."""
        ...


@dataclasses.dataclass(frozen=True)
class PathConfig:
    """Ranges the policies draw from (map units and degrees a frame).

    Attributes:
        walk, look_around, out_and_back: relative frequency of each kind of path.
        speed: slowest and fastest walking speed (8 is 4.4 m/s).
        max_turn: fastest turn.
        hold_probability: how often a clip begins with a short hold.
        hold_frames: longest hold.
    """

    walk: float = 0.4
    look_around: float = 0.3
    out_and_back: float = 0.3
    speed: tuple[float, float] = (4.0, 11.0)
    max_turn: float = 6.0
    hold_probability: float = 0.3
    hold_frames: int = 6

    def __post_init__(self) -> None:
        weights = (self.walk, self.look_around, self.out_and_back)
        if min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(
                f"path weights: got {weights}, expected non-negative numbers with a positive sum"
            )


def make_policy(kind: str, frames: int, config: PathConfig, rng: np.random.Generator) -> Policy:
    """Build the policy of a named kind for a clip of so many frames.

    Raises:
        ValueError: unknown kind.
    """
    builders = {"walk": Walk, "look_around": LookAround, "out_and_back": OutAndBack}
    if kind not in builders:
        raise ValueError(f"path kind: got {kind!r}, expected one of {sorted(builders)}")
    return builders[kind](frames, config, rng)


def draw_kind(config: PathConfig, rng: np.random.Generator) -> str:
    """Draw a kind of path with the configured frequencies."""
    kinds = ("walk", "look_around", "out_and_back")
    weights = np.array([getattr(config, kind) for kind in kinds], np.float64)
    return kinds[int(rng.choice(3, p=weights / weights.sum()))]


class Walk:
    """Walk forward, turning smoothly and away from obstacles, sometimes side-stepping."""

    def __init__(
        self, frames: int, config: PathConfig, rng: np.random.Generator, total_turn: float = 0.0
    ):
        self._config, self._rng = config, rng
        self._cruise = rng.uniform(*config.speed)
        self._hold = _draw_hold(config, rng)
        self._bias = total_turn / max(frames - self._hold, 1)
        self._wander = rng.normal(0, 1.0)
        self._speed = self._sideways = self._turn = 0.0
        self._sidestep = 0.0
        self._sidestep_left = 0
        self._avoiding = 0

    def next_motion(self, observation: Observation) -> Motion:
        """Return the next step; see the class."""
        if self._hold > 0:
            self._hold -= 1
            return Motion(0.0, 0.0, 0.0)
        ahead, left, right = measure_clearance(observation)
        self._steer(ahead, left, right)
        self._change_speed(ahead, left, right)
        yaw = observation.eye.yaw + math.radians(self._turn)
        cosine, sine = math.cos(yaw), math.sin(yaw)
        return Motion(
            self._speed * cosine - self._sideways * sine,
            self._speed * sine + self._sideways * cosine,
            self._turn,
        )

    def _steer(self, ahead: float, left: float, right: float) -> None:
        # An Ornstein-Uhlenbeck wander of about one degree a frame, correlated over 12 frames.
        self._wander += -self._wander / 12 + self._rng.normal(0, 0.45)
        wish = self._wander + self._bias
        if ahead > 220:
            self._avoiding = 0
        elif self._avoiding == 0 and ahead < 150:
            self._avoiding = 1 if left > right else -1
        if self._avoiding:
            urgency = min(max(1.3 - ahead / 170, 0.2), 1.0)
            wish = self._avoiding * urgency * self._config.max_turn + 0.3 * wish
        limit = self._config.max_turn
        self._turn += min(max(min(max(wish, -limit), limit) - self._turn, -0.7), 0.7)

    def _change_speed(self, ahead: float, left: float, right: float) -> None:
        wish = self._cruise * min(max((ahead - 36) / 90, 0.0), 1.0)
        self._speed += min(max(wish - self._speed, -1.5), 0.8)
        if self._sidestep_left > 0:
            self._sidestep_left -= 1
        elif self._rng.random() < 1 / 40:
            self._sidestep_left = int(self._rng.integers(8, 18))
            side = 1 if left > right else -1
            self._sidestep = side * self._rng.uniform(0.3, 0.7) * self._cruise
        room = left if self._sidestep > 0 else right
        wish = self._sidestep if self._sidestep_left > 0 and room > 64 else 0.0
        self._sideways += min(max(wish - self._sideways, -0.8), 0.8)


class LookAround:
    """Turn 100 to 200 degrees and often back, standing or drifting slowly."""

    def __init__(self, frames: int, config: PathConfig, rng: np.random.Generator):
        sign = 1 if rng.random() < 0.5 else -1
        turns = [np.zeros(_draw_hold(config, rng))]
        peak = rng.uniform(3.5, config.max_turn + 0.7)
        while sum(len(part) for part in turns) < frames:
            angle = rng.uniform(100, 200)
            turns.append(_eased_turn(sign * angle, peak))
            turns.append(np.zeros(rng.integers(0, config.hold_frames + 1)))
            # Usually back where it came from; sometimes on round.
            if rng.random() < 0.75:
                turns.append(_eased_turn(-sign * angle, peak))
                turns.append(np.zeros(rng.integers(0, config.hold_frames + 1)))
                sign = -sign if rng.random() < 0.5 else sign
        self._turns = np.concatenate(turns)
        self._drift_speed = rng.uniform(1.0, 3.5) if rng.random() < 0.6 else 0.0
        self._drift_angle = rng.uniform(0, 2 * math.pi)
        self._frame, self._frames = 0, frames

    def next_motion(self, observation: Observation) -> Motion:
        """Return the next step; see the class."""
        del observation
        progress = self._frame / self._frames
        # The drift starts and ends at rest and reverses half way, so it stays near the start.
        speed = self._drift_speed * math.sin(2 * math.pi * progress)
        motion = Motion(
            speed * math.cos(self._drift_angle),
            speed * math.sin(self._drift_angle),
            float(self._turns[self._frame]),
        )
        self._frame += 1
        return motion


class OutAndBack:
    """Walk away, turning from the first view, then retrace the same poses back to the start."""

    def __init__(self, frames: int, config: PathConfig, rng: np.random.Generator):
        self._rest = int(rng.integers(1, config.hold_frames + 1))
        self._end_hold = int(rng.integers(2, config.hold_frames + 1))
        self._haste = rng.uniform(1.0, 1.3)
        moving = frames - 1 - self._rest - self._end_hold
        self._out = int(moving * self._haste / (1 + self._haste))
        turn = rng.uniform(70, 170) * (1 if rng.random() < 0.5 else -1)
        self._walk = Walk(self._out, dataclasses.replace(config, hold_probability=0.0), rng, turn)
        self._trail: list[tuple[float, float, float]] = []
        self._back = 0

    def next_motion(self, observation: Observation) -> Motion:
        """Return the next step; see the class."""
        eye = observation.eye
        if self._back == 0:
            previous = self._trail[-1][2] if self._trail else eye.yaw
            self._trail.append((eye.x, eye.y, previous + _wrap(eye.yaw - previous)))
        if len(self._trail) <= self._out:
            return self._walk.next_motion(observation)
        self._back += 1
        place = max(self._out - max(self._back - self._rest, 0) * self._haste, 0.0)
        x, y, yaw = self._trail_at(place)
        turn = math.degrees(_wrap(yaw - eye.yaw))
        return Motion(x - eye.x, y - eye.y, min(max(turn, -10.0), 10.0))

    def _trail_at(self, place: float) -> tuple[float, float, float]:
        index = min(int(place), len(self._trail) - 2)
        part = place - index
        first, second = self._trail[index], self._trail[index + 1]
        x, y, yaw = ((1 - part) * a + part * b for a, b in zip(first, second, strict=True))
        return x, y, yaw


def _draw_hold(config: PathConfig, rng: np.random.Generator) -> int:
    if rng.random() >= config.hold_probability:
        return 0
    return int(rng.integers(1, config.hold_frames + 1))


def _eased_turn(angle: float, peak: float) -> np.ndarray:
    """Split an angle into frames that start and end slowly and never exceed the peak."""
    frames = max(int(math.ceil(abs(angle) * math.pi / 2 / peak)), 2)
    eased = (1 - np.cos(np.linspace(0, math.pi, frames + 1))) / 2
    return np.diff(eased) * angle


def _wrap(angle: float) -> float:
    return (angle + math.pi) % (2 * math.pi) - math.pi
