"""The depth caster against rooms small enough to work out by hand, and the WAD reader's errors."""

import math

import numpy as np
import pytest

from mirage_jax.data.doom.cast import Eye, Pinhole, cast_depth
from mirage_jax.data.doom.wad import LevelGeometry, read_level
from mirage_jax.data.kinds import CEILING, FLOOR, SKY, UNKNOWN, WALL

PINHOLE = Pinhole(64, 48, 32.0, 38.4)


def _two_rooms(sky: bool = False, grate: float = 0.0) -> LevelGeometry:
    """A room 0..100 wide opening at x = 100 into one with a raised floor and lower ceiling."""
    corners = [
        (0, 0, 0, 100), (0, 100, 100, 100), (100, 0, 0, 0), (100, 100, 100, 0),
        (100, 100, 200, 100), (200, 100, 200, 0), (200, 0, 100, 0),
    ]  # fmt: skip
    ends = np.array(corners, np.float64)
    opening = np.arange(7) == 3
    return LevelGeometry(
        start=ends[:, :2],
        end=ends[:, 2:],
        front=np.array([0, 0, 0, 0, 1, 1, 1], np.int32),
        back=np.where(opening, 1, -1).astype(np.int32),
        middle_height=np.where(opening[:, None], grate, 0.0) * np.ones((1, 2)),
        middle_offset=np.zeros((7, 2)),
        unpegged=np.ones(7, bool),
        floor=np.array([0.0, 16.0]),
        ceiling=np.array([128.0, 96.0]),
        sky_floor=np.zeros(2, bool),
        sky_ceiling=np.array([sky, False]),
    )


def _cast(geometry: LevelGeometry, eye: Eye):
    return cast_depth(geometry, geometry.floor, geometry.ceiling, eye=eye, pinhole=PINHOLE)


def test_every_row_of_the_middle_column_meets_the_surface_worked_out_by_hand():
    eye = Eye(20.0, 50.0, 41.0, 0.0)
    result = _cast(_two_rooms(), eye)
    for row in range(48):
        rise = (24 - (row + 0.5)) / 38.4
        # In order along the ray: near ceiling or floor, the step at 80, far ones, the end at 180.
        if rise > 0 and (128 - 41) / rise < 80:
            expected, kind = (128 - 41) / rise, CEILING
        elif rise < 0 and -41 / rise < 80:
            expected, kind = -41 / rise, FLOOR
        elif not 16 < 41 + 80 * rise < 96:
            expected, kind = 80.0, WALL
        elif rise > 0 and (96 - 41) / rise < 180:
            expected, kind = (96 - 41) / rise, CEILING
        elif rise < 0 and (16 - 41) / rise < 180:
            expected, kind = (16 - 41) / rise, FLOOR
        else:
            expected, kind = 180.0, WALL
        assert result.kind[row, 31] == kind, row
        assert result.depth[row, 31] == pytest.approx(expected, rel=1e-6), row


def test_depth_is_measured_along_the_view_direction_not_along_the_ray():
    result = _cast(_two_rooms(), Eye(50.0, 50.0, 41.0, math.pi))
    np.testing.assert_allclose(result.depth[24], 50.0, rtol=1e-6)


def test_a_sky_ceiling_is_infinitely_far():
    result = _cast(_two_rooms(sky=True), Eye(80.0, 50.0, 110.0, math.pi))
    assert (result.kind[0] == SKY).all()
    assert np.isinf(result.depth[0]).all()


def test_pixels_behind_a_see_through_texture_are_unknown():
    eye = Eye(20.0, 50.0, 41.0, 0.0)
    open_view, grated = _cast(_two_rooms(), eye), _cast(_two_rooms(grate=30.0), eye)
    # The texture stands on the step, from 16 to 46, in the opening 80 away.
    height = 41 + 80 * (24 - (np.arange(48) + 0.5)) / 38.4
    covered = (height >= 16) & (height <= 46)
    assert (grated.kind[covered, 31] == UNKNOWN).all()
    assert (grated.depth[covered, 31] == 0).all()
    np.testing.assert_array_equal(grated.depth[~covered, 31], open_view.depth[~covered, 31])


def test_a_file_that_is_no_wad_is_refused(tmp_path):
    path = tmp_path / "picture.wad"
    path.write_bytes(b"\x89PNG" + bytes(64))
    with pytest.raises(ValueError, match="expected a WAD"):
        read_level(str(path), "MAP01")
