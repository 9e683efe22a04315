"""Exact z-depth of a Doom view, by casting each picture column against the level's lines.

A column's ray meets lines in order of depth; the rows still open are closed from above by
ceilings, from below by floors, and by walls between them.  This is the engine's own geometry, so
the depth is exact up to rounding, unlike the engine's 8-bit depth buffer.

Lengths are map units.  Rows of see-through textures (grates, bars) are reported as unknown: the
eye sees both the texture and what is behind it.  Read next: ``engine.py``.
"""

from typing import NamedTuple

import numba
import numpy as np
from jaxtyping import Float

from mirage_jax.data.doom.wad import LevelGeometry
from mirage_jax.data.kinds import CEILING, FLOOR, SKY, UNKNOWN, WALL

_NEAR = 1e-3


class Eye(NamedTuple):
    """Where a view is taken from: position in map units, yaw in radians from +x to +y."""

    x: float
    y: float
    z: float
    yaw: float


class Pinhole(NamedTuple):
    """Picture size and focal lengths in pixels; the centre is the middle of the picture."""

    width: int
    height: int
    focal_x: float
    focal_y: float


class CastResult(NamedTuple):
    """``depth`` [H,W] float32 map units (0 unknown, inf sky) and ``kind`` [H,W] uint8."""

    depth: np.ndarray
    kind: np.ndarray


class _Segments(NamedTuple):
    """Lines in camera coordinates: lateral and forward position of both ends, column range."""

    start_x: np.ndarray
    start_z: np.ndarray
    end_x: np.ndarray
    end_z: np.ndarray
    first: np.ndarray
    last: np.ndarray


def doom_pinhole(width: int, height: int) -> Pinhole:
    """Return the engine's camera: 90 degrees wide, pixels 1.2 times as tall as wide."""
    return Pinhole(width, height, width / 2, 0.6 * width)


def cast_depth(
    geometry: LevelGeometry,
    floor: Float[np.ndarray, "s"],
    ceiling: Float[np.ndarray, "s"],
    *,
    eye: Eye,
    pinhole: Pinhole,
) -> CastResult:
    """Cast the z-depth and the kind of surface at every pixel centre.

    Args:
        geometry: lines and sectors of the level.
        floor: [s] current floor heights (doors and lifts move), map units.
        ceiling: [s] current ceiling heights, map units.
        eye: the camera; it looks horizontally.
        pinhole: picture size and focal lengths.

    Returns:
        Depth along the viewing direction (0 where unknown, inf for sky) and kind.
    """
    return CastResult(*_cast(geometry, floor, ceiling, eye, pinhole))


@numba.njit(cache=True)
def _cast(geometry, floor, ceiling, eye, pinhole):
    depth = np.zeros((pinhole.height, pinhole.width), np.float32)
    kind = np.zeros((pinhole.height, pinhole.width), np.uint8)
    segments = _to_camera(geometry, eye, pinhole)
    offsets, members = _bucket_by_column(segments, pinhole.width)
    hit_depth = np.empty(geometry.front.size)
    hit_line = np.empty(geometry.front.size, np.int64)
    for column in range(pinhole.width):
        slope = (column + 0.5 - pinhole.width / 2) / pinhole.focal_x
        hits = 0
        for position in range(offsets[column], offsets[column + 1]):
            line = members[position]
            z = _crossing(segments, line, slope)
            if z > _NEAR:
                hit_depth[hits] = z
                hit_line[hits] = line
                hits += 1
        order = np.argsort(hit_depth[:hits])
        _fill_column(
            geometry,
            (floor, ceiling),
            eye,
            pinhole,
            (hit_line[:hits][order], hit_depth[:hits][order]),
            (depth[:, column], kind[:, column]),
        )
    return depth, kind


@numba.njit(cache=True)
def _to_camera(geometry, eye, pinhole):
    count = geometry.front.size
    cosine, sine = np.cos(eye.yaw), np.sin(eye.yaw)
    ends = np.empty((4, count))
    columns = np.empty((2, count), np.int64)
    for line in range(count):
        for end in range(2):
            point = geometry.start[line] if end == 0 else geometry.end[line]
            dx, dy = point[0] - eye.x, point[1] - eye.y
            ends[2 * end, line] = dx * sine - dy * cosine
            ends[2 * end + 1, line] = dx * cosine + dy * sine
        first, last = _column_range(ends[:, line], pinhole)
        columns[0, line], columns[1, line] = first, last
    return _Segments(ends[0], ends[1], ends[2], ends[3], columns[0], columns[1])


@numba.njit(cache=True)
def _column_range(ends, pinhole):
    ax, az, bx, bz = ends
    if az < _NEAR and bz < _NEAR:
        return 1, 0
    if az < _NEAR:
        ax += (_NEAR - az) / (bz - az) * (bx - ax)
        az = _NEAR
    if bz < _NEAR:
        bx += (_NEAR - bz) / (az - bz) * (ax - bx)
        bz = _NEAR
    middle = pinhole.width / 2
    left = middle + pinhole.focal_x * ax / az
    right = middle + pinhole.focal_x * bx / bz
    if left > right:
        left, right = right, left
    # One column of slack on both sides; the exact test is in _crossing.
    first = int(np.floor(max(-1.0, min(left, pinhole.width + 1.0)) - 0.5)) - 1
    last = int(np.ceil(max(-1.0, min(right, pinhole.width + 1.0)) - 0.5)) + 1
    return max(first, 0), min(last, pinhole.width - 1)


