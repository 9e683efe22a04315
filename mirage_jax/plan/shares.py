"""What a part of a compiled program costs, beside the whole of it: operations and bytes by count.

A part is what ran under `jax.named_scope`: the compiler keeps the names, in forward and backward
passes alike. Wherever it cannot be told whether something belongs to the part, it is counted as
such, so a part's cost is at most what is said.

Conventions: bytes are those that operations read and write in the device's main memory: their
operands and results, of slices only what is sliced; what lies in vector memory costs nothing.
Operations of the part are one for each element of a result, two for a product's multiplication and
addition; of kernels the most that they can come to.

Read next: `mirage_jax/distributed/programs.py`, `steps.py`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from mirage_jax.distributed.programs import (
    Program,
    Visit,
    called_by,
    parse_program,
    shape_bytes,
    shapes_in,
    visits,
)

_INSTRUCTION = re.compile(r"(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\(([^)]*)\)(.*)")
_ARRAY = re.compile(r"\b(?:pred|[suf]\d+\w*|bf16|c\d+)\[[\d,]*\](?:\{[^}]*\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_SCOPE = re.compile(r'op_name="([^"]*)"')
_CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
_ALIASED = re.compile(r"output_to_operand_aliasing=\{\{\}: \((\d+)")
_PASSED_ON = re.compile(r"\{(\d+)\}: \((\d+), \{\}\)")
# These move nothing themselves.
_FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast while conditional call after-all iota "
    "optimization-barrier partition-id replica-id async-start call-start add-dependency".split()
)
# What has started goes on and ends at no further cost.
_LATER = ("-update", "-done")
_LOOPS = frozenset(["while", "conditional", "call", "async-start", "call-start"])
_SLICES = frozenset(["dynamic-slice", "gather", "slice"])
# Kernels that go through their tables once for each view, and what comparing a row with a cell
# takes: at most every row is compared with every cell. The others copy.
_BY_VIEW, _COMPARED = "walk_pages", 8


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one device does in one run.

    Attributes:
        operations: of the part; of the whole they are counted from the config instead.
        bytes: read from and written to main memory.
    """

    operations: float
    bytes: float


@dataclasses.dataclass(frozen=True)
class Turns:
    """How often happens what depends on data, at most.

    Attributes:
        loops: turns of a loop without a constant limit: pages of a memory.
        views: cameras that a kernel walks through a memory for.
    """

    loops: int = 1
    views: int = 1


class _Line(NamedTuple):
    """One operation: its name, result, kind, operands, and all that follows."""

    name: str
    shape: str
    kind: str
    operands: list[str]
    rest: str


def count(text: str, scopes: tuple[str, ...], turns: Turns) -> tuple[Cost, Cost]:
    """Count what a program and the part of it under some scopes cost.

    Args:
        text: `compiled.as_text()`.
        scopes: names given to `jax.named_scope`.
        turns: bounds for what depends on data.

    Returns:
        The whole, whose operations are not counted (0), and the part.
    """
    return _Counter(parse_program(text), scopes, turns).count()


