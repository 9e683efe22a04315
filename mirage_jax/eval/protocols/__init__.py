"""Which scenes, seeds and lengths a protocol is: JSON files that are part of the repository.

A file names its items (clip, start frame, level and a checksum of the start picture, so that
another recording is noticed and not measured by mistake), and its settings, `standard` and `quick`:
how many of the items from the front, frames, batch, seeds, systems. Items of the levels alternate,
so that a few are fair to all. `mirage evaluate items` makes a list for another data set.
Read next: `mirage_jax/eval/run_protocol.py`.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mirage_jax import config as config_lib
from mirage_jax.eval.views import is_usable

FOLDER = Path(__file__).parent
NAMES = ("nvs", "revisit", "camera", "motion")


@dataclasses.dataclass(frozen=True)
class Item:
    """One scene of a protocol.

    Attributes:
        clip: index in the split.
        frame: of the clip, where it starts.
        level: of the recording; empty where the data set has none.
        picture: checksum of the start frame.
    """

    clip: int
    frame: int
    level: str
    picture: str

    @property
    def name(self) -> str:
        """Name in files and reports."""
        return f"{self.clip:04d}_{self.frame:03d}"


@dataclasses.dataclass(frozen=True)
class Setting:
    """Size of a run.

    Attributes:
        items: how many, from the front of the list.
        frames: video frames; 1 + temporal stride * n, for revisit of one lap.
        batch: rollouts side by side; a part of what is measured, since sums of floats depend on it.
        seeds: of the noise.
        systems: names in `mirage_jax.eval.systems.SYSTEMS`; () means all that generate.
        laps: of revisit: how often the path is walked.
        path: of revisit: a preset that closes.
        looks: of camera: frames whose camera is looked for.
        depth: what frames are written with: that of the world's depth head, or the true one, which
            recorded paths have.
    """

    items: int
    frames: int
    batch: int = 8
    seeds: tuple[int, ...] = (0, 1, 2)
    systems: tuple[str, ...] = ()
    laps: int = 1
    path: str = "out-and-back"
    looks: int = 8
    depth: Literal["head", "true"] = "head"

    def __post_init__(self) -> None:
        for name in ("items", "frames", "batch", "laps", "looks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1")
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: got {self.seeds}, expected different numbers from 0")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A protocol with the setting that is run."""

    name: str
    items: tuple[Item, ...]
    setting: Setting

    @property
    def folder(self) -> str:
        """Name of the folder of its results; other paths and other depth have others."""
        laps, depth = self.setting.laps, self.setting.depth
        several = f"_laps{laps}" if laps > 1 else ""
        return self.name + several + ("_true_depth" if depth == "true" else "")


def described(protocol: Protocol) -> str:
    """Return what a sentence about scenes and seeds adds where depth is the recorded one."""
    return ", written with recorded depth" if protocol.setting.depth == "true" else ""


def load_protocol(name: str, *, quick: bool = False, path: Path | None = None) -> Protocol:
    """Read a protocol's file.

    Args:
        name: one of `NAMES`.
        quick: take its `quick` setting.
        path: a file of items to use with the protocol's settings, for other data sets.

    Raises:
        ValueError: a file is not one of items and settings.
    """
    own = _read(FOLDER / f"{name}.json")
    items = _read(path) if path else own
    try:
        return Protocol(
            name=name,
            items=tuple(config_lib.from_dict(Item, item) for item in items["items"]),
            setting=config_lib.from_dict(Setting, own["quick" if quick else "standard"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path or name}: got {error}, expected a list of items; make it with "
            "mirage evaluate items"
        ) from error


def list_items(
    clips: Sequence[Mapping[str, Any]], fractions: Sequence[float] = (0.0,)
) -> list[Item]:
    """List usable start frames of a data set, levels in turn.

    Args:
        clips: random access to clips.
        fractions: places in a clip where an item may start; all first ones come before the second.
    """
    items: list[Item] = []
    read = [clips[index] for index in range(len(clips))]
    for fraction in fractions:
        by_level: dict[str, list[Item]] = {}
        for index, clip in enumerate(read):
            frame = int(fraction * (len(clip["rgb"]) - 1))
            if is_usable(clip["depth"][frame]):
                level = str(clip.get("level", ""))
                item = Item(index, frame, level, picture_sum(clip["rgb"][frame]))
                by_level.setdefault(level, []).append(item)
        queues = list(by_level.values())
        items += [
            q[i] for i in range(max(map(len, queues), default=0)) for q in queues if i < len(q)
        ]
    return items


def write_items(items: Sequence[Item], path: Path) -> None:
    """Write a list of items as `--items` reads it."""
    lines = ",\n  ".join(json.dumps(dataclasses.asdict(item)) for item in items)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{{"items": [\n  {lines}\n]}}\n')


def picture_sum(picture: np.ndarray) -> str:
    """Return the checksum (CRC-32) of a picture's bytes."""
    return f"{zlib.crc32(np.ascontiguousarray(picture).tobytes()):08x}"


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
        if not isinstance(values, dict):
            raise ValueError(f"a {type(values).__name__}")
    except ValueError as error:
        raise ValueError(
            f"{path}: got {error}, expected a JSON object with items; make it with "
            "mirage evaluate items"
        ) from error
    return values
