"""Compares us with a directory of outputs of the public release, and says where we differ.

    python -m tests.golden.check DIR

DIR has the format of `tests/golden` (NOTICE says what that was computed with): weights, inputs and
outputs of small models of any sizes. One line a case: name, worst relative error, PASS or FAIL, and
what was worst. Exit code 1 if any case fails, 2 if DIR cannot be read.

Read next: the `case_*.py` beside this file, one for each part of the system.
"""

import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.golden.case import Line
from tests.golden.case_diffusion import flow_loss, unipc
from tests.golden.case_memory import memory, memory_dense
from tests.golden.case_models import denoiser_cases, text, vae_cases
from tests.golden.case_rollout import selection, whole_rollout

CASES: dict[str, Callable[[Path], Iterable[Line]]] = {
    "memory": memory,
    "memory_dense": memory_dense,
    "selection": selection,
    "denoiser": denoiser_cases,
    "flow_loss": flow_loss,
    "unipc": unipc,
    "vae": vae_cases,
    "text": text,
    "rollout": whole_rollout,
}


def check(directory: Path, case: str) -> list[Line]:
    """Run one entry of `CASES`; an error inside becomes a failed line after the finished ones."""
    lines: list[Line] = []
    try:
        lines.extend(CASES[case](directory))
    except Exception as error:
        traceback.print_exc()
        lines.append(Line(case, float("inf"), False, f"{type(error).__name__}: {error}"))
    return lines or [Line(case, float("inf"), False, "nothing to compare in this directory")]


def main(arguments: list[str]) -> int:
    """Check a directory; return the exit code."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print(f"usage: python -m tests.golden.check DIR - got {arguments}, expected one directory")
        return 2
    failed = False
    for case in CASES:
        for line in check(Path(arguments[0]), case):
            verdict = "PASS" if line.passed else "FAIL"
            print(f"{line.name:20s} {line.error:9.2e}  {verdict}  {line.note}".rstrip(), flush=True)
            failed |= not line.passed
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