class _Counter:
    """Walks through a program once."""

    def __init__(self, program: Program, scopes: tuple[str, ...], turns: Turns) -> None:
        self.program, self.turns = program, turns
        self.scopes = re.compile(rf"\b(?:{'|'.join(map(re.escape, scopes))})\b")
        self.lines = {name: list(_lines(body)) for name, body in program.bodies.items()}
        self.named = {name: {x.name: x for x in lines} for name, lines in self.lines.items()}

    def count(self) -> tuple[Cost, Cost]:
        whole = operations = part = 0.0
        for visit in visits(self.program, self.turns.loops):
            inherited, outside = self._place(visit)
            for line in self.lines.get(visit.name, ()):
                mine = inherited or self._in_part(line, visit.name)
                if outside:
                    size = visit.times * self._bytes(line, visit.name)
                    whole, part = whole + size, part + mine * size
                if mine:
                    operations += visit.times * self._operations(line, visit.name)
        return Cost(0.0, whole), Cost(operations, part)

    def _place(self, visit: Visit) -> tuple[bool, bool]:
        """Return whether the part calls this computation, and whether it is in no fusion."""
        part, outside = False, True
        here: Visit | None = visit
        while here is not None and here.inside is not None:
            match = _INSTRUCTION.match(here.caller)
            part |= self._scoped(here.caller)
            outside &= match is not None and match[3] in _LOOPS
            here = here.inside
        return part, outside

    def _scoped(self, text: str) -> bool:
        match = _SCOPE.search(text)
        return match is not None and self.scopes.search(match[1]) is not None

    def _in_part(self, line: _Line, computation: str) -> bool:
        """Return whether an operation, something fused into it, or what it moves is the part's."""
        if self._scoped(line.rest):
            return True
        if line.kind == "fusion":
            return any(self._scoped(x) for n in called_by(line.rest) for x in self._body(n))
        if _SCOPE.search(line.rest) or line.kind in _FREE:
            return False
        given = (self.named[computation].get(name) for name in line.operands)
        return any(self._scoped(x.rest) for x in given if x is not None)

    def _body(self, name: str) -> list[str]:
        return self.program.bodies.get(name, [])

    def _operations(self, line: _Line, computation: str) -> float:
        if line.kind in _FREE | {"fusion", "copy"} or line.kind.endswith(_LATER):
            return 0.0
        elements = sum(math.prod(extents) for _, extents in shapes_in(line.shape))
        given = self._extents(line, computation)
        if line.kind == "custom-call":
            each = max(map(math.prod, given), default=0)
            return _COMPARED * elements * each if _BY_VIEW in line.rest else elements + each
        if line.kind == "dot" and given:
            contracted = _CONTRACTED.search(line.rest)
            axes = [int(axis) for axis in contracted[1].split(",") if axis] if contracted else []
            return 2.0 * elements * math.prod(given[0][axis] for axis in axes)
        if line.kind in ("reduce", "reduce-window", "sort") and given:
            longest = max(math.prod(extents) for extents in given)
            turns = math.log2(max(longest, 2)) if line.kind == "sort" else 1
            return max(elements, longest) * turns
        return float(elements)

    def _extents(self, line: _Line, computation: str) -> list[tuple[int, ...]]:
        given = (self.named[computation].get(name) for name in line.operands)
        return [extents for x in given if x for _, extents in shapes_in(x.shape)[:1]]

    def _bytes(self, line: _Line, computation: str) -> float:
        """Return the bytes that an operation reads and writes in main memory."""
        if line.kind in _FREE or line.kind.endswith(_LATER):
            return 0.0
        here = self.named[computation]
        given = [here[name].shape if name in here else "" for name in line.operands]
        result = _main_bytes(line.shape)
        if line.kind in _SLICES:
            return 2 * result
        if line.kind in ("dynamic-update-slice", "scatter"):
            return 2 * _main_bytes(given[1]) if len(given) > 1 else result
        if line.kind == "copy-start":  # (to, from, ...)
            return result
        if line.kind == "slice-start":  # ((from), to, ...)
            return _main_bytes(_ARRAY.findall(line.shape)[1].split("S(")[0])
        if line.kind == "fusion" and (inner := called_by(line.rest)):
            for output, operand in _PASSED_ON.findall(line.rest):
                given[int(operand)] = ""
                result -= _main_bytes(_ARRAY.findall(line.shape)[int(output)])
            return self._fused_bytes(result, given, inner[0])
        if in_place := _ALIASED.search(line.rest):  # what is put there comes in other operands
            return 2 * sum(_main_bytes(x) for i, x in enumerate(given) if i != int(in_place[1]))
        read = float(sum(map(_main_bytes, given)))
        return result + read * (self.turns.views if _BY_VIEW in line.rest else 1)

    def _fused_bytes(self, result: float, given: list[str], inner: str) -> float:
        """Count a fusion: of operands that are only sliced and of results in place, the slices."""
        lines = self.lines.get(inner, [])
        root = next((x for x in lines if x.name == self._root(inner)), None)
        if root is not None and root.kind == "dynamic-update-slice" and len(root.operands) > 1:
            update = self.named[inner].get(root.operands[1])
            result = min(result, _main_bytes(update.shape) if update else result)
        total = result
        for place, shape in enumerate(given):
            total += min(_main_bytes(shape), self._used_of_operand(lines, place))
        return total

    def _root(self, name: str) -> str:
        line = next((text for text in self._body(name) if text.startswith("ROOT")), "")
        match = _INSTRUCTION.match(line)
        return match[1] if match else ""

    def _used_of_operand(self, lines: list[_Line], place: int) -> float:
        """Return how much of an operand a fusion looks at."""
        parameter = next(
            (x.name for x in lines if x.kind == "parameter" and x.operands == [str(place)]), None
        )
        if parameter is None:
            return math.inf
        names, used = {parameter}, 0.0
        for line in lines:
            if not names.intersection(line.operands):
                continue
            if line.kind == "bitcast":
                names.add(line.name)
            elif line.kind in _SLICES and line.operands[0] in names:
                used += _main_bytes(line.shape)
            elif line.kind == "dynamic-update-slice" and line.operands[0] in names:
                continue
            else:
                return math.inf
        return used


def _lines(body: list[str]) -> Iterator[_Line]:
    for text in body:
        if match := _INSTRUCTION.match(text):
            name, shape, kind, operands, rest = match.groups()
            if kind == "parameter":
                yield _Line(name, shape, kind, [operands], rest)
            else:
                names = _NAME.findall(operands)
                yield _Line(name, shape, kind, names or operands.split(", "), rest)


def _main_bytes(shape: str) -> float:
    """Return the bytes of arrays in main memory; others are marked with their space, as in S(1)."""
    found = 0
    for text in _ARRAY.findall(shape):
        if "S(" not in text:
            found += sum(shape_bytes(*array) for array in shapes_in(text))
    return found
