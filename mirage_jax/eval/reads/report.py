"""What a read evaluation reports: JSON, Markdown tables and a contact sheet.

Read next: `eval/report.py` (intervals), `evaluate.py` (what the figures mean).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mirage_jax.eval import report
from mirage_jax.rollout import sheet

_SHEET = ("target", "nearest", "placed", "learned", "decoded", "rgb", "own")
_GROUPS = (("by_zoom", "zoom (size now over size then)"), ("by_angle", "degrees turned"))
_COLUMNS = (
    ("psnr", "PSNR dB", 2),
    ("over_nearest", "over nearest", 2),
    ("psnr_hit", "hit dB", 2),
    ("psnr_frame", "frame dB", 2),
    ("ssim", "SSIM", 3),
    ("gradient", "gradient", 2),
    ("coverage", "coverage", 2),
    ("lpips_alex", "LPIPS alex", 3),
    ("lpips_vgg", "LPIPS vgg", 3),
)


def results(measure: Any, pairs: Mapping[int, Sequence[Any]], fixed: bool, config: Any) -> dict:
    """Return what read.json holds, but for the time it took."""
    gaps = {f"gap{gap}": _rows(table) for gap, table in measure.by_gap.items()}
    kept = {name: float(np.mean(sizes)) for name, sizes in measure.bytes.items()}
    for rows in gaps.values():
        for name, row in rows.items():
            row["bytes"] = kept.get(name)
    return gaps | {
        "by_zoom": {name: _rows(table) for name, table in measure.by_zoom.items()},
        "by_angle": {name: _rows(table) for name, table in measure.by_angle.items()},
        "milliseconds": {
            name: float(np.median(values)) for name, values in measure.milliseconds.items()
        },
        "protocol": dataclasses.asdict(config)
        | {
            "fixed_list": fixed,
            "pairs": {f"gap{gap}": len(chosen) for gap, chosen in pairs.items()},
            "seen": {
                f"gap{gap}": float(np.mean(values)) for gap, values in measure.seen_share.items()
            },
        },
    }


def write(directory: Path, world: str, values: dict[str, Any], measure: Any) -> None:
    """Write read.json, read.md and read.png into a folder."""
    report.write_report(directory, "read", values, _markdown(world, values, measure))
    titles = [name for name in _SHEET if name in measure.panels[0]]
    panels = [[panel[name] for name in titles] for panel in measure.panels]
    gaps = ", ".join(str(gap) for gap in measure.by_gap)
    sheet.write_sheet(directory / "read.png", panels, titles, f"gaps of {gaps} frames, from above")


def _rows(table: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]) -> dict[str, dict]:
    """Return row -> metric -> mean over clips, with `<metric>_ci95` beside it."""
    clips = {
        name: {metric: _clip_means(values) for metric, values in metrics.items()}
        for name, metrics in table.items()
    }
    for name in clips if "nearest" in clips else ():
        clips[name]["over_nearest"] = {
            clip: value - clips["nearest"]["psnr"][clip]
            for clip, value in clips[name]["psnr"].items()
        }
    rows: dict[str, dict] = {}
    for name, metrics in clips.items():
        rows[name] = {}
        for metric, means in metrics.items():
            summary = report.summarize(list(means.values()))
            rows[name][metric] = summary.get("mean")
            rows[name][f"{metric}_ci95"] = [summary.get("ci95_low"), summary.get("ci95_high")]
        rows[name]["clips"] = report.summarize(list(metrics["psnr"].values()))["count"]
    return rows


def _clip_means(values: Sequence[tuple[int, float]]) -> dict[int, float]:
    """Return the mean over the pairs of each clip, without those that are not finite."""
    clips: dict[int, list[float]] = {}
    for clip, value in values:
        if np.isfinite(value):
            clips.setdefault(clip, []).append(value)
    return {clip: float(np.mean(known)) for clip, known in clips.items()}


def _markdown(world: str, values: dict[str, Any], measure: Any) -> str:
    protocol = values["protocol"]
    chosen = "the fixed list" if protocol["fixed_list"] else "these data, by the list's own rule"
    parts = [
        f"""# Reads of one written frame, world {world}

The frame is written with true depth, read at the camera of a later frame and decoded as a camera at
rest sees it. Pairs from {chosen}; mean ± half of the 95 % bootstrap interval over clips. PSNR,
SSIM and gradient on the cells that the written frame saw, the same for every row; *hit*: those of
them where the nearest read found a row; *over nearest*: paired over clips."""
    ]
    gaps = [name for name in values if name.startswith("gap")]
    for gap in gaps:
        count, seen = protocol["pairs"][gap], protocol["seen"][gap]
        title = (
            f"## {gap.removeprefix('gap')} frames later ({count} pairs, {seen:.0%} of cells seen)"
        )
        parts += [title, _table(values[gap], _COLUMNS)]
    parts += ["## PSNR by gap", _across({gap: values[gap] for gap in gaps}, "psnr", 2)]
    parts += ["## SSIM by gap", _across({gap: values[gap] for gap in gaps}, "ssim", 3)]
    for key, words in (
        ("by_zoom", "zoom (size now over size then)"),
        ("by_angle", "degrees turned"),
    ):
        groups = {
            name: values[key][name] for name in _in_order(measure, key) if name in values[key]
        }
        parts += [f"## PSNR by {words}, all gaps", _across(groups, "psnr", 2)]
    parts += ["## Rows", _cost_table(values, measure)]
    return "\n\n".join(parts)


def _in_order(measure: Any, key: str) -> list[str]:
    """Return the groups from the least to the greatest."""

    def place(name: str) -> float:
        return -1.0 if name.startswith("below") else float(name.split()[0])

    return sorted(getattr(measure, key), key=place)


def _table(rows: Mapping[str, Mapping[str, Any]], columns: Sequence[tuple[str, str, int]]) -> str:
    used = [c for c in columns if any(row.get(c[0]) is not None for row in rows.values())]
    lines = ["| | " + " | ".join(c[1] for c in used) + " |", "|---" * (len(used) + 1) + "|"]
    for name, row in rows.items():
        cells = [_cell(row, metric, decimals) for metric, _, decimals in used]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _across(groups: Mapping[str, Mapping[str, Any]], metric: str, decimals: int) -> str:
    names = list(next(iter(groups.values())))
    lines = ["| | " + " | ".join(groups) + " |", "|---" * (len(groups) + 1) + "|"]
    for name in names:
        cells = [_cell(rows.get(name, {}), metric, decimals) for rows in groups.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(row: Mapping[str, Any], metric: str, decimals: int) -> str:
    if row.get(metric) is None:
        return "–"
    low, high = row[f"{metric}_ci95"]
    return f"{row[metric]:.{decimals}f} ± {(high - low) / 2:.{decimals}f}"


def _cost_table(values: Mapping[str, Any], measure: Any) -> str:
    """Say what each row is, what it keeps of a written frame and what a read of one view takes."""
    kept = {name: row["bytes"] for name, row in next(iter(_gaps(values))).items()}
    lines = ["| | what it is | bytes a written frame | ms a read |", "|---|---|---|---|"]
    for name, row in measure.rows.items():
        size = "–" if kept.get(name) is None else f"{kept[name]:,.0f}"
        lines.append(f"| {name} | {row.words} | {size} | {values['milliseconds'][name]:.1f} |")
    lines.append(f"| copy | the written frame itself | {kept['copy']:,.0f} | – |")
    return "\n".join(lines)


def _gaps(values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [rows for name, rows in values.items() if name.startswith("gap")]
