"""Tables of measurements: summary over views with its uncertainty, as JSON and as Markdown.

A table is a mapping row -> metric -> list of one value per view; rows are compared on the same
views.
Read next: `mirage_jax/eval/follow.py`; protocols have `mirage_jax/eval/summary.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mirage_jax.eval.bootstrap import mean_interval

Table = Mapping[str, Mapping[str, Sequence[float]]]

_RESAMPLES = 1000


def summarize(values: Sequence[float]) -> dict[str, float | int]:
    """Return mean, median, the mean's 95 % bootstrap interval and the count.

    NaN values are left out.

    The resampling is seeded, so equal values give equal intervals.
    """
    array = np.asarray(values, np.float64)
    array = array[np.isfinite(array)]
    if array.size == 0:
        return {"count": 0}
    low, high = mean_interval(array, _RESAMPLES)
    return {
        "mean": float(array.mean()),
        "median": float(np.median(array)),
        "ci95_low": low,
        "ci95_high": high,
        "count": int(array.size),
    }


def summarize_table(table: Table) -> dict[str, dict[str, dict[str, float | int]]]:
    """Summarize every row and metric of a table."""
    return {
        row: {name: summarize(values) for name, values in metrics.items()}
        for row, metrics in table.items()
    }


def paired_gain(table: Table, row: str, over: str, metric: str = "psnr") -> dict[str, float | int]:
    """Summarize the difference of two rows, view by view."""
    return summarize(np.asarray(table[row][metric]) - np.asarray(table[over][metric]))


def markdown_table(table: Table, metrics: Sequence[tuple[str, str, int]]) -> str:
    """Return a Markdown table of means with half-width intervals.

    Args:
        table: rows to print, in order.
        metrics: (key, heading, decimals) of each column; a "median:" prefix prints the median
            instead.
    """
    lines = [
        "| | " + " | ".join(heading for _, heading, _ in metrics) + " |",
        "|---" * (len(metrics) + 1) + "|",
    ]
    for row, values in table.items():
        cells = [_cell(values, key, decimals) for key, _, decimals in metrics]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_report(directory: Path, name: str, results: Mapping[str, Any], text: str) -> None:
    """Write `name`.json and `name`.md into a folder, made if needed."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.json").write_text(json.dumps(jsonable(results), indent=2) + "\n")
    (directory / f"{name}.md").write_text(text.rstrip() + "\n")


def jsonable(value: Any) -> Any:
    """Return `value` with NumPy scalars and arrays as plain ones.

    Floats are rounded; those that are not finite become None.
    """
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, np.generic):
        return jsonable(value.item())
    if isinstance(value, float):
        return round(value, 6) if np.isfinite(value) else None
    return value


def interval(summary: Mapping[str, float | int]) -> str:
    """Return "mean dB (95 % low to high)" of a summary of differences in dB."""
    if not summary["count"]:
        return "not measured"
    low, high = summary["ci95_low"], summary["ci95_high"]
    return f"{summary['mean']:+.2f} dB (95 % {low:+.2f} to {high:+.2f})"


def _cell(values: Mapping[str, Sequence[float]], key: str, decimals: int) -> str:
    name = key.removeprefix("median:")
    if name not in values:
        return ""
    summary = summarize(values[name])
    if not summary["count"]:
        return "–"
    if key != name:
        return f"{summary['median']:.{decimals}f}"
    half = (summary["ci95_high"] - summary["ci95_low"]) / 2
    return f"{summary['mean']:.{decimals}f} ± {half:.{decimals}f}"
