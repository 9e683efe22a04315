"""Plans of one latent memory over all chips of a target, small and large, and their table.

Read next: `mirage_jax/plan/memory.py`.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

from benchmarks.plans.kept import Plans

_TARGETS = ("v5e:8x8", "v5p:4x4x4", "v6e:8x8", "tpu7x:4x4x4", "h100:8x8")
_SMALL, _LARGE = "1e7", "1e8"


def command(rows: str, target: str) -> str:
    """Return the arguments of `mirage plan` for a memory of so many rows."""
    return f"--memory {rows} --target {target}"


def commands() -> Iterator[str]:
    """Yield the arguments of the table's plans."""
    for target in _TARGETS:
        for rows in (_LARGE, _SMALL):
            yield command(rows, target)


def table(plans: Plans) -> str:
    """Render as Markdown: a row a target, with how its traffic differs from a tenth of the rows."""
    lines = [
        "| 1e8 rows on | devices | MiB a device, writing / reading | fits "
        "| MiB sent a write / read | with 1e7 rows | vector memory | scattered "
        "| largest sort: write / read |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for target in _TARGETS:
        large, small = (plans.get(command(rows, target)) for rows in (_LARGE, _SMALL))
        if large and large["programs"]:
            lines.append(_row(large, small))
    return "\n".join(lines)


def _row(plan: dict[str, Any], small: dict[str, Any] | None) -> str:
    programs = [plan["programs"][name] for name in ("write", "read")]
    size = [(p["held"] + p["temporary"]) / 2**20 for p in programs]
    sent = [_sent(p) / 2**20 for p in programs]
    kernels = [held for p in programs for held in p["kernels"].values()]
    scattered = sum((p["scatters"] for p in programs), [])
    sorts = [max(p["sorts"], key=_elements, default="nothing") for p in programs]
    return (
        f"| {plan['target']} | {plan['devices']} | {size[0]:.0f} / {size[1]:.0f} "
        f"| {'yes' if plan['fits'] else 'no'} | {sent[0]:.1f} / {sent[1]:.1f} "
        f"| {_compared(plan, small)} | {_vector_memory(kernels)} "
        f"| {', '.join(scattered) or 'nothing'} | {sorts[0]} / {sorts[1]} |"
    )


def _sent(program: dict[str, Any]) -> float:
    return sum(traffic["sent"] for traffic in program["collectives"].values())


def _compared(large: dict[str, Any], small: dict[str, Any] | None) -> str:
    """Return whether a smaller memory's programs send the same bytes."""
    if not small or not small["programs"]:
        return "–"
    pairs = [(_sent(p["programs"][n]) for p in (large, small)) for n in ("write", "read")]
    ratios = [a / b for a, b in pairs]
    return "the same" if ratios == [1, 1] else " / ".join(f"×{1 / r:.2f}" for r in ratios)


def _vector_memory(kernels: list[int]) -> str:
    return f"{max(kernels) / 2**10:.0f} KiB" if any(kernels) else "–"


def _elements(shape: str) -> int:
    return math.prod(int(part) for part in re.findall(r"\d+", shape.split("[")[1]))
