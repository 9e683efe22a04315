"""`python -m benchmarks.plans`: what training the large models takes on hardware that is not here.

Every plan is one `mirage plan --json` in a process of its own: it compiles the real training step
for the target, which takes minutes. Finished plans are kept, one line of JSON each, and are not
made again; an interrupted run goes on where it was. Those that do not end within the limit are
estimated instead, and say so.

    python -m benchmarks.plans                    # make what is missing, print the table
    python -m benchmarks.plans --only v5p:4x4x4   # of these targets only
    python -m benchmarks.plans --table            # print the table of what is there

Compiling needs `pip install "mirage-jax[tpu]"` and `"mirage-jax[cuda]"`. Nothing is run.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mirage_jax.atomic import write_text

_RESULTS = Path(__file__).with_name("plans.jsonl")
_STAGES = ("branch", "lora", "full")


class Case(NamedTuple):
    """One plan: a stage of a config on a target, with a batch."""

    config: str
    stage: str
    target: str
    batch: int


def cases() -> Iterator[Case]:
    """Yield the table's plans, then those that show how traffic grows with the devices."""
    for target, batch in (("v5p:4x4x4", 64), ("h100:8x8", 64), ("v5e:16x16", 256)):
        for stage in _STAGES:
            yield Case("configs/wan5b.py:paper", stage, target, batch)
    for stage in _STAGES:
        yield Case("configs/wan14b.py:paper", stage, "v5p:8x8x4", 256)
    for stage in _STAGES:
        yield Case("configs/wan5b.py:paper", stage, "v6e:16x16", 256)
    for shape, devices in (("4x8x8", 256), ("8x8x16", 1024), ("16x16x16", 4096)):
        yield Case("configs/wan5b.py:paper", "branch", f"v5p:{shape}", devices)


def make(case: Case, limit: float) -> dict[str, Any]:
    """Return the plan's JSON object, compiled or, past `limit` seconds, estimated."""
    command = [sys.executable, "-m", "mirage_jax.cli.main", "plan", "--config", case.config]
    command += ["--stage", case.stage, "--target", case.target, "--batch", str(case.batch)]
    command += ["--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
        late = ""
    except subprocess.TimeoutExpired:
        done = subprocess.run([*command, "--no-compile"], capture_output=True, text=True)
        late = f"not compiled within {limit:.0f} s"
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip().splitlines()[-1:]}")
    plan = json.loads(done.stdout.strip().splitlines()[-1])
    return {"case": case._asdict(), "late": late, **plan}


def kept() -> dict[Case, dict[str, Any]]:
    """Return the plans that were made."""
    if not _RESULTS.exists():
        return {}
    plans = [json.loads(line) for line in _RESULTS.read_text().splitlines()]
    return {Case(**plan["case"]): plan for plan in plans}


def keep(plans: dict[Case, dict[str, Any]]) -> None:
    """Write the plans, in the order of the table."""
    places = {case: place for place, case in enumerate(cases())}
    ordered = sorted(plans, key=lambda case: places.get(case, len(places)))
    write_text(_RESULTS, "".join(json.dumps(plans[case]) + "\n" for case in ordered))


def table(plans: dict[Case, dict[str, Any]]) -> str:
    """Render as Markdown."""
    lines = [
        "| model, stage | target | mesh | clips | GiB a device | fits | GiB sent a step and device "
        "| step at least | MFU at most |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in cases():
        if case in plans:
            lines.append(_row(case, plans[case]))
    return "\n".join(lines)


def _row(case: Case, plan: dict[str, Any]) -> str:
    model = f"{Path(case.config.split(':')[0]).stem} {case.stage}"
    mesh = " ".join(f"{axis}={size}" for axis, size in plan["mesh"].items() if size > 1)
    verdict = "yes" if plan["fits"] else f"no; {plan['nearest_mesh_that_fits'] or 'no mesh'}"
    how = "" if plan["compiled"] else " (estimated)"
    sent = ", ".join(
        f"{kind} {traffic['sent'] / 2**30:.1f}" for kind, traffic in plan["collectives"].items()
    )
    return (
        f"| {model} | {case.target} | {mesh} | {case.batch} "
        f"| {plan['bytes_per_device'] / 2**30:.1f}{how} | {verdict} | {sent or '–'} "
        f"| {plan['step_seconds_bound']:.2f} s | {plan['mfu_bound']:.0%} |"
    )


def main() -> None:
    """Parse the command line, make what is missing, print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plans", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", help="targets that begin with this")
    parser.add_argument("--limit", type=float, default=1200.0, help="seconds a plan may take")
    parser.add_argument("--table", action="store_true", help="make nothing")
    arguments = parser.parse_args()
    plans = kept()
    for case in cases():
        wanted = not arguments.only or case.target.startswith(arguments.only)
        if wanted and case not in plans and not arguments.table:
            plans[case] = make(case, arguments.limit)
            keep(plans)
            print(_row(case, plans[case]), flush=True)
    print(table(plans))


if __name__ == "__main__":
    main()
