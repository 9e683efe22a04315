"""Plans of training steps of the large models, and their table.

Read next: `scaling.py`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.plans.kept import Plans

_STAGES = ("branch", "lora", "full")
# Pods of the table and the clips of a step, one a chip.
_TABLE = (
    ("wan5b", "v5p:4x4x4", 64),
    ("wan5b", "h100:8x8", 64),
    ("wan5b", "v5e:16x16", 256),
    ("wan5b", "v6e:16x16", 256),
    ("wan14b", "v5p:8x8x4", 256),
)


def command(model: str, stage: str, target: str, batch: int) -> str:
    """Return the arguments of `mirage plan` for one stage of a model."""
    return f"--config configs/{model}.py:paper --stage {stage} --target {target} --batch {batch}"


def commands() -> Iterator[str]:
    """Yield the arguments of the table's plans."""
    for model, target, batch in _TABLE:
        for stage in _STAGES:
            yield command(model, stage, target, batch)


def table(plans: Plans) -> str:
    """Render as Markdown."""
    lines = [
        "| model, stage | target | mesh | clips | GiB a device | fits | GiB sent a step and device "
        "| step at least | MFU at most | latent memory, of operations / bytes |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_row(plans[made]) for made in commands() if made in plans),
    ]
    return "\n".join(lines)


def _row(plan: dict[str, Any]) -> str:
    config, stage = re.findall(r"--(?:config|stage) (\S+)", plan["command"])
    model = f"{Path(config.split(':')[0]).stem} {stage}"
    verdict = "yes" if plan["fits"] else f"no; {plan['nearest_mesh_that_fits'] or 'no mesh'}"
    how = "" if plan["compiled"] else " (estimated)"
    sent = ", ".join(
        f"{kind} {traffic['sent'] / 2**30:.1f}"
        for kind, traffic in sorted(plan["collectives"].items())
    )
    return (
        f"| {model} | {plan['target']} | {mesh_of(plan)} | {plan['batch']} "
        f"| {plan['bytes_per_device'] / 2**30:.1f}{how} | {verdict} | {sent or '–'} "
        f"| {plan['step_seconds_bound']:.2f} s | {plan['mfu_bound']:.0%} | {_memory_share(plan)} |"
    )


def _memory_share(plan: dict[str, Any]) -> str:
    """Return what writing and reading the latent memory takes of a step, at most."""
    share = plan.get("latent_memory_share")
    return f"{share['operations']:.2%} / {share['bytes']:.2%}" if share else "–"


def mesh_of(plan: dict[str, Any]) -> str:
    """Return the axes of a plan's mesh that have more than one device."""
    return " ".join(f"{axis}={size}" for axis, size in plan["mesh"].items() if size > 1)
