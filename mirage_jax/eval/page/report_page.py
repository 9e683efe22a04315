"""The page of a protocol: one HTML file with its pictures, videos and charts inside.

It opens without a network. Order: what was found in a sentence; the worst scenes as videos and
strips, since they tell most; the first metric, all others, curves; the table; how it was run.
Read next: `charts.py`, `media.py`, `style.css`.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mirage_jax.eval import anchors
from mirage_jax.eval.image import PSNR_OF_EQUAL_FRAMES
from mirage_jax.eval.metric_names import HEADLINE, METRICS
from mirage_jax.eval.page import charts, media
from mirage_jax.eval.protocols import Protocol
from mirage_jax.eval.results import ResultFile
from mirage_jax.eval.run_protocol import video_path
from mirage_jax.eval.summary import (
    Summary,
    cell,
    curves_of,
    gains_over,
    summarize,
    values_of,
)
from mirage_jax.eval.systems import SYSTEMS

_MAIN = "latent"
_WORST, _BEST = 4, 1
_MOST_BESIDE = 5
_STRIP = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
TITLES = {
    "nvs": "Novel views along recorded paths",
    "revisit": "Leaving a view and coming back",
    "camera": "Seen from where it was asked for?",
    "motion": "Motion from frame to frame",
}
LEADS = {
    "nvs": "One start picture with depth and the recorded cameras go in; every generated frame "
    "is compared with the one the engine showed.",
    "revisit": "The camera leaves the start view until nothing of it is in the picture, and "
    "returns to the very same place; the last frame is compared with the start picture.",
    "camera": "The camera of generated frames is found in the pictures, against the true geometry "
    "of the same places.",
    "motion": "Optical flow between adjacent generated frames is compared with that of the true "
    "ones.",
}
NOTE = (
    "Large dots are means with 95 % intervals over scenes, small ones are single scenes; an arrow "
    "is a perfect value, beyond the axis."
)
_CURVES = {
    "psnr_by_chunk": ("By chunk: does it drift?", "chunk", "PSNR dB"),
    "displacement_by_chunk": ("By chunk: do things stay in place?", "chunk", "displacement px"),
    "psnr_by_lap": ("The same path again and again: the return of each lap", "lap", "PSNR dB"),
    "displacement_by_lap": ("Displacement at the return of each lap", "lap", "displacement px"),
}
_COLORS = {
    _MAIN: "var(--latent)",
    "no_memory": "var(--none)",
    anchors.TRUTH: "var(--dark)",
    anchors.CODEC: "var(--codec)",
    **dict.fromkeys((anchors.COPY, anchors.BLURRED, anchors.SHIFTED), "var(--gray)"),
}
_SYNC = """
document.querySelectorAll('.wall').forEach(wall => {
  const videos = [...wall.querySelectorAll('video')];
  videos[0]?.addEventListener('timeupdate', () => videos.slice(1).forEach(other => {
    if (Math.abs(other.currentTime - videos[0].currentTime) > 0.15)
      other.currentTime = videos[0].currentTime;
  }));
});
"""


def report_page(
    results: ResultFile, protocol: Protocol, folder: Path, told: Mapping[str, Any]
) -> str:
    """Return the page.

    Args:
        results: what was measured.
        protocol: with its setting.
        folder: of the protocol, where the videos lie.
        told: how it was run: command, setting, versions, device.
    """
    summary = summarize(results)
    colors = colors_of(list(summary))
    title = TITLES[protocol.name]
    parts = [
        f"<h1>{title}</h1>",
        f'<p class="soft">{LEADS[protocol.name]}</p>',
        verdict(results, protocol, summary),
        _scenes(results, protocol, folder, list(summary)),
        _metrics_section(results, protocol, summary, colors),
        _curve_cards(results, colors),
        "<h2>Table</h2>" + table_of(summary),
        how_it_was_run(told, list(summary)),
    ]
    return html_document(title, parts)


def html_document(title: str, parts: Sequence[str]) -> str:
    """Return a page of its own style and script."""
    style = (Path(__file__).parent / "style.css").read_text()
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style}</style></head><body><main>"
        + "\n".join(parts)
        + f"</main><script>{_SYNC}</script></body></html>\n"
    )


def colors_of(names: Sequence[str]) -> dict[str, str]:
    """Return the colour of each system."""
    others = [name for name in names if name not in _COLORS]
    return _COLORS | {name: f"var(--c{i % 6})" for i, name in enumerate(others)}


def verdict(results: ResultFile, protocol: Protocol, summary: Summary) -> str:
    """Return what was found in a sentence: the main system, and how far it is from the others."""
    metric = HEADLINE[protocol.name]
    name = METRICS[metric]
    mine = summary.get(_MAIN, {}).get(metric)
    if mine is None:
        return ""
    text = f"<b>{_MAIN}</b>: {name.title} <b>{cell(mine, name.decimals)}</b>"
    gains = gains_over(results, protocol.name)
    for other in ("no_memory", "rgb_cache", anchors.CODEC):
        if other in gains:
            g = gains[other]
            word = "better" if g.mean >= 0 else "worse"
            text += (
                f" · <b>{abs(g.mean):.{name.decimals}f}</b> {word} than {other} "
                f"(95 % {g.low:+.{name.decimals}f} to {g.high:+.{name.decimals}f})"
            )
    scenes = f"{mine.scenes} scenes, {mine.runs} runs"
    return f'<p class="verdict">{text}</p><p class="soft">{scenes}; intervals over scenes.</p>'


def _ordered(results: ResultFile, protocol: Protocol) -> list[tuple[str, float]]:
    """Return scenes with the main system's value, the worst first."""
    metric = HEADLINE[protocol.name]
    by_scene: dict[str, list[float]] = {}
    for (scene, _), value in values_of(results.of_system(_MAIN), metric).items():
        if np.isfinite(value):
            by_scene.setdefault(scene, []).append(value)
    means = [(scene, float(np.mean(values))) for scene, values in by_scene.items()]
    sign = 1.0 if METRICS[metric].better == "high" else -1.0
    return sorted(means, key=lambda pair: (sign * pair[1], pair[0]))


