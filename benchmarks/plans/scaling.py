"""How what a chip sends grows with the number of chips, from 64 to 4096, by compiled programs.

Simulated: the programs are compiled for pods that are not here, and nothing is run. Every chip has
the same work (a clip a chip), so lines that stay flat mean that larger pods cost no more a step.
Pods that were not compiled are projected from the largest smaller one that was: more of them differ
in `data` alone, which repeats weights, so only reductions to all reach further. A ring sends twice
what it reduces at most, and that much is counted.

Read next: `training.py`.
"""

import math
from collections.abc import Iterator
from typing import Any

from benchmarks.plans.kept import Plans
from benchmarks.plans.training import command, mesh_of

_PODS = (("4x4x4", 64), ("4x8x8", 256), ("8x8x16", 1024), ("16x16x16", 4096))
_KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


def commands() -> Iterator[str]:
    """Yield the arguments of `mirage plan` for each pod."""
    for shape, chips in _PODS:
        yield command("wan5b", "branch", f"v5p:{shape}", chips)


def table(plans: Plans) -> str:
    """Render as Markdown: GiB that a chip sends a step."""
    lines = [
        "| chips (simulated) | mesh | GiB a chip | "
        + " | ".join(f"{kind} GiB" for kind in _KINDS)
        + " | sent a chip, GiB | to 64 chips |",
        "|---" * (len(_KINDS) + 5) + "|",
    ]
    first, last = 0.0, None
    for (shape, chips), line in zip(_PODS, commands(), strict=True):
        plan = plans.get(line)
        if plan and plan["compiled"]:
            last, name = plan, f"v5p:{shape}, {chips}"
        elif last:
            plan, name = _grown(last, chips), f"v5p:{shape}, {chips}, projected"
        else:
            continue
        sent = [plan["collectives"].get(kind, {"sent": 0.0})["sent"] / 2**30 for kind in _KINDS]
        first = first or sum(sent)
        cells = " | ".join(f"{size:.1f}" for size in sent)
        lines.append(
            f"| {name} | {mesh_of(plan)} | {plan['bytes_per_device'] / 2**30:.1f} | {cells} "
            f"| {sum(sent):.1f} | ×{sum(sent) / first:.3f} |"
        )
    return "\n".join(lines)


def _grown(plan: dict[str, Any], chips: int) -> dict[str, Any]:
    """Return what a compiled plan says of more chips, all of them along `data`."""
    mesh = plan["mesh"]
    mesh = mesh | {"data": mesh["data"] * chips // math.prod(mesh.values())}
    moved = {kind: dict(traffic) for kind, traffic in plan["collectives"].items()}
    if "all-reduce" in moved:
        moved["all-reduce"]["sent"] = 2 * moved["all-reduce"]["bytes"]
    return plan | {"mesh": mesh, "collectives": moved}
