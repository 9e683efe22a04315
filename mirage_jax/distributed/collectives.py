"""What devices send each other in a compiled program, read off its text.

Conventions: a loop's body counts as often as the loop runs, where the program says how often: scans
do, or count up to a constant; other loops count once. Bytes are those of the result, and those that
a device must send at least with a ring: (n - 1)/n of the gathered array for gathers, reductions to
shares and exchanges, twice that for reductions to all.

Read next: `targets.py`.
"""

from __future__ import annotations

import dataclasses
import math
import re

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_CALL = re.compile(rf"= (\(.*?\)|\S+) ({'|'.join(KINDS)})(-start)?\(")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation|async_computation)"
    r"=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'known_trip_count[^0-9]*"?n"?[^0-9]*(\d+)')
_SHAPE = re.compile(r"\b(pred|[suf]\d+\w*|bf16|c\d+)\[([\d,]*)\]")
_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]")
# replica_groups=mesh['data'=1,'fsdp'=64] {'fsdp'}, or {'fsdp':(2)4} for a part of an axis
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}")
_LIMIT = re.compile(r"%?([\w.\-]+) = s32\[\]\S* constant\((\d+)\)")


@dataclasses.dataclass
class Traffic:
    """All collectives of one kind.

    Attributes:
        count: how often a device takes part in one.
        bytes: of their results on a device.
        sent: bytes that a device sends.
    """

    count: int = 0
    bytes: float = 0.0
    sent: float = 0.0


def read_collectives(text: str, devices: int) -> dict[str, Traffic]:
    """Count the collectives of a compiled program.

    Args:
        text: `compiled.as_text()`.
        devices: of the program; the size of a group that is not stated.

    Returns:
        Kind -> traffic of one device, of the kinds that occur.
    """
    bodies, entry = _computations(text)
    found: dict[str, Traffic] = {}
    _visit(bodies, entry, 1, devices, found)
    return found


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    bodies: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        stripped = line.strip()
        if match := _COMPUTATION.match(stripped):
            lines = bodies.setdefault(match[1], [])
            entry = match[1] if stripped.startswith("ENTRY") else entry
        else:
            lines.append(stripped)
    return bodies, entry


def _visit(bodies, name: str, times: int, devices: int, found: dict[str, Traffic]) -> None:
    for line in bodies.get(name, ()):
        if match := _CALL.search(line):
            kind = match[2]
            size, sent = _bytes(kind, match[1], bool(match[3]), _group(line, devices))
            traffic = found.setdefault(kind, Traffic())
            traffic.count += times
            traffic.bytes += times * size
            traffic.sent += times * sent
        inside = times * (_trips(bodies, line) if " while(" in line else 1)
        called = _CALLED.findall(line)
        for branches in _BRANCHES.findall(line):
            called += [part.strip().lstrip("%") for part in branches.split(",")]
        for other in called:
            _visit(bodies, other, inside, devices, found)


def _trips(bodies: dict[str, list[str]], line: str) -> int:
    """Return how often a loop runs: as stated, or the constant that its condition counts up to."""
    if match := _TRIPS.search(line):
        return int(match[1])
    condition = re.search(r"condition=%?([\w.\-]+)", line)
    lines = bodies.get(condition[1], []) if condition else []
    root = next((text for text in lines if text.startswith("ROOT")), "")
    if " compare(" not in root or "direction=LT" not in root:
        return 1
    limits = [m for text in lines if (m := _LIMIT.match(text)) and m[1] in root]
    return int(limits[0][2]) if len(limits) == 1 else 1


def _group(line: str, devices: int) -> int:
    if match := _MESH.search(line):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", match[1])}
        parts = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", match[2])
        return math.prod(int(part) if part else sizes[name] for name, part in parts)
    if match := _IOTA.search(line):
        return int(match[2])
    if match := _LISTED.search(line):
        return max(1, match[1].count(",") + 1)
    return devices


def _bytes(kind: str, shape: str, started: bool, group: int) -> tuple[float, float]:
    """Return the bytes of the result and those that a device sends."""
    size = float(sum(_shape_bytes(*match) for match in _SHAPE.findall(shape)))
    if started:  # (operands, results), but for all-reduces
        size *= {
            "all-gather": group / (group + 1),
            "all-reduce": 1.0,
            "reduce-scatter": 1 / (group + 1),
            "all-to-all": 1 / 2,
            "collective-permute": 1 / 2,
        }[kind]
    share = (group - 1) / group
    sent = {
        "all-gather": size * share,
        "all-reduce": 2 * size * share,
        "reduce-scatter": size * (group - 1),
        "all-to-all": size * share,
        "collective-permute": size,
    }[kind]
    return size, sent


def _shape_bytes(kind: str, extents: str) -> int:
    bits = 8 if kind == "pred" else int(re.search(r"\d+", kind)[0])  # type: ignore[index]
    count = math.prod(int(part) for part in extents.split(",") if part)
    return count * max(1, bits // 8)