def _scenes(results: ResultFile, protocol: Protocol, folder: Path, systems: Sequence[str]) -> str:
    ordered = _ordered(results, protocol)
    if not ordered:
        return ""
    worst = ordered[:_WORST]
    best = [pair for pair in ordered[-_BEST:] if pair not in worst]
    beside = [s for s in systems if s not in (anchors.BLURRED, anchors.SHIFTED, anchors.CODEC)]
    beside = [s for s in beside if s != anchors.COPY][:_MOST_BESIDE]
    levels = {item.name: item.level for item in protocol.items}
    parts = ["<h2>The worst scenes first</h2>"]
    for rank, (scene, value) in enumerate([*worst, *best]):
        if (scene, value) in best:
            parts.append("<h2>And the best one</h2>")
        name = METRICS[HEADLINE[protocol.name]]
        parts.append(
            f'<div class="case"><p><b>{rank + 1 if (scene, value) in worst else "best"}</b> · '
            f"clip {scene} {html.escape(levels.get(scene, ''))} · {_MAIN} "
            f"{name.title} {value:.{name.decimals}f}</p>"
            + _wall(results, protocol, folder, scene, beside)
            + _strips(folder, scene, beside if rank < 2 else beside[:3])
            + "</div>"
        )
    return "".join(parts)


def _wall(
    results: ResultFile, protocol: Protocol, folder: Path, scene: str, systems: Sequence[str]
) -> str:
    metric = HEADLINE[protocol.name]
    figures = []
    for system in systems:
        path = video_path(folder, scene, system)
        if not path.is_file():
            continue
        values = [
            v for (s, _), v in values_of(results.of_system(system), metric).items() if s == scene
        ]
        value = f"{np.nanmean(values):.{METRICS[metric].decimals}f}" if values else ""
        figures.append(
            f'<figure><video src="{media.video_uri(path)}" autoplay muted loop playsinline></video>'
            f"<figcaption><span>{html.escape(system)}</span><b>{value}</b></figcaption></figure>"
        )
    return f'<div class="wall">{"".join(figures)}</div>'


