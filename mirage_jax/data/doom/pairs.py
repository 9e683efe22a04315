"""Record a clip twice, with monsters that move and without: the second is the exact clean plate.

The motions of the first recording are played again in a level without monsters. Where both went
the same way, frames differ by the monsters alone, so what they hide is known to the pixel.

Read next: ``record.py``.
"""

import math
from typing import Any

import numpy as np

from mirage_jax.data.doom.engine import Engine, EngineSettings, LevelLeft
from mirage_jax.data.doom.levels import Level
from mirage_jax.data.doom.paths import make_policy
from mirage_jax.data.doom.record import (
    RecordConfig,
    Rejected,
    assemble_clip,
    go_to_start,
    is_bad_view,
)

# Skill 4 places the most monsters.
WITH = EngineSettings(awake=True, skill=4)
WITHOUT = EngineSettings(monsters=False, skill=4)
_APART = 1e-3  # largest difference of an entry of two cameras


def record_pair(
    engines: tuple[Engine, Engine],
    level: Level,
    seed: int,
    config: RecordConfig,
    *,
    kind: str = "out_and_back",
    least_moving: float = 0.01,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Record a clip with monsters and its clean plate.

    Args:
        engines: one with the settings ``WITH``, one with ``WITHOUT``.
        level: where.
        seed: of the place, the path and the game.
        config: frames and what is rejected.
        kind: of path, see ``paths.py``.
        least_moving: mean share of pixels that moving things must cover.

    Returns:
        The clip and its clean plate, with the same cameras.

    Raises:
        Rejected: this seed gives no such pair; take the next.
    """
    rng = np.random.default_rng(seed)
    game_seed = int(rng.integers(1, 2**31 - 1))
    try:
        clip, start, motions = _record(engines[0], level, game_seed, kind, config, rng)
        moving = float(clip["moving"].mean())
        if moving < least_moving:
            raise Rejected("hardly anything moves")
        plate = _replay(engines[1], level, game_seed, start, motions)
    except LevelLeft:
        raise Rejected("left the level") from None
    if np.abs(clip["cam_to_world"] - plate["cam_to_world"]).max() > _APART:
        raise Rejected("a monster was in the way")
    return clip, plate


def _record(engine: Engine, level: Level, seed: int, kind: str, config: RecordConfig, rng) -> Any:
    engine.reset(level, seed)
    go_to_start(engine, rng)
    observation = engine.observe()
    start = observation.eye
    policy = make_policy(kind, config.frames, config.paths, rng)
    observations, motions, bad = [observation], [], 0
    for _ in range(config.frames - 1):
        motions.append(policy.next_motion(observation))
        engine.move(*motions[-1])
        observation = engine.observe()
        observations.append(observation)
        bad += is_bad_view(observation, config)
    if bad > config.bad_fraction * config.frames:
        raise Rejected("faces a wall")
    return assemble_clip(observations, engine.intrinsics), start, motions


def _replay(engine: Engine, level: Level, seed: int, start: Any, motions: list) -> dict[str, Any]:
    engine.reset(level, seed)
    if not engine.teleport(round(start.x), round(start.y)):
        raise Rejected("no way back to the start")
    engine.turn_to(math.degrees(start.yaw))
    observations = [engine.observe()]
    for motion in motions:
        engine.move(*motion)
        observations.append(engine.observe())
    return assemble_clip(observations, engine.intrinsics)
