"""Writes what a protocol found: `summary.json`, `table.md` and the page `report.html`.

Read next: `mirage_jax/eval/page/report_page.py`.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
import sys
from pathlib import Path
from typing import Any, NamedTuple

import mirage_jax
from mirage_jax import atomic
from mirage_jax.eval.protocols import Protocol
from mirage_jax.eval.results import ResultFile
from mirage_jax.eval.summary import Summary, gains_over, json_object, markdown, summarize

_LIBRARIES = ("jax", "numpy", "opencv-python-headless", "scikit-image")


class Written(NamedTuple):
    """What the files of a protocol say.

    Attributes:
        values: system -> metric -> value, as `--json` prints it.
        summary: the same with its intervals.
        table: in Markdown.
    """

    values: dict[str, dict[str, Any]]
    summary: Summary
    table: str


def write_results(
    results: ResultFile, protocol: Protocol, folder: Path, facts: dict[str, Any]
) -> Written:
    """Write summary, table and page of a protocol.

    Args:
        results: what was measured.
        protocol: with its setting.
        folder: where the files go.
        facts: what else the page says of the run: world, data, command.
    """
    from mirage_jax.eval.page.report_page import report_page

    summary, gains = summarize(results), gains_over(results, protocol.name)
    values = json_object(summary)
    told = {
        **facts,
        "fingerprint": results.fingerprint,
        "setting": dataclasses.asdict(protocol.setting),
        "versions": versions(),
        "device": device(),
    }
    atomic.write_text(
        folder / "summary.json", json.dumps({"systems": values, **told}, indent=2) + "\n"
    )
    table = markdown(protocol, summary, gains)
    atomic.write_text(folder / "table.md", f"# {protocol.name}\n\n{table}\n")
    atomic.write_text(folder / "report.html", report_page(results, protocol, folder, told))
    return Written(values, summary, table)


def versions() -> dict[str, str]:
    """Return the versions of what measured."""
    found = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {"mirage_jax": mirage_jax.__version__, "python": platform.python_version(), **found}


def device() -> str:
    """Return on what the systems ran."""
    import jax

    first = jax.devices()[0]
    count = len(jax.devices())
    return f"{count} x {first.device_kind} ({first.platform}), {platform.machine()} {sys.platform}"