def _strips(folder: Path, scene: str, systems: Sequence[str]) -> str:
    rows = [
        f'<span>{html.escape(system)}</span><img src="{media.strip_uri(path, _STRIP)}" '
        f'alt="{html.escape(system)}, frames from the first to the last">'
        for system in systems
        if (path := video_path(folder, scene, system)).is_file()
    ]
    return (
        f'<details open><summary class="soft">frames from the first to the last</summary>'
        f'<div class="strip">{"".join(rows)}</div></details>'
    )


def _metrics_section(
    results: ResultFile, protocol: Protocol, summary: Summary, colors: Mapping[str, str]
) -> str:
    cards = metric_cards(results, protocol, summary, colors)
    return f'<h2>What was measured</h2><p class="soft">{NOTE}</p><div class="cards">{cards}</div>'


def metric_cards(
    results: ResultFile,
    protocol: Protocol,
    summary: Summary,
    colors: Mapping[str, str],
    most: int | None = None,
) -> str:
    """Return a chart of each metric, the protocol's first one first; at most so many."""
    first = HEADLINE[protocol.name]
    names = [m for m in METRICS if any(m in row for row in summary.values())]
    names = [first, *[name for name in names if name != first]][:most]
    better = {"high": "higher is better", "low": "lower is better", "one": "1 is best", "": ""}
    cards = []
    for metric in names:
        rows = [
            charts.Row(system, colors[system], row[metric], _scene_means(results, system, metric))
            for system, row in summary.items()
            if metric in row
        ]
        about = METRICS[metric]
        unlimited = PSNR_OF_EQUAL_FRAMES - 1.0 if "dB" in about.title else None
        cards.append(
            f'<div class="card"><h3>{about.title} <span class="soft">{better[about.better]}</span>'
            f'</h3><p class="soft">{about.meaning}</p>'
            + charts.dot_chart(rows, about.decimals, unlimited)
            + "</div>"
        )
    return "".join(cards)


def _scene_means(results: ResultFile, system: str, metric: str) -> tuple[float, ...]:
    by_scene: dict[str, list[float]] = {}
    for (scene, _), value in values_of(results.of_system(system), metric).items():
        if np.isfinite(value):
            by_scene.setdefault(scene, []).append(value)
    return tuple(float(np.mean(values)) for values in by_scene.values())


def _curve_cards(results: ResultFile, colors: Mapping[str, str]) -> str:
    cards = []
    hidden = (anchors.BLURRED, anchors.SHIFTED, anchors.TRUTH)
    for curve, (title, x_title, y_title) in _CURVES.items():
        found = {n: c for n, c in curves_of(results, curve).items() if n not in hidden}
        if not found:
            continue
        unlimited = PSNR_OF_EQUAL_FRAMES - 1.0 if "dB" in y_title else None
        cards.append(
            f'<div class="card"><h3>{title}</h3>'
            + charts.line_chart(found, colors, x_title, y_title, unlimited)
            + charts.legend(list(found), colors)
            + "</div>"
        )
    return f'<h2>Over time</h2><div class="cards">{"".join(cards)}</div>' if cards else ""


def table_of(summary: Summary) -> str:
    """Return the table of a protocol."""
    names = [m for m in METRICS if any(m in row for row in summary.values())]
    head = "".join(f"<th>{METRICS[name].title}</th>" for name in names)
    rows = "".join(
        f'<tr class="{"anchor" if system in anchors.DESCRIPTIONS else ""}"><td>{system}</td>'
        + "".join(f"<td>{cell(row.get(n), METRICS[n].decimals)}</td>" for n in names)
        + "</tr>"
        for system, row in summary.items()
    )
    return (
        f'<div class="scroll"><table><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def how_it_was_run(told: Mapping[str, Any], systems: Sequence[str]) -> str:
    """Return who is who, and the facts of a run."""
    known = {name: system.description for name, system in SYSTEMS.items()} | anchors.DESCRIPTIONS
    rows = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(known.get(name, ''))}</dd>"
        for name in systems
    )
    facts = html.escape(json.dumps(dict(told), indent=2))
    return (
        f"<h2>Who is who</h2><dl>{rows}</dl><h2>How it was run</h2><pre>{facts}</pre>"
        f'<p class="soft">Scenes and seeds are fixed in files; the same command gives the same '
        f"numbers.</p>"
    )
