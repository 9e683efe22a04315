"""How what a chip sends grows with the number of chips, read off programs compiled for 64 to 4096.

Simulated: the programs are compiled for pods that are not here, and nothing is run. Every chip has
the same work (a clip a chip), so lines that stay flat mean that larger pods cost no more a step.

Read next: `training.py`.
"""

from collections.abc import Iterator

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
    made = [(chips, plans.get(line)) for (_, chips), line in zip(_PODS, commands(), strict=True)]
    whole = [(chips, plan) for chips, plan in made if plan and plan["compiled"]]
    lines = [
        "| chips (simulated) | mesh | GiB a chip | "
        + " | ".join(f"{kind} GiB" for kind in _KINDS)
        + " | sent a chip, GiB | to 64 chips |",
        "|---" * (len(_KINDS) + 5) + "|",
    ]
    first = 0.0
    for chips, plan in whole:
        sent = [plan["collectives"].get(kind, {"sent": 0.0})["sent"] / 2**30 for kind in _KINDS]
        first = first or sum(sent)
        cells = " | ".join(f"{size:.1f}" for size in sent)
        lines.append(
            f"| {plan['target']}, {chips} | {mesh_of(plan)} "
            f"| {plan['bytes_per_device'] / 2**30:.1f} | {cells} | {sum(sent):.1f} "
            f"| ×{sum(sent) / first:.3f} |"
        )
    return "\n".join(lines)
