"""What a comparison with the release yields, and how errors are measured.

Read next: `check.py`.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np


class Line(NamedTuple):
    """One compared case: its worst relative error, whether that is accepted, and what to know."""

    name: str
    error: float
    passed: bool
    note: str = ""


def relative_error(got: Any, expected: Any) -> float:
    """Return the largest absolute difference over the largest absolute value; inf if shapes differ.

    NaN anywhere counts as infinite.
    """
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    if got.shape != expected.shape:
        return float("inf")
    scale = np.abs(expected).max(initial=0.0)
    worst = np.abs(got - expected).max(initial=0.0)
    return float(worst / scale if scale else worst) if np.isfinite(worst) else float("inf")


def within(name: str, error: float, limit: float, note: str = "") -> Line:
    """Return the line of a case that passes up to a limit."""
    return Line(name, error, error <= limit, note)


def combined(name: str, parts: Iterable[Line]) -> Line:
    """Return one line for a case of several parts: the worst error, and what is to be said."""
    parts = list(parts)
    notes = [
        f"{part.name}{'' if part.passed else ' FAILS'}: {part.note or f'{part.error:.2e}'}"
        for part in parts
        if part.note or not part.passed
    ]
    worst = max((part.error for part in parts), default=float("inf"))
    passed = bool(parts) and all(part.passed for part in parts)
    return Line(name, worst, passed, "; ".join(notes))
