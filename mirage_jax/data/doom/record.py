"""Record clips of a Doom level: start somewhere, follow a path, keep the clip if it is good.

A clip is a function of (seed, level, clip number): every attempt restarts the level with its own
seed, so clips do not depend on each other or on the order of recording.  Attempts that stare at a
wall, get stuck, ride a lift, open a door, cross a teleporter, or show centre-screen text are
rejected and tried again from another place.

Read next: ``paths.py`` for the motions, ``../clip.py`` for the record.
"""

import collections
import dataclasses
import math
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from mirage_jax.data.clip import ClipShape, ObjectTable, clip_spec
from mirage_jax.data.doom import cast
from mirage_jax.data.doom.engine import (
    UNITS_PER_METRE,
    Engine,
    LevelLeft,
    Observation,
)
from mirage_jax.data.doom.levels import Level, require_recordable
from mirage_jax.data.doom.paths import PathConfig, draw_kind, make_policy

# Invulnerability, berserk, blur and radiation suit tint the whole picture when picked up.
_TINTING_THINGS = (2022, 2023, 2024, 2025)
_TINTING_DISTANCE = 64.0
_MAX_JUMP = 48.0  # map units a frame; more is a teleporter
_MAX_FALL = 20.0  # map units a frame; more is a long drop


class Rejected(Exception):
    """An attempt that is not worth keeping; the text is a short reason for statistics."""


@dataclasses.dataclass(frozen=True)
class RecordConfig:
    """What to record and what to reject.

    Attributes:
        frames: frames a clip.
        paths: kinds of motion.
        near_metres: a frame whose median depth is less faces a wall.
        flat_deviation: a frame whose pixel values deviate less than this shows nothing.
        bad_fraction: largest fraction of such frames in a clip.
        covered_fraction: a frame with more than this under sprites or unknown is bad too.
        min_travel_metres: shortest way of a walk.
        max_return_error: largest distance (map units) from the start after coming back.
        max_attempts: attempts for one clip before giving up on the level.
    """

    frames: int = 81
    paths: PathConfig = PathConfig()
    near_metres: float = 1.4
    flat_deviation: float = 9.0
    bad_fraction: float = 0.12
    covered_fraction: float = 0.35
    min_travel_metres: float = 5.0
    max_return_error: float = 3.0
    max_attempts: int = 60


def record_level(
    engine: Engine, level: Level, split: str, clips: int, seed: int, config: RecordConfig
) -> Iterator[tuple[dict[str, Any], collections.Counter[str]]]:
    """Record clips of one level.

    Yields:
        Each clip with a count of the attempts rejected before it, by reason.

    Raises:
        ValueError: the level does not belong to the split.
        RuntimeError: no acceptable clip was found within ``max_attempts``.
    """
    require_recordable(level, split)
    for number in range(clips):
        yield record_clip(engine, level, number, seed, config)


def record_clip(
    engine: Engine, level: Level, number: int, seed: int, config: RecordConfig
) -> tuple[dict[str, Any], collections.Counter[str]]:
    """Record one clip; see ``record_level``."""
    base = (seed, zlib.crc32(str(level).encode()), number)
    kind = draw_kind(config.paths, np.random.default_rng(base))
    rejected: collections.Counter[str] = collections.Counter()
    for attempt in range(config.max_attempts):
        rng = np.random.default_rng((*base, attempt))
        try:
            clip = _attempt_clip(engine, level, kind, rng, config)
        except Rejected as reason:
            rejected[str(reason)] += 1
        except LevelLeft:
            rejected["left the level"] += 1
        else:
            return clip | {"level": str(level), "path": kind, "seed": np.int64(seed)}, rejected
    raise RuntimeError(
        f"record: no acceptable {kind} clip of {level} in {config.max_attempts} attempts "
        f"({dict(rejected)}); use another seed or a larger max_attempts"
    )


def _attempt_clip(
    engine: Engine, level: Level, kind: str, rng: np.random.Generator, config: RecordConfig
) -> dict[str, Any]:
    engine.reset(level, int(rng.integers(1, 2**31 - 1)))
    go_to_start(engine, rng)
    policy = make_policy(kind, config.frames, config.paths, rng)
    observation = engine.observe()
    observations = [observation]
    bad = int(is_bad_view(observation, config))
    hazards = engine.map.things[np.isin(engine.map.things["type"], _TINTING_THINGS)]
    for _ in range(config.frames - 1):
        engine.move(*policy.next_motion(observation))
        following = engine.observe()
        _require_undisturbed(observation, following, observations[0], hazards)
        observation = following
        observations.append(observation)
        bad += is_bad_view(observation, config)
        if bad > config.bad_fraction * config.frames:
            raise Rejected("faces a wall")
    _require_motion(observations, kind, config)
    return assemble_clip(observations, engine.intrinsics)


