"""What commands share that run as several processes: the flag, the start and the end.

A process that fails must end at once: the others may be waiting for it in a collective, and JAX
would have it wait for them. Read next: `mirage_jax/distributed/processes.py`, `launch/local.py`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator

import click

from mirage_jax.distributed import exit_codes

processes_option = click.option(
    "--processes",
    default="auto",
    show_default=True,
    help="auto: as the environment says (JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, "
    "JAX_PROCESS_ID, or a scheduler's variables); one; cluster: ask the TPU pod or scheduler; or "
    "INDEX/COUNT@HOST:PORT.",
)


@contextlib.contextmanager
def joined(flag: str) -> Iterator[Callable[[str], None]]:
    """Join the other processes of the run; yield what prints a line, in the first of them."""
    from mirage_jax.distributed import processes

    processes.start(flag)
    if processes.count() == 1:
        yield click.echo
        return
    try:
        yield click.echo if processes.is_first() else lambda line: None
    except Exception as error:
        _end(error)


def _end(error: Exception) -> None:
    """Report an error and end this process, whatever its threads wait for."""
    from mirage_jax.cli.main import is_mistake

    if isinstance(error, click.ClickException):
        error.show()
        code = error.exit_code
    elif is_mistake(error):
        click.echo(f"Error: {error}", err=True)
        code = exit_codes.MISTAKE
    else:
        traceback.print_exception(error)
        code = exit_codes.FAILED
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
