"""Compiled programs as text: their computations, and how often each operation runs.

Conventions: the body of a loop runs as often as the program says: as stated, or up to the constant
that its condition counts to. Where that depends on data, as often as the caller says.

Read next: `collectives.py`, `mirage_jax/plan/shares.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation|async_computation)"
    r"=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_TRIPS = re.compile(r'known_trip_count[^0-9]*"?n"?[^0-9]*(\d+)')
_LIMIT = re.compile(r"%?([\w.\-]+) = s32\[\]\S* constant\((\d+)\)")
_SHAPE = re.compile(r"\b(pred|[suf]\d+\w*|bf16|c\d+)\[([\d,]*)\]")


class Program(NamedTuple):
    """The text of a compiled program.

    Attributes:
        bodies: name of a computation -> its lines, stripped.
        entry: name of the one that runs.
    """

    bodies: dict[str, list[str]]
    entry: str


class Visit(NamedTuple):
    """A computation as it is reached from another.

    Attributes:
        name: of the computation.
        times: how often it runs.
        caller: the line that calls it; "" for the entry.
        inside: the visit of that line's computation; None for the entry.
    """

    name: str
    times: float
    caller: str
    inside: Visit | None


def parse_program(text: str) -> Program:
    """Read `compiled.as_text()`."""
    bodies: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        stripped = line.strip()
        if match := _COMPUTATION.match(stripped):
            lines = bodies.setdefault(match[1], [])
            entry = match[1] if stripped.startswith("ENTRY") else entry
        else:
            lines.append(stripped)
    return Program(bodies, entry)


def visits(program: Program, unknown: float = 1) -> Iterator[Visit]:
    """Yield every computation, once for each line that calls it, callers first.

    Args:
        program: to walk through.
        unknown: how often loops run of which the program does not say it.
    """
    waiting = [Visit(program.entry, 1, "", None)]
    while waiting:
        visit = waiting.pop()
        yield visit
        for line in program.bodies.get(visit.name, ()):
            if called := called_by(line):
                times = visit.times
                if " while(" in line:
                    times *= _trips(program.bodies, line) or unknown
                waiting += [Visit(name, times, line, visit) for name in called]


def called_by(line: str) -> list[str]:
    """Return the names of the computations that an operation calls."""
    called = _CALLED.findall(line)
    for branches in _BRANCHES.findall(line):
        called += [part.strip().lstrip("%") for part in branches.split(",")]
    return called


def shapes_in(text: str) -> list[tuple[str, tuple[int, ...]]]:
    """Return the element type and the extents of every array that a text names."""
    return [
        (kind, tuple(int(part) for part in extents.split(",") if part))
        for kind, extents in _SHAPE.findall(text)
    ]


def shape_bytes(kind: str, extents: tuple[int, ...]) -> int:
    """Return the bytes of an array."""
    bits = 8 if kind == "pred" else int(re.search(r"\d+", kind)[0])  # type: ignore[index]
    return math.prod(extents) * max(1, bits // 8)


def _trips(bodies: dict[str, list[str]], line: str) -> int | None:
    """Return how often a loop runs: as stated, or the constant that its condition counts up to."""
    if match := _TRIPS.search(line):
        return int(match[1])
    condition = _CONDITION.search(line)
    lines = bodies.get(condition[1], []) if condition else []
    root = next((text for text in lines if text.startswith("ROOT")), "")
    if " compare(" not in root or "direction=LT" not in root:
        return None
    limits = [m for text in lines if (m := _LIMIT.match(text)) and m[1] in root]
    return int(limits[0][2]) if len(limits) == 1 else None
