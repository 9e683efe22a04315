"""The record of a data set: one clip of frames with exact geometry.

Arrays have a leading frame axis; pictures are uint8, depth is z-depth in metres with 0 for
unknown and 1000 for sky, poses are OpenCV camera to world (x right, y down, z forward), masks are
True where the named thing is.  Objects sit in a table per clip; a pixel's ``object_index`` is 0
for none or 1 + the row of the object at its centre.

Read next: ``builder.py`` writes clips, ``source.py`` reads them.
"""

from typing import Any, NamedTuple

import numpy as np

MAX_OBJECTS = 64
FAR = 1000.0  # depth of sky, metres


class ClipShape(NamedTuple):
    """Frames, height and width of a clip."""

    frames: int = 81
    height: int = 96
    width: int = 128


def clip_spec(shape: ClipShape) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Return the shape and dtype of every array of a clip, by name."""
    f, h, w = shape
    m = MAX_OBJECTS
    spec: dict[str, tuple[tuple[int, ...], Any]] = {
        "rgb": ((f, h, w, 3), np.uint8),
        "depth": ((f, h, w), np.float16),
        "kind": ((f, h, w), np.uint8),
        "sprite": ((f, h, w), np.bool_),
        "moving": ((f, h, w), np.bool_),
        "object_index": ((f, h, w), np.uint8),
        "cam_to_world": ((f, 4, 4), np.float32),
        "intrinsics": ((3, 3), np.float32),
        "object_count": ((), np.int32),
        "object_id": ((m,), np.int32),
        "object_moving": ((m,), np.bool_),
        "object_position": ((f, m, 3), np.float32),
        "object_visible": ((f, m), np.bool_),
        "seed": ((), np.int64),
    }
    return {name: (dims, np.dtype(dtype)) for name, (dims, dtype) in spec.items()}


TEXTS = ("level", "path", "object_names")  # object_names: one a line, in table order
CAPTION = "caption"  # the prompt of a clip; only in data sets recorded with captions


def validate_clip(clip: dict[str, Any]) -> ClipShape:
    """Check the names, shapes, dtypes and basic meaning of a clip.

    Returns:
        The clip's shape.

    Raises:
        ValueError: naming the entry that is wrong.
    """
    rgb = clip.get("rgb")
    if not isinstance(rgb, np.ndarray) or rgb.ndim != 4:
        raise ValueError(f"clip['rgb']: got {type(rgb).__name__}, expected uint8 [F,H,W,3]")
    shape = ClipShape(*rgb.shape[:3])
    for name, (dims, dtype) in clip_spec(shape).items():
        got = np.asarray(clip.get(name))
        if got.shape != dims or got.dtype != dtype:
            raise ValueError(
                f"clip[{name!r}]: got {got.dtype} {list(got.shape)}, "
                f"expected {dtype} {list(dims)}; build it with the sizes of clip['rgb']"
            )
    for name in TEXTS:
        if not isinstance(clip.get(name), str):
            raise ValueError(f"clip[{name!r}]: got {clip.get(name)!r}, expected a str")
    if not isinstance(clip.get(CAPTION, ""), str):
        raise ValueError(f"clip[{CAPTION!r}]: got {clip[CAPTION]!r}, expected a str or no such key")
    if not np.isfinite(clip["depth"]).all() or (clip["depth"] < 0).any():
        raise ValueError("clip['depth']: has negative or non-finite values; use 0 for unknown")
    return shape


class ObjectTable:
    """Collects the objects of a clip frame by frame and lays them out as arrays."""

    def __init__(self, frames: int) -> None:
        self._rows: dict[int, int] = {}
        self._names: list[str] = []
        self.id = np.full(MAX_OBJECTS, -1, np.int32)
        self.moving = np.zeros(MAX_OBJECTS, np.bool_)
        self.position = np.zeros((frames, MAX_OBJECTS, 3), np.float32)
        self.visible = np.zeros((frames, MAX_OBJECTS), np.bool_)

    def add(self, frame: int, identity: int, name: str) -> int:
        """Note that an object is visible in a frame; return its row, or -1 if the table is full."""
        if identity not in self._rows:
            if len(self._names) == MAX_OBJECTS:
                return -1
            self._rows[identity] = len(self._names)
            self.id[len(self._names)] = identity
            self._names.append(name)
        row = self._rows[identity]
        self.visible[frame, row] = True
        return row

    def arrays(self) -> dict[str, Any]:
        """Return the entries of a clip that describe objects."""
        return {
            "object_count": np.int32(len(self._names)),
            "object_id": self.id,
            "object_moving": self.moving,
            "object_position": self.position,
            "object_visible": self.visible,
            "object_names": "\n".join(self._names),
        }
