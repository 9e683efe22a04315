"""Speed of the models beside the same models of Diffusers in PyTorch, in one run on this CPU.

`python -m benchmarks.model_speed` times one matrix product, one attention, a denoiser (width 512,
8 blocks, 3,920 tokens) and an autoencoder (17 frames of 128x192), forward and forward with
backward, in float32 on the same threads. Both sides hold the same weights and their results are
compared before anything is timed; calls take turns and the shortest time of the rounds counts,
since other programs only ever add to it; how much longer the longest was is printed beside it,
and the processor time, which depends less on them, and page faults.
A ratio is PyTorch's time over ours: above 1 ours is faster. The last line is one JSON object.
Without PyTorch ours is timed alone.

`--quick` is smaller, `--only denoiser` measures one part, `--ours` leaves PyTorch out,
`--bfloat16` adds a denoiser in bfloat16, `--compile` adds `torch.compile`; `--remat` and
`--unroll` are the denoiser's.

Read next: `benchmarks/README.md` for results, and what was tried.
"""

import argparse
import importlib.util
import json
import os
import resource
import time
from collections.abc import Mapping
from typing import Any

import jax

from benchmarks import model_speed_ours
from benchmarks.model_speed_ours import Call
from mirage_jax.models.functional import REMAT

MISSING = "PyTorch and Diffusers are not installed, ours is timed alone; for both: make parity"
PARTS = ("product", "attention", "denoiser", "autoencoder")


def main(arguments: list[str] | None = None) -> None:
    """Print a line a measurement, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller sizes")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts measured")
    parser.add_argument("--ours", action="store_true", help="leave PyTorch out")
    parser.add_argument("--bfloat16", action="store_true", help="also a denoiser in bfloat16")
    parser.add_argument("--compile", action="store_true", help="also torch.compile")
    parser.add_argument("--way", choices=("forward", "backward"), help="only one of the two")
    parser.add_argument("--rounds", type=int, default=2, help="timed rounds of all calls")
    parser.add_argument("--remat", choices=tuple(REMAT), default="dots")
    parser.add_argument("--unroll", type=int, default=8)
    options = parser.parse_args(arguments)
    sizes = model_speed_ours.sizes(options.quick, options.remat, options.unroll)
    both = all(importlib.util.find_spec(name) for name in ("torch", "diffusers"))
    if both and not options.ours:
        from benchmarks import model_speed_torch

        pairs = model_speed_torch.paired_calls(sizes, options)
    else:
        if not both:
            print(MISSING)
        calls = model_speed_ours.calls(sizes, options.only)
        pairs = {
            f"{part} {way}": {"ours": call}
            for part, ways in calls.items()
            for way, call in zip(("forward", "backward"), ways, strict=True)
        }
    if options.way:
        pairs = {name: sides for name, sides in pairs.items() if options.way in name}
    report(pairs, options.rounds, model_speed_ours.operations(sizes))


def report(
    pairs: Mapping[str, Mapping[str, Call]], rounds: int, operations: Mapping[str, float]
) -> None:
    """Time all sides of all measurements and print them."""
    summary: dict[str, Any] = {"threads": len(os.sched_getaffinity(0)), "seconds": {}, "ratios": {}}
    for name, sides in pairs.items():
        part, way = name.split()[:2]
        work = operations.get(part, 0) * (3 if way == "backward" else 1)
        measured = take_turns(sides, rounds)
        seconds = {side: min(wall for wall, *_ in costs) for side, costs in measured.items()}
        summary["seconds"][name] = {side: round(value, 4) for side, value in seconds.items()}
        print(name)
        for side, costs in measured.items():
            wall, user, system, faults = (min(column) for column in zip(*costs, strict=True))
            slowest = max(cost[0] for cost in costs) / wall - 1
            line = f"  {side:14s} {wall:7.3f} s (+{slowest:.0%})  processor {user:6.2f} s"
            line += f" + system {system:5.2f} s  {faults:9,.0f} faults"
            line += f"  {work / wall / 1e9:4.0f} GFLOP/s" if work else ""
            if side != "ours":
                ratio = summary["ratios"].setdefault(name, {})
                ratio[side] = round(seconds[side] / seconds["ours"], 3)
                line += f"  {side} / ours {ratio[side]:.2f}"
            print(line, flush=True)
    summary["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(summary))


def take_turns(calls: Mapping[str, Call], rounds: int) -> dict[str, list[tuple[float, ...]]]:
    """Return what each call took in each round, after one that is not counted.

    Of each: seconds, processor seconds of the program and of the system, and page faults.
    """
    taken: dict[str, list[tuple[float, ...]]] = {side: [] for side in calls}
    for number in range(1 + rounds):
        for side, call in calls.items():
            before = _costs()
            jax.block_until_ready(call())
            if number:
                pairs = zip(_costs(), before, strict=True)
                taken[side].append(tuple(after - start for after, start in pairs))
    return taken


def _costs() -> tuple[float, ...]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), used.ru_utime, used.ru_stime, float(used.ru_minflt)


if __name__ == "__main__":
    main()
