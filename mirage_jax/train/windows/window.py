"""One training window: which frames of which clip, and what its memory is made of."""

from __future__ import annotations

from typing import NamedTuple


class MemoryFrame(NamedTuple):
    """One frame a memory is made of.

    Attributes:
        backwards: 1 if it belongs to the clip played the other way than the targets.
        position: latent frame, counted in its own playing direction.
        start: whether it is a start picture, stored as `ChunkConfig.write` says.
    """

    backwards: int
    position: int
    start: bool


class Window(NamedTuple):
    """One window of one clip; `start` is frame k, counted in playing direction `direction`.

    In a `still` window the camera rests at frame k.
    """

    clip: int
    mirrored: int
    direction: int
    start: int
    first: bool
    memory: tuple[MemoryFrame, ...]
    still: bool = False