@numba.njit(cache=True)
def _bucket_by_column(segments, width):
    offsets = np.zeros(width + 1, np.int64)
    for line in range(segments.first.size):
        for column in range(segments.first[line], segments.last[line] + 1):
            offsets[column + 1] += 1
    offsets = np.cumsum(offsets)
    members = np.empty(offsets[width], np.int64)
    cursor = offsets[:width].copy()
    for line in range(segments.first.size):
        for column in range(segments.first[line], segments.last[line] + 1):
            members[cursor[column]] = line
            cursor[column] += 1
    return offsets, members


@numba.njit(cache=True)
def _crossing(segments, line, slope):
    """Depth where the column's ray x = slope * z meets the line; -1 if it does not."""
    dx = segments.end_x[line] - segments.start_x[line]
    dz = segments.end_z[line] - segments.start_z[line]
    divisor = dx - slope * dz
    if divisor == 0:
        return -1.0
    along = (slope * segments.start_z[line] - segments.start_x[line]) / divisor
    # Half-open, so that a ray through a vertex meets exactly one of the two lines.
    if along < 0 or along >= 1:
        return -1.0
    return segments.start_z[line] + along * dz


@numba.njit(cache=True)
def _sides(geometry, line, eye):
    start, end = geometry.start[line], geometry.end[line]
    side = (end[0] - start[0]) * (eye.y - start[1]) - (end[1] - start[1]) * (eye.x - start[0])
    if side <= 0:
        return 0, geometry.front[line], geometry.back[line]
    return 1, geometry.back[line], geometry.front[line]


@numba.njit(cache=True)
def _rise(row, pinhole):
    """Height gained per unit of depth along the ray of a row."""
    return (pinhole.height / 2 - (row + 0.5)) / pinhole.focal_y


@numba.njit(cache=True)
def _fill_column(geometry, heights, eye, pinhole, hits, out):
    floor, ceiling = heights
    depth, kind = out
    see_through = np.zeros(pinhole.height, np.bool_)
    top, bottom = 0, pinhole.height - 1
    for order in range(hits[0].size):
        line, z = hits[0][order], hits[1][order]
        side, near, far = _sides(geometry, line, eye)
        if near < 0:
            continue
        top = _close_ceiling(top, bottom, ceiling[near], geometry.sky_ceiling[near], z, eye,
                             pinhole, out)  # fmt: skip
        bottom = _close_floor(top, bottom, floor[near], geometry.sky_floor[near], z, eye,
                              pinhole, out)  # fmt: skip
        if far < 0:
            depth[top : bottom + 1] = z
            kind[top : bottom + 1] = WALL
            top = bottom + 1
        else:
            open_sky = geometry.sky_ceiling[near] and geometry.sky_ceiling[far]
            while top <= bottom and eye.z + _rise(top, pinhole) * z >= ceiling[far]:
                depth[top] = np.inf if open_sky else z
                kind[top] = SKY if open_sky else WALL
                top += 1
            while bottom >= top and eye.z + _rise(bottom, pinhole) * z <= floor[far]:
                depth[bottom] = z
                kind[bottom] = WALL
                bottom -= 1
            if geometry.middle_height[line, side] > 0:
                low, high = _middle_span(geometry, line, side, (near, far), heights)
                for row in range(top, bottom + 1):
                    if low <= eye.z + _rise(row, pinhole) * z <= high:
                        see_through[row] = True
        if top > bottom:
            break
    for row in range(pinhole.height):
        if see_through[row]:
            depth[row] = 0
            kind[row] = UNKNOWN


@numba.njit(cache=True)
def _close_ceiling(top, bottom, height, sky, z, eye, pinhole, out):
    depth, kind = out
    while top <= bottom:
        rise = _rise(top, pinhole)
        if eye.z + rise * z < height:
            break
        if rise > 0 and height > eye.z:  # else the eye is outside the level: unknown
            depth[top] = np.inf if sky else (height - eye.z) / rise
            kind[top] = SKY if sky else CEILING
        top += 1
    return top


@numba.njit(cache=True)
def _close_floor(top, bottom, height, sky, z, eye, pinhole, out):
    depth, kind = out
    while bottom >= top:
        rise = _rise(bottom, pinhole)
        if eye.z + rise * z > height:
            break
        if rise < 0 and height < eye.z:
            depth[bottom] = np.inf if sky else (height - eye.z) / rise
            kind[bottom] = SKY if sky else FLOOR
        bottom -= 1
    return bottom


@numba.njit(cache=True)
def _middle_span(geometry, line, side, sectors, heights):
    """Lowest and highest point of a see-through texture in a two-sided line's opening."""
    floor, ceiling = heights
    near, far = sectors
    height, offset = geometry.middle_height[line, side], geometry.middle_offset[line, side]
    if geometry.unpegged[line]:
        low = max(floor[near], floor[far]) + offset
        return low, low + height
    high = min(ceiling[near], ceiling[far]) + offset
    return high - height, high
