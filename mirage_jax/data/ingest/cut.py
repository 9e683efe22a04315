"""Cut recordings into clips of the record format.

A clip is `frames` consecutive pictures, every `stride`-th; it never runs across a break. What is
left over at the end of a run is counted, not lost silently.

Read next: ``fit.py`` (sizes), ``checks.py`` (what is refused), ``prepare.py``.
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mirage_jax.data.clip import CAPTION, FAR, ClipShape, ObjectTable
from mirage_jax.data.ingest.fit import Frame, common_frame, fit_colors, fit_depth, fit_nearest
from mirage_jax.data.ingest.recording import Recording
from mirage_jax.data.kinds import SKY, UNKNOWN
from mirage_jax.geometry.camera import rescale_intrinsics


@dataclasses.dataclass(frozen=True)
class CutConfig:
    """How recordings become clips.

    Attributes:
        shape: frames, height and width of a clip.
        stride: every how many-th picture is taken.
        scale: metres of a scene unit; depth and positions are multiplied by it.
    """

    shape: ClipShape
    stride: int = 1
    scale: float = 1.0

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or self.shape.frames < 2 or self.stride < 1 or not self.scale > 0:
            raise ValueError(
                f"clips: got {tuple(self.shape)} frames, height and width, stride {self.stride}, "
                f"scale {self.scale}; expected at least 2 frames and positive numbers"
            )


class Cuts(NamedTuple):
    """Where the clips of a recording begin, and how many of its pictures are in none."""

    starts: tuple[int, ...]
    left_over: int


def cuts_of(recording: Recording, config: CutConfig) -> Cuts:
    """Return the first pictures of all clips."""
    edges = [0, *recording.breaks, len(recording)]
    span = (config.shape.frames - 1) * config.stride + 1
    starts: list[int] = []
    for begin, end in zip(edges[:-1], edges[1:], strict=True):
        # The next clip begins one stride after the last picture of this one.
        step = config.shape.frames * config.stride
        starts.extend(range(begin, end - span + 1, step))
    return Cuts(tuple(starts), len(recording) - len(starts) * config.shape.frames)


def make_clip(recording: Recording, start: int, config: CutConfig) -> dict[str, Any]:
    """Read, fit and stack the pictures of one clip, as in ``../clip.py``, with its caption.

    Raises:
        FileNotFoundError, ValueError: a picture is missing or broken, or of another size.
    """
    frames, height, width = config.shape
    chosen = start + config.stride * np.arange(frames)
    cameras = recording.cameras.taken(chosen)
    if cameras.intrinsics is None:
        raise ValueError(f"{recording.source}: has no intrinsics. Give --intrinsics.")
    frame = common_frame(cameras.intrinsics, recording.hw, (height, width))
    views = [
        _fitted(recording, int(index), matrix, frame, config.scale)
        for index, matrix in zip(chosen, cameras.intrinsics, strict=True)
    ]
    rgb, depth, moving, sky = (np.stack(parts) for parts in zip(*views, strict=True))
    matrices = cameras.cam_to_world.copy()
    matrices[:, :3, 3] *= config.scale
    sky |= depth >= FAR
    return ObjectTable(frames).arrays() | {
        "rgb": rgb,
        "depth": np.where(sky, FAR, depth).astype(np.float16),
        "kind": np.where(sky, SKY, UNKNOWN).astype(np.uint8),
        "sprite": moving,
        "moving": moving,
        "object_index": np.zeros(depth.shape, np.uint8),
        "cam_to_world": matrices.astype(np.float32),
        "intrinsics": frame.intrinsics.astype(np.float32),
        "level": recording.scene,
        "path": f"{recording.name}@{start}",
        "seed": np.int64(stable_number(f"{recording.name}@{start}") >> 1),
        CAPTION: recording.caption,
    }


def stable_number(name: str) -> int:
    """Return a number below 2^64 that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def split_of(scene: str, val_share: float) -> str:
    """Return "train" or "val": all clips of a scene are on one side, whatever else there is."""
    return "val" if stable_number(f"split/{scene}") < val_share * 2**64 else "train"


def _fitted(
    recording: Recording, index: int, matrix: np.ndarray, frame: Frame, scale: float
) -> Iterator[np.ndarray]:
    picture = recording.picture(index)
    if picture.rgb.shape[:2] != recording.hw:
        raise ValueError(
            f"{recording.source}: frame {index} is {picture.rgb.shape[0]}x{picture.rgb.shape[1]}, "
            f"expected {recording.hw[0]}x{recording.hw[1]} as the first. Resize the pictures alike."
        )
    if picture.depth is None:
        raise ValueError(f"{recording.source}: frame {index} has no depth.")
    yield fit_colors(picture.rgb, matrix, frame)
    own = recording.depth_intrinsics
    if own is None:
        own = _checked_grid(matrix, recording, picture.depth.shape)
    yield fit_depth(picture.depth, own, frame) * np.float32(scale)
    for mask in (picture.moving, picture.sky):
        if mask is None:
            yield np.zeros(frame.hw, bool)
        else:
            yield fit_nearest(mask, _checked_grid(matrix, recording, mask.shape), frame)


def _checked_grid(matrix: np.ndarray, recording: Recording, shape: tuple[int, ...]) -> np.ndarray:
    """Return intrinsics for another grid of the same picture."""
    height, width = recording.hw
    # A grid rounded to whole pixels (or to multiples of 8) is still the same picture.
    if abs(shape[0] * width - shape[1] * height) > 0.03 * height * shape[1]:
        raise ValueError(
            f"{recording.source}: depth of {shape[0]}x{shape[1]} does not go with pictures of "
            f"{height}x{width}: expected the same aspect. Was one of them cropped?"
        )
    return rescale_intrinsics(matrix, recording.hw, (shape[0], shape[1]))
