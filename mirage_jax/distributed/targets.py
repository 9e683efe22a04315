"""Accelerators that a run is planned for: what a chip can do, and its devices without the hardware.

Conventions: a target is "kind:shape", as in v5p:4x4x4 (chips along each axis of the torus) or
h100:8x8 (nodes x GPUs of a node). Figures are the vendors' own, of dense bfloat16 products, and are
never reached; bandwidths are of one device, all links together, one way.

Read next: `collectives.py`, `mirage_jax/plan/`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device as JAX counts them.

    Attributes:
        flops: bfloat16 operations a second.
        memory: bytes that programs may use.
        memory_rate: bytes a second to and from it.
        link_rate: bytes a second that it can send to its neighbours.
        per_chip: devices that one chip of the target's shape has.
    """

    flops: float
    memory: float
    memory_rate: float
    link_rate: float
    per_chip: int = 1


CHIPS: Mapping[str, Chip] = {
    "v5e": Chip(197e12, 15.75 * 2**30, 819e9, 200e9),
    "v5p": Chip(459e12, 95 * 2**30, 2765e9, 600e9),
    "v6e": Chip(918e12, 31.25 * 2**30, 1640e9, 448e9),
    "tpu7x": Chip(1153e12, 96e9, 3690e9, 600e9, per_chip=2),
    "h100": Chip(989e12, 80e9, 3350e9, 450e9),
}
# Parts of the names by which devices call themselves, in lower case; the first that fits.
_KINDS = (
    ("v5 lite", "v5e"),
    ("v5e", "v5e"),
    ("v5p", "v5p"),
    ("tpu v5", "v5p"),
    ("v6 lite", "v6e"),
    ("v6e", "v6e"),
    ("tpu7x", "tpu7x"),
    ("h100 80gb hbm3", "h100"),
)
_INSTALL = {
    "tpu": 'libtpu is needed to compile for TPUs: pip install "mirage-jax[tpu]"',
    "gpu": "compiling for GPUs that are not there is not supported yet: plan on a host with GPUs",
}


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices to plan for.

    Attributes:
        name: as given.
        kind: key of `CHIPS`.
        shape: chips along each axis.
    """

    name: str
    kind: str
    shape: tuple[int, ...]

    @property
    def chip(self) -> Chip:
        """What one device can do."""
        return CHIPS[self.kind]

    @property
    def devices(self) -> int:
        """How many devices there are."""
        return math.prod(self.shape) * self.chip.per_chip


def parse_target(text: str) -> Target:
    """Read a target such as "v5p:4x4x4".

    Raises:
        ValueError: for an unknown kind or a shape that is none.
    """
    kind, _, shape = text.partition(":")
    parts = shape.split("x")
    if kind not in CHIPS or not all(part.isdigit() and int(part) for part in parts):
        raise ValueError(
            f"--target: got {text!r}, expected kind:shape with a kind of {tuple(CHIPS)}, as in "
            "v5p:4x4x4"
        )
    return Target(text, kind, tuple(int(part) for part in parts))


def chip_of(device_kind: str) -> Chip | None:
    """Return what a device of that `device_kind` can do, or None where it is not known."""
    name = device_kind.lower()
    return next((CHIPS[kind] for part, kind in _KINDS if part in name), None)


def compile_only_devices(target: Target) -> list[Any]:
    """Return the target's devices, which one can compile for and nothing else.

    Raises:
        LookupError: saying what to install, where what compiles for the target is not there.
        ValueError: if there is no such target.
    """
    if target.kind == "h100":
        raise LookupError(_INSTALL["gpu"])
    from jax.experimental import topologies

    # Without wrap-around links XLA plans all-reduces where all-gathers are meant; a torus of
    # multiples of four has them.
    wraps = len(target.shape) == 3 and not any(size % 4 for size in target.shape)
    options = {"wrap": (True, True, True)} if wraps else {}
    try:
        description = topologies.get_topology_desc(
            platform="tpu", topology_name=target.name, **options
        )
    except Exception as error:  # of whatever kind the plugin raises
        missing = "libtpu" in str(error).lower() or "not installed" in str(error)
        if missing or isinstance(error, ImportError):
            raise LookupError(_INSTALL["tpu"]) from error
        raise ValueError(
            f"--target: got {target.name!r}, expected a shape that exists: {error}"
        ) from error
    return list(description.devices)
