"""Read the geometry of a level from a WAD file (vanilla Doom map format).

A level is a planar graph of lines; each line has a front sector (on its right hand, going from
the first vertex to the second) and, unless it is a solid wall, a back sector.  Lengths are map
units.  Read next: ``cast.py``, which turns this into depth.
"""

import itertools
import struct
from typing import Any, NamedTuple

import numpy as np

_NO_SIDE = 65535
_LOWER_UNPEGGED = 0x0010
_LINE = np.dtype(
    [(name, "<u2") for name in ("start", "end", "flags", "special", "tag", "right", "left")]
)
_SIDE = np.dtype(
    [("x", "<i2"), ("y", "<i2"), ("upper", "S8"), ("lower", "S8"), ("middle", "S8")]
    + [("sector", "<u2")]
)
_SECTOR = np.dtype(
    [("floor", "<i2"), ("ceiling", "<i2"), ("floor_flat", "S8"), ("ceiling_flat", "S8")]
    + [("light", "<i2"), ("special", "<i2"), ("tag", "<u2")]
)
_THING = np.dtype([(name, "<i2") for name in ("x", "y", "angle", "type", "flags")])
_LUMPS = ("THINGS", "LINEDEFS", "SIDEDEFS", "VERTEXES", "SECTORS")
_MAP_LUMPS = (*_LUMPS, "SEGS", "SSECTORS", "NODES", "REJECT", "BLOCKMAP", "BEHAVIOR", "TEXTMAP")


class LevelGeometry(NamedTuple):
    """Lines and sectors of one level, ready for the depth caster (all arrays).

    ``start``, ``end`` [n,2] float64 map units; ``front``, ``back`` [n] int32 sector index, -1 for
    none; ``middle_height``, ``middle_offset`` [n,2] float64: height of a see-through texture
    hanging in the opening as seen from front and back (0 for none) and its vertical offset;
    ``unpegged`` [n] bool: that texture stands on the floor instead of hanging from the ceiling;
    ``floor``, ``ceiling`` [s] float64 heights at the level's start; ``sky_floor``,
    ``sky_ceiling`` [s] bool.
    """

    start: np.ndarray
    end: np.ndarray
    front: np.ndarray
    back: np.ndarray
    middle_height: np.ndarray
    middle_offset: np.ndarray
    unpegged: np.ndarray
    floor: np.ndarray
    ceiling: np.ndarray
    sky_floor: np.ndarray
    sky_ceiling: np.ndarray


class LevelMap(NamedTuple):
    """A level as stored in its WAD: geometry and the things placed in it."""

    geometry: LevelGeometry
    things: np.ndarray  # structured: x, y, angle, type, flags


class _Lump(NamedTuple):
    name: str
    data: bytes


def read_level(path: str, name: str) -> LevelMap:
    """Read one level of a WAD file.

    Args:
        path: the WAD file.
        name: the level's marker, for example ``MAP01`` or ``E1M1``.

    Raises:
        ValueError: not a WAD file, no such level, or a map format other than vanilla Doom.
    """
    lumps = _read_lumps(path)
    names = [lump.name for lump in lumps]
    if name.upper() not in names:
        raise ValueError(f"level: {name} is not in {path}; it holds {len(names)} other lumps")
    marker = names.index(name.upper())
    following = {
        lump.name: lump.data
        for lump in itertools.takewhile(lambda lump: lump.name in _MAP_LUMPS, lumps[marker + 1 :])
    }
    if "BEHAVIOR" in following or not set(_LUMPS) <= set(following):
        raise ValueError(
            f"level: {name} in {path} has the lumps {sorted(following)}, expected a vanilla Doom "
            f"map with {sorted(_LUMPS)} and no scripts (BEHAVIOR); choose another level"
        )
    texture_heights = _read_texture_heights(lumps)
    things = np.frombuffer(following["THINGS"], _THING)
    return LevelMap(_build_geometry(following, texture_heights), things)


def _read_lumps(path: str) -> list[_Lump]:
    with open(path, "rb") as file:
        data = file.read()
    magic, count, offset = struct.unpack("<4sii", data[:12])
    if magic not in (b"IWAD", b"PWAD"):
        raise ValueError(f"path: {path} starts with {magic!r}, expected a WAD file (IWAD or PWAD)")
    lumps = []
    for entry in struct.iter_unpack("<ii8s", data[offset : offset + 16 * count]):
        start, size, raw_name = entry
        lumps.append(_Lump(_text(raw_name), data[start : start + size]))
    return lumps


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("latin1").upper()


def _read_texture_heights(lumps: list[_Lump]) -> dict[str, int]:
    heights: dict[str, int] = {}
    for lump in lumps:
        if lump.name not in ("TEXTURE1", "TEXTURE2"):
            continue
        (count,) = struct.unpack_from("<i", lump.data)
        for offset in struct.unpack_from(f"<{count}i", lump.data, 4):
            raw_name, _, _, height = struct.unpack_from("<8sihh", lump.data, offset)
            heights.setdefault(_text(raw_name), height)
    return heights


def _build_geometry(lumps: dict[str, Any], texture_heights: dict[str, int]) -> LevelGeometry:
    vertices = np.frombuffer(lumps["VERTEXES"], "<i2").reshape(-1, 2).astype(np.float64)
    lines = np.frombuffer(lumps["LINEDEFS"], _LINE)
    sides = np.frombuffer(lumps["SIDEDEFS"], _SIDE)
    sectors = np.frombuffer(lumps["SECTORS"], _SECTOR)
    line_sides = np.stack([lines["right"], lines["left"]], axis=1).astype(np.int64)
    has_side = line_sides != _NO_SIDE
    safe_side = np.where(has_side, line_sides, 0)
    sector = np.where(has_side, sides["sector"][safe_side].astype(np.int32), -1)
    side_heights = np.array([texture_heights.get(_text(name), 0) for name in sides["middle"]])
    two_sided = has_side.all(axis=1, keepdims=True)
    return LevelGeometry(
        start=vertices[lines["start"]],
        end=vertices[lines["end"]],
        front=np.ascontiguousarray(sector[:, 0], np.int32),
        back=np.ascontiguousarray(sector[:, 1], np.int32),
        middle_height=np.where(two_sided, side_heights[safe_side], 0).astype(np.float64),
        middle_offset=sides["y"][safe_side].astype(np.float64),
        unpegged=(lines["flags"] & _LOWER_UNPEGGED) != 0,
        floor=sectors["floor"].astype(np.float64),
        ceiling=sectors["ceiling"].astype(np.float64),
        sky_floor=np.char.startswith(np.char.upper(sectors["floor_flat"]), b"F_SKY"),
        sky_ceiling=np.char.startswith(np.char.upper(sectors["ceiling_flat"]), b"F_SKY"),
    )
