"""Charts of a report as SVG text, drawn by hand so that the page needs neither script nor picture.

Sizes are in the units of a `viewBox`, so charts scale with the page; colours are variables of its
style sheet, so they follow its light and dark dress.
Read next: `report_page.py`.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mirage_jax.eval.bootstrap import Interval

_ROW, _LABEL, _VALUE = 26, 150, 92
_DOTS_WIDTH = 560
_LINES_WIDTH, _LINES_HEIGHT = 560, 300
_MARGIN = (52, 16, 14, 40)  # left, right, top, bottom of line charts


class Row(NamedTuple):
    """One line of a dot chart: a mean with its interval, and what single scenes have."""

    label: str
    color: str
    found: Interval
    scenes: tuple[float, ...] = ()


def dot_chart(rows: Sequence[Row], decimals: int, unlimited: float | None = None) -> str:
    """Return a chart of one metric: a line for each system, single scenes as faint dots.

    Args:
        rows: in order.
        decimals: of the values written at the right.
        unlimited: values from here on stand for perfect; they do not stretch the axis and are
            drawn at its end.
    """
    limited = [
        value
        for row in rows
        for value in (row.found.low, row.found.high, *row.scenes)
        if unlimited is None or value < unlimited
    ]
    low, high, ticks = _axis(limited or [0.0, 1.0])
    inner = _DOTS_WIDTH - _LABEL - _VALUE
    height = _ROW * len(rows) + 30

    def x(value: float) -> float:
        share = (value - low) / (high - low)
        return _LABEL + inner * min(max(share, 0.0), 1.0)

    parts = [_svg_open(_DOTS_WIDTH, height)]
    for tick in ticks:
        parts.append(_line(x(tick), 4, x(tick), height - 24, "grid"))
        parts.append(_text(x(tick), height - 8, _number(tick), "tick", "middle"))
    for index, row in enumerate(rows):
        y = _ROW * index + _ROW / 2 + 4
        beyond = unlimited is not None and row.found.mean >= unlimited
        parts.append(_text(_LABEL - 10, y + 4, row.label, "label", "end"))
        for value in row.scenes:
            if unlimited is None or value < unlimited:
                parts.append(_circle(x(value), y, 2.6, row.color, "scene"))
        if not beyond:
            parts.append(
                f'<line x1="{x(row.found.low):.1f}" y1="{y}" x2="{x(row.found.high):.1f}" '
                f'y2="{y}" class="whisker" style="stroke:{row.color}"/>'
            )
            parts.append(_circle(x(row.found.mean), y, 5, row.color, "dot"))
        else:
            end = _LABEL + inner
            parts.append(
                f'<path d="M{end - 9} {y - 5}L{end} {y}L{end - 9} {y + 5}z" '
                f'style="fill:{row.color}"/>'
            )
        half = (row.found.high - row.found.low) / 2
        text = f"{row.found.mean:.{decimals}f}" + (f" ± {half:.{decimals}f}" if half else "")
        parts.append(_text(_DOTS_WIDTH - 2, y + 4, text, "value", "end"))
    return "".join(parts) + "</svg>"


def line_chart(
    curves: Mapping[str, Sequence[Interval]],
    colors: Mapping[str, str],
    x_title: str,
    y_title: str,
    unlimited: float | None = None,
) -> str:
    """Return curves with bands of their intervals.

    Args:
        curves: name -> points, at 1, 2, ...
        colors: of each name.
        x_title: what is counted to the right.
        y_title: what is measured.
        unlimited: curves that reach this everywhere are perfect and left out.
    """
    shown = {
        name: points
        for name, points in curves.items()
        if unlimited is None or min(p.mean for p in points) < unlimited
    }
    left, right, top, bottom = _MARGIN
    count = max(map(len, shown.values()), default=1)
    low, high, ticks = _axis([v for pts in shown.values() for p in pts for v in (p.low, p.high)])
    width, height = _LINES_WIDTH - left - right, _LINES_HEIGHT - top - bottom

    def x(place: int) -> float:
        return left + width * (place / max(count - 1, 1) if count > 1 else 0.5)

    def y(value: float) -> float:
        return top + height * (1.0 - (value - low) / (high - low))

    parts = [_svg_open(_LINES_WIDTH, _LINES_HEIGHT)]
    for tick in ticks:
        parts.append(_line(left, y(tick), left + width, y(tick), "grid"))
        parts.append(_text(left - 8, y(tick) + 4, _number(tick), "tick", "end"))
    for place in range(count):
        parts.append(_text(x(place), top + height + 16, str(place + 1), "tick", "middle"))
    parts.append(_text(left + width / 2, _LINES_HEIGHT - 6, x_title, "tick", "middle"))
    parts.append(
        f'<text x="12" y="{top + height / 2}" class="tick" text-anchor="middle" '
        f'transform="rotate(-90 12 {top + height / 2})">{html.escape(y_title)}</text>'
    )
    for name, points in shown.items():
        color = colors[name]
        upper = [f"{x(i):.1f},{y(p.high):.1f}" for i, p in enumerate(points)]
        lower = [f"{x(i):.1f},{y(p.low):.1f}" for i, p in enumerate(points)]
        band = " ".join(upper + lower[::-1])
        parts.append(f'<polygon points="{band}" class="band" style="fill:{color}"/>')
        path = " ".join(f"{x(i):.1f},{y(p.mean):.1f}" for i, p in enumerate(points))
        parts.append(f'<polyline points="{path}" class="curve" style="stroke:{color}"/>')
        parts += [_circle(x(i), y(p.mean), 3, color, "dot") for i, p in enumerate(points)]
    return "".join(parts) + "</svg>"


def legend(names: Sequence[str], colors: Mapping[str, str]) -> str:
    """Return the names with their colours."""
    marks = "".join(
        f'<span><i style="background:{colors[name]}"></i>{html.escape(name)}</span>'
        for name in names
    )
    return f'<p class="legend">{marks}</p>'


def _axis(values: Sequence[float]) -> tuple[float, float, list[float]]:
    """Return the ends of an axis with a margin, and round ticks between them."""
    finite = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    span = (high - low) or abs(high) or 1.0
    low, high = low - 0.06 * span, high + 0.06 * span
    step = 10.0 ** math.floor(math.log10(span / 4.0))
    step *= next(m for m in (1, 2, 5, 10) if span / (step * m) <= 6)
    first = math.ceil(low / step)
    return low, high, [k * step for k in range(first, math.floor(high / step) + 1)]


def _number(value: float) -> str:
    return f"{value:.10g}" if abs(value) >= 1e-9 else "0"


def _svg_open(width: float, height: float) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" xmlns="http://www.w3.org/2000/svg">'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _circle(x: float, y: float, radius: float, color: str, kind: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="{kind}" style="fill:{color}"/>'


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">'
        f"{html.escape(text)}</text>"
    )
