"""The efficiency measurement as a table and a drawing.

Read next: `efficiency.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mirage_jax.eval.efficiency import LATENT, PAPER, RGB, marks
from mirage_jax.eval.report import write_report
from mirage_jax.eval.systems import STAGES, SYSTEMS

_MIB = 2.0**20


def write_efficiency(directory: Path, results: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Write efficiency.json, efficiency.md and efficiency.png; returns the table.

    Args:
        directory: folder, made if needed.
        results: of `evaluate_efficiency`.
        facts: what was run: `world`, `command`, `chunks`, `clock`.
    """
    text = markdown(results, facts)
    write_report(directory, "efficiency", dict(results) | {"facts": dict(facts)}, text)
    _draw(directory / "efficiency.png", _systems(results))
    return text


def markdown(results: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Return the tables of systems by chunk and of the ratios."""
    systems, named = _systems(results), marks(facts["chunks"])
    clock = {"wall": "seconds", "cpu": "seconds of CPU"}[facts["clock"]]
    heads = [f"{clock} a frame, chunk {n}" for n in named]
    heads += [f"{stage}, chunk {named[-1]}" for stage in STAGES]
    heads += [f"cache MiB, chunk {n}" for n in named] + ["process MiB"]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name, one in systems.items():
        cells = [f"{one[f'seconds_per_frame_chunk{n}']:.4f}" for n in named]
        cells += [f"{one[f'{stage}_seconds_chunk{named[-1]}']:.3f}" for stage in STAGES]
        cells += [f"{one[f'cache_bytes_chunk{n}'] / _MIB:.2f}" for n in named]
        cells.append(f"{one['peak_process_bytes'] / _MIB:.0f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    table = "\n".join(lines)
    described = "\n".join(f"- `{name}`: {SYSTEMS[name].description}." for name in systems)
    return f"""# Efficiency, world {facts["world"]}

`{facts["command"]}`

A walk of {facts["chunks"]} chunks; {clock}, compilation left out; stages in seconds of a whole
chunk. Device: {next(iter(systems.values()))["device"]}.

{table}

{_ratios(results, named)}

{described}
"""


def _ratios(results: Mapping[str, Any], named: tuple[int, ...]) -> str:
    """Return the table of the latent memory over the RGB cache."""
    if not {LATENT, RGB} <= results.keys():
        return ""
    lines = [
        f"| {RGB} over {LATENT} | "
        + " | ".join(f"chunk {n}" for n in named)
        + " | growth | the paper prints |",
        "|---" * (len(named) + 3) + "|",
    ]
    for what in ("speed", "read", "cache"):
        cells = [f"{results[f'{what}_ratio_vs_rgb_chunk{n}']:.2f}" for n in named]
        printed = PAPER.get(f"{what}_ratio")
        cells += [f"{results[f'{what}_ratio_growth']:.2f}", f"{printed:g}" if printed else ""]
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _systems(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {name: results[name] for name in SYSTEMS if name in results}


def _draw(path: Path, systems: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw seconds a frame and bytes by chunk."""
    # Figures without pyplot need no display and leave no state behind.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for name, one in systems.items():
        chunk = range(1, len(one["cache_bytes"]) + 1)
        left.plot(chunk, one["seconds_per_frame"], label=name)
        if one["peak_cache_bytes"]:
            right.plot(chunk, [size / _MIB for size in one["cache_bytes"]], label=name)
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
    left.set(xlabel="chunk", ylabel="seconds a frame", ylim=(0, None))
    right.set(xlabel="chunk", ylabel="MiB of cache", yscale="log")
    left.legend()
    right.legend()
    figure.savefig(path, dpi=100)
