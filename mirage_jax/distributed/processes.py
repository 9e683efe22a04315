"""Several processes of one run: their start, what the first of them does alone, and agreement.

Conventions: every process runs the same program on the same inputs; what differs is which devices
are its own. A single process is the case of one: each function here then does nothing or the
obvious thing, so that callers have one path. Files that people read are written by the first
process; folders are shared by all. Call `start` before anything asks JAX for its devices.

The first collective of processes that have not yet spoken fails on CPUs when one of them comes 30
seconds after the others, as it may after a long compilation. So what goes between processes here
waits for all of them first (`wait_for_all`), and so does the trainer before its first update.

Read next: `mesh.py`, `launch/local.py` (several processes on one machine).
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

_EXPLICIT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_STATED = re.compile(r"(\d+)/(\d+)@(\S+:\d+)")
# Seconds after which a process that does not come is given up; one that has died is noticed sooner.
_PATIENCE = 3600.0
# A place is waited at once under one name; processes are alike, and so is what they count.
_waits = itertools.count()


@dataclasses.dataclass(frozen=True)
class Process:
    """One of several processes.

    Attributes:
        index: from 0.
        count: of all processes.
        coordinator: host and port on which process 0 waits for the others.
    """

    index: int
    count: int
    coordinator: str

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(
                f"processes: got process {self.index} of {self.count}, expected an index from 0 to "
                "one less than their number"
            )


def asked_for(flag: str, environment: Mapping[str, str]) -> Process | str:
    """Say which processes a run consists of.

    Args:
        flag: "auto", "one", "cluster" or "INDEX/COUNT@HOST:PORT".
        environment: variables; those of JAX and of schedulers are read for "auto".

    Returns:
        The process that is stated, "cluster" where JAX is to ask the scheduler, or "one".

    Raises:
        ValueError: for another flag, or if the environment states only a part.
    """
    if flag in ("one", "cluster"):
        return flag
    if stated := _STATED.fullmatch(flag):
        return Process(int(stated[1]), int(stated[2]), stated[3])
    if flag != "auto":
        raise ValueError(
            f"--processes: got {flag!r}, expected auto, one, cluster, or INDEX/COUNT@HOST:PORT as "
            "in 0/2@10.0.0.1:1234"
        )
    given = {name: environment[name] for name in _EXPLICIT if environment.get(name)}
    if len(given) == len(_EXPLICIT):
        address, count, index = given.values()
        if not (count.isdigit() and index.isdigit()):
            raise ValueError(f"environment: got {given}, expected whole numbers of processes")
        return Process(int(index), int(count), address)
    if len(given) > 1:
        raise ValueError(
            f"environment: got {sorted(given)} alone, expected all of {', '.join(_EXPLICIT)} or "
            "none; set the rest, or give --processes"
        )
    return "cluster" if _several_stated(environment) else "one"


def _several_stated(environment: Mapping[str, str]) -> bool:
    """Whether a scheduler says that it started several processes."""
    counts = ["OMPI_COMM_WORLD_SIZE", "MEGASCALE_NUM_SLICES"]
    if "SLURM_PROCID" in environment:  # a task, and not a shell inside an allocation
        counts.append("SLURM_NTASKS")
    numbers = [environment.get(name, "") for name in counts]
    hosts = environment.get("TPU_WORKER_HOSTNAMES", "")
    return "," in hosts or any(n.isdigit() and int(n) > 1 for n in numbers)


def start(flag: str = "auto") -> None:
    """Join the other processes of the run, if there are any.

    Args:
        flag: see `asked_for`.

    Raises:
        ValueError: if the flag, the environment or the scheduler do not say who the others are.
    """
    asked = asked_for(flag, os.environ)
    if asked == "one":
        return
    # Carries SIGTERM of one process to all, see `mirage_jax/train/stopping.py`.
    jax.config.update("jax_enable_preemption_service", True)
    if isinstance(asked, Process):
        jax.distributed.initialize(
            asked.coordinator, asked.count, asked.index, cluster_detection_method="deactivate"
        )
        return
    try:
        jax.distributed.initialize()
    except ValueError as error:
        raise ValueError(
            f"--processes: got cluster, but JAX found none ({error}), expected a TPU pod, SLURM, "
            f"Open MPI or Kubernetes; set {', '.join(_EXPLICIT)}, or give --processes one"
        ) from error


def index() -> int:
    """Return the index of this process."""
    return jax.process_index()


def count() -> int:
    """Return the number of processes."""
    return jax.process_count()


def is_first() -> bool:
    """Whether this process writes what people read."""
    return index() == 0


def wait_for_all(what: str, seconds: float = _PATIENCE) -> None:
    """Return when every process has come here, however far apart they come.

    Goes through JAX's coordination service, not through the devices. To be called in the main
    thread only, and in the same order by all.

    Args:
        what: names the place in errors.
        seconds: after which it fails.
    """
    if count() == 1:
        return
    from orbax.checkpoint import multihost  # slow to import, and of no use to one process

    meet = multihost.get_barrier_sync_fn()
    meet(key=f"{what} ({next(_waits)})", timeout_ms=int(seconds * 1000))


def _of_all(leaf: Any, *, tiled: bool = False) -> Any:
    wait_for_all("values of all processes")
    return multihost_utils.process_allgather(leaf, tiled=tiled)


def largest(value: int) -> int:
    """Return the largest value that any process gives."""
    if count() == 1:
        return value
    return int(np.max(_of_all(np.int32(value))))


def require_same(text: str, what: str) -> None:
    """Check that every process gives the same text.

    Raises:
        ValueError: in every process, if one of them gives another.
    """
    own = np.frombuffer(hashlib.sha256(text.encode()).digest()[:4], np.int32)
    if largest(int(np.any(own != of_first(own)))):
        raise ValueError(
            f"{what}: processes of one run have different ones, expected the same; give all of "
            "them the same files and library versions"
        )


def of_first(values: np.ndarray) -> np.ndarray:
    """Return what the first process gives; the shape must be the same in all."""
    if count() == 1:
        return values
    wait_for_all("a value of the first process")
    return np.asarray(multihost_utils.broadcast_one_to_all(values))


def to_host(tree: Any) -> Any:
    """Return whole arrays as NumPy's; all processes must call it, as it may gather parts."""

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return np.asarray(leaf)
        if leaf.is_fully_replicated:
            return np.asarray(leaf.addressable_data(0))
        return _of_all(leaf, tiled=True)

    return jax.tree.map(one, tree)
