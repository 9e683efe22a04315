"""Depth as files hold it, what a file leaves open, and the words (`--depth-as`) that say it.

What a stored value means has three readings: z-depth along the viewing axis ("z"), distance from
the camera along the ray ("ray"), or something that grows towards the camera and is linear in the
inverse of z-depth, with unknown scale and shift ("disparity"). Everything in the package takes
z-depth; ``z_depth`` brings the first two there, and ``depth_alignment.py`` the third.

Read next: ``formats.py``, ``../depth_kind.py`` (which reading makes walls flat).
"""

import dataclasses
import difflib
import math
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.depth import validate_depth
from mirage_jax.geometry.depth_kind import flatter_reading
from mirage_jax.geometry.projection import camera_rays

Kind = Literal["z", "ray", "disparity"]

# word -> what it says; unit=NUMBER is one more
WORDS = {
    "z": "z-depth: along the viewing axis",
    "ray": "distance from the camera along each pixel's ray",
    "disparity": "inverse depth with unknown scale and shift, larger is nearer",
    "mm": "one step is a millimetre and the scene's unit a metre, as unit=0.001",
    "m": "values are in the scene's unit, as unit=1",
}


@dataclasses.dataclass(frozen=True)
class DepthReading:
    """Answers to what a depth file leaves open; None leaves the answer to the format.

    Attributes:
      kind: what a value means.
      unit: scene units of one stored step; needed by files of whole numbers.
    """

    kind: Kind | None = None
    unit: float | None = None


class DepthMaps(NamedTuple):
    """What a depth file holds.

    Attributes:
      values: [f, H, W] float32, in scene units for "z" and "ray", 0 = unknown; unknown disparity
        is NaN.
      kind: what a value means.
      stated: the format or the user says so; otherwise "z" is the package's own convention.
      name: the file, for messages.
      notes: what the user should know.
    """

    values: Float[np.ndarray, "f H W"]
    kind: Kind = "z"
    stated: bool = False
    name: str = "depth"
    notes: tuple[str, ...] = ()


def depth_reading_of(words: Iterable[str]) -> DepthReading:
    """Return the reading that some of ``WORDS`` and ``unit=NUMBER`` ask for.

    Raises:
      ValueError: an unknown word, a unit that is no positive number, or a contradiction.
    """
    kind: Any = None
    unit: float | None = None
    for word in words:
        if word in ("z", "ray", "disparity"):
            if kind not in (None, word):
                raise _contradiction(kind, word)
            kind = word
            continue
        found = _unit_of(word)
        if unit not in (None, found):
            raise _contradiction(f"unit={unit:g}", word)
        unit = found
    return DepthReading(kind, unit)


def _unit_of(word: str) -> float:
    text = {"mm": "0.001", "m": "1"}.get(word, word.removeprefix("unit="))
    try:
        unit = float(text)
    except ValueError:
        near = difflib.get_close_matches(word, WORDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "unit=0.0002 is a fifth of a millimetre."
        raise ValueError(
            f"--depth-as: got {word!r}, expected {', '.join(WORDS)} or unit=NUMBER; {hint}"
        ) from None
    if not (math.isfinite(unit) and 1e-9 <= unit <= 1e9):
        raise ValueError(f"--depth-as: got {word!r}, expected a positive number of scene units.")
    return unit


def _contradiction(first: str, second: str) -> ValueError:
    return ValueError(
        f"--depth-as: got both {first!r} and {second!r}, expected one answer to the same question. "
        "Drop one of them."
    )


def z_depth(maps: DepthMaps, camera: Camera) -> Float[np.ndarray, "f H W"]:
    """Return z-depth of maps whose values are z-depth or distances along rays.

    Where neither the format nor the user says which of the two it is, walls decide: if they are
    flat only as distances along rays, the file is refused with both readings.

    Args:
      maps: from ``read_depth``.
      camera: one, or [f]; intrinsics in pixels of the maps.

    Raises:
      ValueError: values are disparity, impossible, or look like the other reading.
    """
    values = validate_depth(maps.values, maps.name).astype(np.float32)
    if maps.kind == "disparity":
        raise ValueError(
            f"{maps.name}: holds disparity, whose scale and shift are unknown: expected z-depth. "
            "Align it to something known (mirage depth align), or say how near and far it is "
            "with --near-far NEAR FAR."
        )
    matrix = np.broadcast_to(np.asarray(camera.intrinsics, np.float64), (len(values), 3, 3))
    if maps.kind == "ray":
        eye = np.broadcast_to(np.eye(4), (len(values), 4, 4))
        rays = camera_rays(Camera(eye, matrix), values.shape[1:])
        return (values / np.linalg.norm(rays, axis=-1)).astype(np.float32)
    if not maps.stated:
        _check_flatness(maps.name, values, matrix)
    return values


def _check_flatness(name: str, values: np.ndarray, intrinsics: np.ndarray) -> None:
    found = flatter_reading(values[0], intrinsics[0])
    if found.kind != "ray":
        return
    raise ValueError(
        f"{name}: holds distances along rays, it seems: surfaces deviate from planes by "
        f"{found.as_ray:.2%} read so and by {found.as_z:.2%} read as z-depth. Choose one of\n"
        f"  --depth-as ray: {WORDS['ray']}\n  --depth-as z: {WORDS['z']}"
    )


def depth_from_range(
    disparity: Float[np.ndarray, "*f H W"], near: float, far: float
) -> Float[np.ndarray, "*f H W"]:
    """Turn disparity of unknown scale and shift into z-depth between two given distances.

    The 98th percentile of the disparity becomes `near`, the 2nd `far`; what is beyond them is cut.
    Where disparity is NaN depth is 0, unknown.

    Raises:
      ValueError: not 0 < near < far, or the disparity is the same everywhere.
    """
    if not 0 < near < far < 1e9:
        raise ValueError(
            f"--near-far: got {near:g} {far:g}, expected two distances, 0 < near < far."
        )
    low, high = np.nanpercentile(disparity, (2, 98))
    if not high > low:
        raise ValueError(
            "--near-far: disparity is the same nearly everywhere, so it tells no distances; give "
            "depth of another kind."
        )
    share = np.clip((disparity - low) / (high - low), 0, 1)
    depth = 1.0 / (1.0 / far + share * (1.0 / near - 1.0 / far))
    return np.where(np.isfinite(disparity), depth, 0.0).astype(np.float32)


def pseudo_depth(disparity: Float[Any, "*f H W"]) -> Float[np.ndarray, "*f H W"]:
    """Turn disparity into depth that is right up to scale and shift of its inverse.

    So it can be resampled and aligned like depth: planes stay planes, edges stay edges. NaN becomes
    0, unknown.
    """
    disparity = np.asarray(disparity, np.float32)
    known = np.isfinite(disparity)
    low, high = (
        edge(disparity, axis=(-2, -1), keepdims=True, where=known, initial=start)
        for edge, start in ((np.min, np.inf), (np.max, -np.inf))
    )
    share = (disparity - low) / np.maximum(high - low, 1e-12)
    return np.where(known, 1.0 / (share + np.float32(0.05)), np.float32(0))
