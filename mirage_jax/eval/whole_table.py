"""All protocols together: one run, one table by protocol, system and metric, and one page.

Protocols that follow the same paths share their videos, so that this takes less than one after the
other; each has its own folder with the same results and page as when it is run alone.
Read next: `run_protocol.py`, `page/overview.py`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mirage_jax import atomic
from mirage_jax.eval.protocols import Protocol, described
from mirage_jax.eval.run_protocol import RunOptions, run_protocols
from mirage_jax.eval.write_results import device, versions, write_results
from mirage_jax.rollout.world import World


def run_all(
    world: World,
    clips: Sequence[Mapping[str, Any]],
    protocols: Sequence[Protocol],
    options: RunOptions,
    facts: Mapping[str, Any],
) -> dict[str, dict[str, dict[str, Any]]]:
    """Run protocols and write all.json, all.md and all.html beside their own files.

    Args:
        world: what is measured.
        clips: random access to the clips of the data set.
        protocols: items and settings.
        options: where to, and what else.
        facts: what the pages say of the run: world, split, command.

    Returns:
        Protocol -> system -> metric -> value, with its 95 % interval as `<metric>_ci95`.
    """
    from mirage_jax.eval.page.overview import Found, overview_page

    run = run_protocols(world, clips, protocols, options)
    found, values, texts = [], {}, []
    for protocol, results in zip(protocols, run, strict=True):
        folder = options.folder / protocol.folder
        written = write_results(results, protocol, folder, dict(facts))
        values[protocol.name] = written.values
        found.append(Found(protocol, results, written.summary))
        texts.append(_section(protocol, written.table))
    told = {
        **facts,
        "settings": {p.name: dataclasses.asdict(p.setting) for p in protocols},
        "versions": versions(),
        "device": device(),
    }
    head = (
        f"# World {facts['world']}\n\n`{facts['command']}`\n\nMean ± half of the 95 % bootstrap "
        "interval over scenes.\n"
    )
    files = {
        "all.json": json.dumps({"protocols": values, **told}, indent=2) + "\n",
        "all.md": "\n".join([head, *texts]),
        "all.html": overview_page(found, told),
    }
    for name, text in files.items():
        atomic.write_text(options.folder / name, text)
    return values


def _section(protocol: Protocol, table: str) -> str:
    setting = protocol.setting
    seeds = ", ".join(map(str, setting.seeds))
    return (
        f"## {protocol.name}\n\n{setting.items} scenes of {setting.frames} frames, seeds {seeds}"
        f"{described(protocol)}.\n\n{table}\n"
    )
