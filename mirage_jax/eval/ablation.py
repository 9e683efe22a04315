"""All systems on the same scenes and seeds: what reading and writing in other ways changes.

Runs the protocols `nvs` and `revisit` (their scenes, seeds and result files, so it goes on where it
stopped) and puts what they found into one table, with paired gains over the latent memory and over
the RGB cache. A world that cannot run a system is told so; nothing stands in its place.
Read next: `run_protocol.py`, `systems.py`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mirage_jax import atomic
from mirage_jax.eval import anchors
from mirage_jax.eval.bootstrap import Interval, gain
from mirage_jax.eval.metric_names import METRICS
from mirage_jax.eval.protocols import Protocol, described
from mirage_jax.eval.report import jsonable
from mirage_jax.eval.results import ResultFile
from mirage_jax.eval.run_protocol import RunOptions, run_protocols, system_names, video_path
from mirage_jax.eval.summary import Summary, cell, rows_of, values_of
from mirage_jax.eval.systems import SYSTEMS
from mirage_jax.eval.write_results import write_results
from mirage_jax.rollout import sheet, video
from mirage_jax.rollout.world import World, WorldSpec

PROTOCOLS = ("revisit", "nvs")
# What gains are told over, and in what.
OVER = ("latent", "rgb_cache")
SCORES = ("psnr", "ssim")
# Those that tell storage and the rule of what is written apart; of little news in quality.
NOT_QUICK = ("latent_append", "rgb_cache_unseen")
_SHEET_SCENES = 4


def with_systems(protocol: Protocol, spec: WorldSpec, quick: bool, names: str = "") -> Protocol:
    """Return a protocol with the systems of an ablation.

    Args:
        protocol: as its file says.
        spec: of the world.
        quick: leave out those of `NOT_QUICK`, and take one batch of scenes and one seed.
        names: those asked for, with commas; "" takes all that the world can run.

    Raises:
        ValueError: there is no system of a name, or the world cannot run it.
    """
    setting = dataclasses.replace(
        protocol.setting, systems=tuple(names.split(",")) if names else ()
    )
    if quick:
        items = min(setting.items, setting.batch)
        setting = dataclasses.replace(setting, items=items, seeds=setting.seeds[:1])
    chosen = system_names(dataclasses.replace(protocol, setting=setting), spec)
    if quick and not names:
        chosen = tuple(name for name in chosen if name not in NOT_QUICK)
    return dataclasses.replace(protocol, setting=dataclasses.replace(setting, systems=chosen))


def run_ablation(
    world: World,
    clips: Sequence[Mapping[str, Any]],
    protocols: Sequence[Protocol],
    options: RunOptions,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Run the protocols and write ablation.json, ablation.md and a sheet of frames for each.

    Args:
        world: what is measured.
        clips: random access to the clips of the data set.
        protocols: those of `PROTOCOLS`, with their systems.
        options: where to; results of a protocol that are there already are not measured again.
        facts: what the pages say of the run: world, split, command.

    Returns:
        System -> `<protocol>_<metric>` and `<protocol>_<metric>_gain_over_<system>` -> value, each
        with its 95 % interval as `..._ci95`.
    """
    run = run_protocols(world, clips, protocols, options)
    found = {protocol.name: results for protocol, results in zip(protocols, run, strict=True)}
    summaries = {}
    for protocol in protocols:
        folder = options.folder / protocol.folder
        written = write_results(found[protocol.name], protocol, folder, dict(facts))
        summaries[protocol.name] = written.summary
        path = options.folder / f"ablation_{protocol.folder}.png"
        _write_sheet(path, folder, protocol, (anchors.TRUTH, *protocol.setting.systems))
    values = _json_object(found, summaries)
    atomic.write_text(
        options.folder / "ablation.json",
        json.dumps({"systems": values, **facts}, indent=2) + "\n",
    )
    text = _markdown(world.spec, protocols, found, summaries, facts)
    atomic.write_text(options.folder / "ablation.md", text)
    return values


