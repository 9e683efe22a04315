"""Notices by which a cloud says that it will take a machine, before SIGTERM or instead of it.

Machines of Google Compute Engine, TPU VMs among them, have a metadata server that tells of host
maintenance which ends the machine, and of preemption. A thread asks it every few seconds, on such a
machine only; elsewhere nothing is asked. Schedulers' notices (SLURM, Kubernetes) are SIGTERM.

Some notices come an hour ahead. One that stands already when a run begins is not acted on: the run
was started again on the same machine, and has the rest of that hour.

Read next: `mirage_jax/train/stopping.py`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

_PRODUCT = Path("/sys/class/dmi/id/product_name")
# Of Google's own client libraries: where the server is, if not at its usual name.
_HOST = "GCE_METADATA_HOST"
# What is asked, and what it answers when the machine is going to end. A machine that migrates goes
# on, so MIGRATE_ON_HOST_MAINTENANCE is none of them.
_ENDINGS = {
    "maintenance-event": ("TERMINATE_ON_HOST_MAINTENANCE",),
    "preempted": ("TRUE",),
}
_EVERY_SECONDS = 5.0
_TIMEOUT_SECONDS = 3.0


def metadata_host() -> str | None:
    """Return the metadata server of this machine, or None where it has none."""
    if host := os.environ.get(_HOST):
        return host
    try:
        product = _PRODUCT.read_text(encoding="utf-8")
    except OSError:
        return None
    return "metadata.google.internal" if "Google" in product else None


@contextlib.contextmanager
def watching(on_notice: Callable[[], None], every: float = _EVERY_SECONDS) -> Iterator[None]:
    """Call `on_notice` once, in a thread, when the machine is going to end."""
    host = metadata_host()
    if host is None:
        yield
        return
    known, done = endings(host), threading.Event()

    def watch() -> None:
        while not done.wait(every):
            if endings(host) - known:
                on_notice()
                return

    thread = threading.Thread(target=watch, name="maintenance notices", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def endings(host: str) -> frozenset[str]:
    """Return the questions whose answer is that the machine will end."""
    return frozenset(name for name, said in _ENDINGS.items() if _answer(host, name) in said)


def _answer(host: str, question: str) -> str:
    request = urllib.request.Request(
        f"http://{host}/computeMetadata/v1/instance/{question}",
        headers={"Metadata-Flavor": "Google"},
    )
    # A proxy would be asked about its own machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_TIMEOUT_SECONDS) as response:
            return response.read(100).decode(errors="replace").strip()
    except OSError:  # the next time, then; URLError and time-outs are of this kind
        return ""
