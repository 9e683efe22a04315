"""`python -m benchmarks.memory [--quick]`: all parts, and one line of JSON at the end.

Read next: `read_speed.py`.
"""

import argparse
import json
import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from benchmarks.memory import balance, growth, peers, read_speed, rollout, traffic

_LEVELS = ("freedoom2/MAP17", "freedoom2/MAP18", "freedoom2/MAP19")


def run(quick: bool) -> dict[str, Any]:
    """Measure every part; quick takes fewer rounds and views, not other sizes.

    What is counted, not timed, comes first, while programs compile and memories fill beside it.
    """
    rounds = 3 if quick else 11
    sizes = (100_000, 1_000_000)
    stored = (100_000, 10_000_000) if quick else (100_000, 1_000_000, 10_000_000)
    policies, views = (("unseen",), 8) if quick else (("unseen", "append"), 24)
    with ThreadPoolExecutor(2) as pool:
        # Long ones first, so that both end at about the same time.
        walking = pool.submit(rollout.measure, policies, views, quick)
        filling = {count: pool.submit(growth.prepare, count, rounds) for count in stored[::-1]}
        compiling = [
            pool.submit(read_speed.compile_ahead, count, not quick or count == sizes[-1])
            for count in sizes[::-1]
        ]
        for job in compiling:
            job.result()
        cities = {count: filling[count].result() for count in stored}
        walked = walking.result()
    reads = read_speed.measure(sizes, rounds, quick)
    grown = growth.measure(cities, rounds)
    even = balance.measure(_LEVELS, 6, (8, 64)) if balance.can_play() and not quick else {}
    moved = traffic.measure(100_000 if quick else 1_000_000)
    million = reads["volume_1e6"]
    return {
        "speedup_vs_release_1e6": million["speedup"],
        "ms_1e6": million["ms"]["ours"],
        "limit_ms_1e6": million["limit_ms"],
        "ms_1e6_surface": reads["surface_1e6"]["ms"]["ours"],
        "growth_1e5_1e7": max(grown["growth"]["behind"], grown["growth"]["back"]),
        "write_growth_1e5_1e7": grown["growth"]["write"],
        "cache_ratio_vs_rgb": walked["unseen"]["ratio_vs_rgb"],
        "coverage": walked["unseen"]["coverage"],
        "coverage_holes_closed": walked["unseen"]["coverage_holes_closed"],
        "coverage_rgb": walked["rgb"]["coverage"],
        "revisit_growth": walked["unseen"]["revisit_growth"],
        "read": reads,
        "growth": grown,
        "rollout": walked,
        "balance": even,
        "traffic": moved,
    }


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: within 50 seconds")
    start = time.perf_counter()
    quick = parser.parse_args().quick
    about = {
        "peer": peers.peer_name(),
        "jax": jax.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": round(os.getloadavg()[0], 1),
        "quick": quick,
    }
    figures = run(quick)
    print(json.dumps(about | figures | {"seconds": round(time.perf_counter() - start, 1)}))


if __name__ == "__main__":
    main()
