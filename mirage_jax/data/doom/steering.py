"""How much room there is around a walking camera, from its own depth picture.

Lengths are map units.  Read next: ``paths.py``, which steers by it.
"""

import numpy as np

from mirage_jax.data.doom.engine import EYE_HEIGHT, UNITS_PER_METRE, Observation
from mirage_jax.data.kinds import CEILING, FLOOR, SKY

_STEP = 24.0  # a player climbs this much
_DROP = 40.0  # deeper ledges are avoided
_HALF_WIDTH = 28.0  # of the corridor a player needs; the player's own is 16
_UNLIMITED = 2000.0


def measure_clearance(observation: Observation) -> tuple[float, float, float]:
    """Return the free distance straight ahead, and the typical one to the left and right.

    Obstacles are surfaces and sprites between climbing height and the eye, and ledges: a surface
    far below the floor is seen past the ledge's edge, whose distance follows from the eye height.
    """
    height, width = observation.depth.shape
    rows = slice(height // 2, height)
    z = observation.depth[rows] * UNITS_PER_METRE
    row = np.arange(height // 2, height)[:, None] + 0.5
    # Doom's picture: half a width is 45 degrees, and focal_y is 0.6 widths.
    above_floor = EYE_HEIGHT - (row - height / 2) / (0.6 * width) * z
    kind = observation.kind[rows]
    flat = (kind == FLOOR) | (kind == CEILING) | (kind == SKY)
    solid = ~flat & (above_floor > _STEP) | observation.sprite[rows]
    distance = np.where(solid, z, _UNLIMITED)
    drop = (above_floor < -_DROP) & (kind != SKY) & ~observation.sprite[rows]
    below_eye = np.maximum(EYE_HEIGHT - above_floor, 1.0)
    distance = np.where(drop, z * EYE_HEIGHT / below_eye, distance)
    lateral = np.abs((np.arange(width) + 0.5 - width / 2) / (width / 2)) * distance
    ahead = float(distance[lateral < _HALF_WIDTH].min(initial=_UNLIMITED))
    nearest = distance.min(axis=0)
    # Harmonic means: one close obstacle matters more than a long view beside it.
    third = width // 3
    left = float(1 / np.mean(1 / (nearest[:third] + 1)))
    right = float(1 / np.mean(1 / (nearest[-third:] + 1)))
    return ahead, left, right
