"""From results to numbers: means with intervals for each system and metric, as JSON and Markdown.

Intervals are 95 %, by bootstrap over scenes. Rows come in a fixed order: the truth and its ceiling,
systems, then the anchors that must lose.
Read next: `mirage_jax/eval/page/report_page.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mirage_jax.eval import anchors
from mirage_jax.eval.bootstrap import Interval, Values, gain, interval
from mirage_jax.eval.metric_names import HEADLINE, METRICS
from mirage_jax.eval.metrics.frechet import PatchSums, add_sums, frechet_distance
from mirage_jax.eval.protocols import Protocol
from mirage_jax.eval.report import jsonable
from mirage_jax.eval.results import Record, ResultFile

Summary = dict[str, dict[str, Interval]]
Gains = dict[str, Interval]

_FIRST, _LAST = (anchors.TRUTH, anchors.CODEC), (anchors.COPY, anchors.BLURRED, anchors.SHIFTED)
_DRAWS = 200


def rows_of(results: ResultFile) -> list[str]:
    """Return the systems of a file, in the order of tables."""
    found = list(dict.fromkeys(record.system for record in results.records.values()))
    middle = [name for name in found if name not in (*_FIRST, *_LAST)]
    return [name for name in (*_FIRST, *middle, *_LAST) if name in found]


def values_of(records: list[Record], metric: str) -> Values:
    """Return (scene, seed) -> value of a metric; what could not be told is NaN."""
    return {
        (r.item, r.seed): np.nan if r.metrics[metric] is None else r.metrics[metric]
        for r in records
        if metric in r.metrics
    }


def summarize(results: ResultFile) -> Summary:
    """Return system -> metric -> interval."""
    summary: Summary = {}
    truth = _patches(results.of_system(anchors.TRUTH))
    for system in rows_of(results):
        records = results.of_system(system)
        measured: dict[str, Interval] = {}
        for metric in METRICS:
            found = interval(values_of(records, metric))
            if found is not None:
                measured[metric] = found
        if truth and (mine := _patches(records)):
            measured["frechet_dct"] = _frechet(truth, mine)
        summary[system] = {name: measured[name] for name in METRICS if name in measured}
    return summary


def gains_over(results: ResultFile, protocol: str, system: str = "latent") -> Gains:
    """Return how much better a system is than each other one in the protocol's first metric.

    Positive is better, whatever the metric's direction.
    """
    metric = HEADLINE[protocol]
    sign = 1.0 if METRICS[metric].better == "high" else -1.0
    mine = values_of(results.of_system(system), metric)
    found = {}
    for other in rows_of(results):
        theirs = values_of(results.of_system(other), metric)
        signed = [{key: sign * value for key, value in v.items()} for v in (mine, theirs)]
        difference = gain(*signed)
        if other not in (system, anchors.TRUTH) and difference is not None:
            found[other] = difference
    return found


def curves_of(results: ResultFile, curve: str) -> dict[str, list[Interval]]:
    """Return system -> interval at each place of a curve."""
    found: dict[str, list[Interval]] = {}
    for system in rows_of(results):
        records = [r for r in results.of_system(system) if curve in r.curves]
        places = min((len(r.curves[curve]) for r in records), default=0)
        points = []
        for place in range(places):
            values = {(r.item, r.seed): r.curves[curve][place] for r in records}
            point = interval({k: np.nan if v is None else v for k, v in values.items()})
            if point is not None:
                points.append(point)
        if points:
            found[system] = points
    return found


def json_object(summary: Summary) -> dict[str, dict[str, Any]]:
    """Return system -> metric -> mean, with its interval as `<metric>_ci95`."""
    return {
        system: {
            key: value
            for name, found in metrics.items()
            for key, value in (
                (name, jsonable(found.mean)),
                (f"{name}_ci95", [jsonable(found.low), jsonable(found.high)]),
            )
        }
        for system, metrics in summary.items()
    }


def markdown(protocol: Protocol, summary: Summary, gains: Mapping[str, Interval]) -> str:
    """Return the table of a protocol, with gains below it."""
    columns = [name for name in METRICS if any(name in row for row in summary.values())]
    lines = [
        "| | " + " | ".join(METRICS[name].title for name in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for system, row in summary.items():
        cells = [cell(row.get(name), METRICS[name].decimals) for name in columns]
        lines.append(f"| {system} | " + " | ".join(cells) + " |")
    head = METRICS[HEADLINE[protocol.name]]
    text = "\n".join(lines) + f"\n\n`latent` better than the others in {head.title}, paired:\n\n"
    return text + "\n".join(
        f"- {other}: {g.mean:+.{head.decimals}f} (95 % {g.low:+.{head.decimals}f} to "
        f"{g.high:+.{head.decimals}f})"
        for other, g in gains.items()
    )


def cell(found: Interval | None, decimals: int) -> str:
    """Return "mean ± half of the interval"."""
    if found is None:
        return ""
    half = (found.high - found.low) / 2
    return f"{found.mean:.{decimals}f} ± {half:.{decimals}f}"


def _patches(records: list[Record]) -> dict[str, PatchSums]:
    """Return scene -> sums over its seeds."""
    by_scene: dict[str, list[PatchSums]] = {}
    for record in records:
        if "patches" in record.sums:
            count, total, outer = record.sums["patches"]
            sums = PatchSums(count, np.asarray(total), np.asarray(outer))
            by_scene.setdefault(record.item, []).append(sums)
    return {scene: add_sums(parts) for scene, parts in by_scene.items()}


def _frechet(truth: dict[str, PatchSums], mine: dict[str, PatchSums]) -> Interval:
    """Return the distance over all scenes, with an interval of resampled scenes."""
    scenes = sorted(set(truth) & set(mine))

    def distance(names: list[str]) -> float:
        return frechet_distance(*(add_sums([side[n] for n in names]) for side in (truth, mine)))

    draws = np.random.default_rng(0).integers(0, len(scenes), (_DRAWS, len(scenes)))
    values = [distance([scenes[i] for i in draw]) for draw in draws]
    low, high = np.percentile(values, [2.5, 97.5])
    whole = distance(scenes)
    return Interval(
        whole, float(low), float(high), float(np.median(values)), len(scenes), len(scenes)
    )
