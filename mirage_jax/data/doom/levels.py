"""Which Freedoom levels belong to which split.

Splits are by level, so that validation frames show rooms training never saw.  Every level not
named here is reserved for measuring results and is refused.  Read next: ``record.py``.
"""

import os
from typing import NamedTuple


class Level(NamedTuple):
    """One level: the game file that ships with ViZDoom and the name inside it."""

    wad: str
    name: str

    def __str__(self) -> str:
        return f"{self.wad.removesuffix('.wad')}/{self.name}"


SPLITS: dict[str, tuple[Level, ...]] = {
    "train": (
        *(Level("freedoom2.wad", f"MAP{number:02d}") for number in range(1, 17)),
        *(Level("freedoom1.wad", f"E1M{number}") for number in range(1, 10)),
    ),
    "val": tuple(Level("freedoom2.wad", f"MAP{number:02d}") for number in range(17, 20)),
}


def levels_of(split: str) -> tuple[Level, ...]:
    """Return the levels of a split.

    Raises:
        ValueError: the split is not one of ``SPLITS``.
    """
    if split not in SPLITS:
        raise ValueError(f"split: got {split!r}, expected one of {sorted(SPLITS)}")
    return SPLITS[split]


def require_recordable(level: Level, split: str) -> None:
    """Refuse a level that does not belong to the split.

    Raises:
        ValueError: the level is in the other split or reserved for measuring.
    """
    allowed = levels_of(split)
    if level in allowed:
        return
    others = [name for name, levels in SPLITS.items() if level in levels]
    reason = f"it belongs to split {others[0]!r}" if others else "it is reserved for measuring"
    raise ValueError(
        f"level: got {level} for split {split!r}, but {reason}; "
        f"expected one of {', '.join(str(one) for one in allowed)}"
    )


def parse_level(text: str) -> Level:
    """Read a level written as ``freedoom2/MAP07``.

    Raises:
        ValueError: the text is not of that form.
    """
    wad, slash, name = text.partition("/")
    if not (wad and slash and name):
        raise ValueError(f"level: got {text!r}, expected a form like 'freedoom2/MAP07'")
    return Level(f"{wad}.wad", name.upper())


def wad_path(level: Level) -> str:
    """Return the path of the game file inside the installed ViZDoom package."""
    import vizdoom

    return os.path.join(os.path.dirname(vizdoom.__file__), level.wad)
