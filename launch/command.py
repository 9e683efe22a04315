"""What the launchers share: the command after `--`, dry runs, tools that are missing.

They run the same `mirage train` that runs on a laptop, and start it again on the exit code that
says it was saved because the machines are wanted back (`mirage_jax/distributed/exit_codes.py`).
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable

from mirage_jax.distributed.exit_codes import PREEMPTED

__all__ = ["PREEMPTED", "Shell", "parse"]


def parse(
    about: str, add_options: Callable[[argparse.ArgumentParser], None], *, restarts: int = 100
) -> argparse.Namespace:
    """Read the options before `--`, and what is to be run after it as `command`.

    Args:
        about: the script's docstring.
        add_options: adds the script's own options.
        restarts: most restarts after preemption, where the user does not say.
    """
    arguments = sys.argv[1:]
    where = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.add_argument(
        "--restarts", type=int, default=restarts, help=f"most after preemption; default {restarts}"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be executed")
    parser.usage = parser.format_usage().removeprefix("usage: ").strip() + " -- COMMAND ..."
    options = parser.parse_args(arguments[:where])
    options.command = arguments[where + 1 :]
    if not options.command:
        parser.error("got no command, expected one after --, as in: -- mirage train --config ...")
    return options


class Shell:
    """Runs programs, or prints them in a dry run."""

    def __init__(self, dry_run: bool) -> None:
        """Prepare; nothing is run yet."""
        self._dry_run = dry_run

    def run(self, *words: str) -> int:
        """Run a program and return its exit code; 0 in a dry run."""
        print(shlex.join(words), flush=True)
        if self._dry_run:
            return 0
        self._check(words[0])
        return subprocess.run(words).returncode

    def read(self, *words: str, in_dry_run: str) -> str:
        """Return what a program prints, "" if it fails."""
        if self._dry_run:
            print(shlex.join(words), flush=True)
            return in_dry_run
        self._check(words[0])
        return subprocess.run(words, capture_output=True, text=True).stdout.strip()

    def _check(self, program: str) -> None:
        if shutil.which(program) is None:
            sys.exit(f"launch: {program} is not installed or not on PATH; --dry-run needs nothing")