def gains(
    results: ResultFile, metric: str, over: str, systems: Sequence[str]
) -> dict[str, Interval]:
    """Return by how much each system is better than one of them, on the same scenes and seeds."""
    base = values_of(results.of_system(over), metric)
    found = {}
    for name in systems:
        difference = gain(values_of(results.of_system(name), metric), base)
        if name != over and difference is not None:
            found[name] = difference
    return found


def _json_object(
    found: Mapping[str, ResultFile], summaries: Mapping[str, Summary]
) -> dict[str, dict[str, Any]]:
    values: dict[str, dict[str, Any]] = {}

    def put(system: str, key: str, one: Interval) -> None:
        row = values.setdefault(system, {})
        row[key], row[f"{key}_ci95"] = jsonable(one.mean), [jsonable(one.low), jsonable(one.high)]

    for protocol, summary in summaries.items():
        for system, metrics in summary.items():
            for metric, one in metrics.items():
                put(system, f"{protocol}_{metric}", one)
        for metric in SCORES:
            generating = [name for name in summary if _generates(name)]
            for over in (name for name in OVER if name in summary):
                better = gains(found[protocol], metric, over, generating)
                for system, one in better.items():
                    put(system, f"{protocol}_{metric}_gain_over_{over}", one)
    return values


def _markdown(
    spec: WorldSpec,
    protocols: Sequence[Protocol],
    found: Mapping[str, ResultFile],
    summaries: Mapping[str, Summary],
    facts: Mapping[str, Any],
) -> str:
    """Return one table of all protocols, what the systems are, and which are absent."""
    heads = [f"{p.name} {METRICS[m].title}" for p in protocols for m in SCORES]
    heads += [f"{p.name} PSNR over {over}" for p in protocols for over in OVER]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    rows = list(dict.fromkeys(row for p in protocols for row in rows_of(found[p.name])))
    better = {
        (p.name, over): gains(found[p.name], "psnr", over, list(filter(_generates, rows)))
        for p in protocols
        for over in OVER
    }
    for row in rows:
        cells = [
            cell(summaries[p.name].get(row, {}).get(m), METRICS[m].decimals)
            for p in protocols
            for m in SCORES
        ]
        cells += [_gain(better[p.name, over].get(row)) for p in protocols for over in OVER]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    sizes = "; ".join(
        f"{p.name}: {p.setting.items} scenes of {p.setting.frames} frames, seeds "
        f"{', '.join(map(str, p.setting.seeds))}{described(p)}"
        for p in protocols
    )
    told = [f"- `{name}`: {SYSTEMS[name].description}." for name in rows if name in SYSTEMS]
    told += [f"- `{s.name}` is absent: {why}." for s in SYSTEMS.values() if (why := s.absent(spec))]
    return "\n".join(
        [
            f"# Ablation, world {facts['world']}",
            "",
            f"`{facts['command']}`",
            "",
            f"{sizes}. Mean ± half of the 95 % bootstrap interval over scenes; gains are paired, "
            "in dB with their interval.",
            "",
            *lines,
            "",
            *told,
            "",
        ]
    )


def _generates(name: str) -> bool:
    return name in SYSTEMS and SYSTEMS[name].kind == "rollout"


def _gain(one: Interval | None) -> str:
    return "" if one is None else f"{one.mean:+.2f} ({one.low:+.2f} to {one.high:+.2f})"


def _write_sheet(path: Path, folder: Path, protocol: Protocol, names: Sequence[str]) -> None:
    """Put frames of the systems side by side: half way, where a path turns, and the last."""
    panels = []
    for item in protocol.items[: min(_SHEET_SCENES, protocol.setting.items)]:
        videos = [video.read_video(video_path(folder, item.name, name)) for name in names]
        for place in (protocol.setting.frames // 2, protocol.setting.frames - 1):
            panels.append([np.asarray(frames[place]) for frames in videos])
    sheet.write_sheet(path, panels, list(names))