def go_to_start(engine: Engine, rng: np.random.Generator) -> None:
    """Teleport near a random thing of the level and face somewhere open.

    Raises:
        Rejected: there is no such place.
    """
    things = engine.map.things
    for _ in range(12):
        thing = things[rng.integers(len(things))]
        x = int(thing["x"] + rng.integers(-96, 97))
        y = int(thing["y"] + rng.integers(-96, 97))
        if engine.teleport(x, y):
            break
    else:
        raise Rejected("no free place")
    observation = engine.observe()
    yaws = np.arange(16) * (2 * math.pi / 16) + rng.uniform(0, 2 * math.pi)
    pinhole = cast.doom_pinhole(32, 24)
    openness = []
    for yaw in yaws:
        view = cast.cast_depth(
            engine.map.geometry,
            observation.floor,
            observation.ceiling,
            eye=observation.eye._replace(yaw=float(yaw)),
            pinhole=pinhole,
        )
        openness.append(float(np.median(view.depth[8:16])))
    choices = np.flatnonzero(np.array(openness) >= max(np.median(openness), 3 * UNITS_PER_METRE))
    if choices.size == 0:
        raise Rejected("cramped place")
    engine.turn_to(math.degrees(yaws[rng.choice(choices)]))


def is_bad_view(observation: Observation, config: RecordConfig) -> bool:
    """Tell a frame that faces a wall, shows nothing, or is covered by sprites."""
    known = observation.depth[observation.depth > 0]
    covered = np.mean(observation.sprite | (observation.depth == 0))
    return bool(
        known.size == 0
        or np.median(known) < config.near_metres
        or observation.rgb.std(axis=(0, 1)).max() < config.flat_deviation
        or covered > config.covered_fraction
    )


def _require_undisturbed(
    before: Observation, after: Observation, first: Observation, hazards: np.ndarray
) -> None:
    if math.hypot(after.eye.x - before.eye.x, after.eye.y - before.eye.y) > _MAX_JUMP:
        raise Rejected("teleported")
    if abs(after.eye.z - before.eye.z) > _MAX_FALL:
        raise Rejected("fell")
    if after.secrets != first.secrets:
        raise Rejected("found a secret")
    if (after.floor != first.floor).any() or (after.ceiling != first.ceiling).any():
        raise Rejected("a door or lift moved")
    if hazards.size:
        distance = np.hypot(hazards["x"] - after.eye.x, hazards["y"] - after.eye.y)
        if distance.min() < _TINTING_DISTANCE:
            raise Rejected("near a tinting item")


def _require_motion(observations: list[Observation], kind: str, config: RecordConfig) -> None:
    places = np.array([[one.eye.x, one.eye.y] for one in observations])
    travel = np.linalg.norm(np.diff(places, axis=0), axis=1).sum() / UNITS_PER_METRE
    if kind != "look_around" and travel < config.min_travel_metres:
        raise Rejected("stuck")
    if kind != "out_and_back":
        return
    first, last = observations[0].eye, observations[-1].eye
    turned = abs((last.yaw - first.yaw + math.pi) % (2 * math.pi) - math.pi)
    error = math.dist((first.x, first.y, first.z), (last.x, last.y, last.z))
    if error > config.max_return_error or turned > math.radians(0.5):
        raise Rejected("did not come back")


def assemble_clip(observations: list[Observation], intrinsics: np.ndarray) -> dict[str, Any]:
    """Stack observations into the arrays of a clip (all but its texts and seed)."""
    height, width = observations[0].depth.shape
    spec = clip_spec(ClipShape(len(observations), height, width))
    objects = ObjectTable(len(observations))
    index = np.zeros(spec["object_index"][0], np.uint8)
    for frame, observation in enumerate(observations):
        lookup = np.zeros(256, np.uint8)
        for row, one in enumerate(observation.objects):
            place = objects.add(frame, one.id, one.name)
            if place >= 0:
                objects.position[frame, place] = one.position
                objects.moving[place] |= one.moving
                lookup[row + 1] = place + 1
        index[frame] = lookup[observation.object_index]
    fields = ("rgb", "depth", "kind", "sprite", "moving", "cam_to_world")
    stacked = {
        name: np.stack([getattr(one, name) for one in observations]).astype(spec[name][1])
        for name in fields
    }
    return stacked | objects.arrays() | {"object_index": index, "intrinsics": intrinsics}
