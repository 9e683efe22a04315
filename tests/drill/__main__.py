"""The resume drill: trainings that are disturbed in every way end as one that was not.

    python -m tests.drill            # every case, minutes; `make drill`
    python -m tests.drill --quick    # one run that meets the worst of them in a row

Prints a line for each case and, last, one JSON object; the exit code is 1 if a case failed. Each
training is `mirage train` of a small codec as two processes of two simulated devices, started by
`launch/local.py`.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.drill import cases
from tests.drill.training import Failed, Training


def main() -> int:
    """Run the drill and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one run that meets several cases")
    parser.add_argument("--only", choices=cases.ALL, help="one case")
    parser.add_argument("--steps", type=int, help="of each training; default 120, quick 36")
    parser.add_argument("--seed", type=int, help="of the moments; default: drawn and printed")
    parser.add_argument("--keep", type=Path, help="folder for logs and files; default: deleted")
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    steps = options.steps or (36 if options.quick else 120)
    chosen = cases.QUICK if options.quick else cases.ALL
    if options.only:
        chosen = {options.only: cases.ALL[options.only]}
    with tempfile.TemporaryDirectory() as folder:
        results = run(options.keep or Path(folder), steps, seed, chosen)
    passed = all(result["ok"] for result in results)
    outcome = {"passed": passed, "seed": seed, "steps": steps, "cases": results}
    sys.stdout.write(json.dumps(outcome) + "\n")
    return 0 if passed else 1


def run(folder: Path, steps: int, seed: int, chosen: dict) -> list[dict]:
    """Run the undisturbed training and the cases; return what came of each."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = Training(folder / "undisturbed", steps)
    results = [_one("undisturbed", lambda: f"{steps} steps, from {whole.go_on()}")]
    if not results[0]["ok"]:
        return results
    for number, (name, (disturb, compare)) in enumerate(chosen.items()):
        training = Training(folder / name.replace(" ", "_"), steps)
        rng = random.Random(seed + number)

        def case(training=training, rng=rng, disturb=disturb, compare=compare) -> str:
            try:
                told = disturb(training, rng)
                return f"{told}: {compare(training, whole)}"
            finally:
                training.stop()

        results.append(_one(name, case))
    return results


def _one(name: str, case) -> dict:
    begin = time.monotonic()
    try:
        told, ok = case(), True
    except Failed as failure:
        told, ok = str(failure), False
    seconds = round(time.monotonic() - begin, 1)
    sys.stdout.write(f"{'ok    ' if ok else 'FAILED'} {name:18} {seconds:6.1f} s  {told}\n")
    sys.stdout.flush()
    return {"name": name, "ok": ok, "seconds": seconds, "told": told}


if __name__ == "__main__":
    sys.exit(main())
