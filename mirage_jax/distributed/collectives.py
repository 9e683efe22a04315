"""What devices send each other in a compiled program, read off its text.

Conventions: a loop's body counts as often as the loop runs, where the program says how often: scans
do, or count up to a constant; other loops count once. What starts in one place and is done in
another counts where it starts. Bytes are those of the result, and those that
a device must send at least with a ring: (n - 1)/n of the gathered array for gathers, reductions to
shares and exchanges, twice that for reductions to all.

Read next: `targets.py`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping

from mirage_jax.distributed.programs import parse_program, shape_bytes, shapes_in, visits

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_CALL = re.compile(rf"= (\(.*?\)|\S+) ({'|'.join(KINDS)})(-start)?\(")
_CHAIN, _CHAIN_START = "chain_id=", "%async-collective-start"
_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]")
# replica_groups=mesh['data'=1,'fsdp'=64] {'fsdp'}, or {'fsdp':(2)4} for a part of an axis
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}")


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


def added(parts: Iterable[tuple[Mapping[str, Traffic], int]]) -> dict[str, Traffic]:
    """Return the traffic of several programs, each of which runs so many times."""
    found: dict[str, Traffic] = {}
    for traffics, times in parts:
        for kind, traffic in traffics.items() if times else ():
            total = found.setdefault(kind, Traffic())
            total.count += times * traffic.count
            total.bytes += times * traffic.bytes
            total.sent += times * traffic.sent
    return found


def read_collectives(text: str, devices: int) -> dict[str, Traffic]:
    """Count the collectives of a compiled program.

    Args:
        text: `compiled.as_text()`.
        devices: of the program; the size of a group that is not stated.

    Returns:
        Kind -> traffic of one device, of the kinds that occur.
    """
    program = parse_program(text)
    found: dict[str, Traffic] = {}
    for visit in visits(program):
        for line in program.bodies.get(visit.name, ()):
            match = _CALL.search(line)
            if match and not _goes_on(line, visit.caller):
                kind = match[2]
                size, sent = _bytes(kind, match[1], bool(match[3]), _group(line, devices))
                traffic = found.setdefault(kind, Traffic())
                traffic.count += int(visit.times)
                traffic.bytes += visit.times * size
                traffic.sent += visit.times * sent
    return found


def _goes_on(line: str, caller: str) -> bool:
    """Return whether this is a later part of a collective that overlaps other work on a TPU.

    Such a one is written into each fusion of its chain: where it starts, which alone counts, into
    the products that run meanwhile, and where it is done.
    """
    return _CHAIN in line and not caller.removeprefix("ROOT ").startswith(_CHAIN_START)


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
    size = float(sum(shape_bytes(*array) for array in shapes_in(shape)))
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
