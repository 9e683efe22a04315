"""Accelerators that a run is planned for: what a chip can do, and its devices without the hardware.

Conventions: a target is "kind:shape", as in v5p:4x4x4 (chips along each axis of the torus) or
h100:8x8 (nodes x GPUs of a node), or "local", the devices that are there. Figures are the vendors'
own, of dense bfloat16 products, and are never reached; bandwidths are of one device, all links
together, one way.

Read next: `collectives.py`, `mirage_jax/plan/`.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path
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


# Sources: Cloud TPU's pages of v5e, v5p, v6e and TPU7x, which state links in both directions and
# TPU7x by chip; NVIDIA's data sheet of the H100 SXM (NVLink). What programs may use of v5e and v6e
# is what their compiler says; of TPU7x it is a guess below the 96 GiB stated.
CHIPS: Mapping[str, Chip] = {
    "v5e": Chip(197e12, 15.75 * 2**30, 819e9, 200e9),
    "v5p": Chip(459e12, 95 * 2**30, 2765e9, 600e9),
    "v6e": Chip(918e12, 31.25 * 2**30, 1600e9, 400e9),
    "tpu7x": Chip(1153e12, 96e9, 3690e9, 300e9, per_chip=2),
    "h100": Chip(989e12, 80e9, 3350e9, 450e9),
}
# Descriptions of GPUs for the compiler, which otherwise asks the device.
_GPU_DESCRIPTIONS = {"h100": "h100.txtpb"}
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
    "cuda": 'the CUDA plugin is needed to compile for GPUs: pip install "mirage-jax[cuda]"',
}


@dataclasses.dataclass(frozen=True)
class LocalDevice:
    """What is known of a device that is there; None where it is not, see `Chip` for the rest.

    Attributes:
        memory: bytes that programs may use.
        flops: bfloat16 operations a second.
        memory_rate: bytes a second to and from it.
        link_rate: bytes a second that it can send to its neighbours.
    """

    memory: float
    flops: float | None = None
    memory_rate: float | None = None
    link_rate: float | None = None


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices to plan for.

    Attributes:
        name: as given.
        kind: key of `CHIPS`; of local devices what they call themselves.
        shape: chips along each axis.
        local: what a local device can do; None for devices that need not be there.
        memory_is: whose memory the limit is, for people; "" where it is the chip's own.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    local: LocalDevice | None = None
    memory_is: str = ""

    @property
    def chip(self) -> Chip | LocalDevice:
        """What one device can do."""
        return self.local or CHIPS[self.kind]

    @property
    def label(self) -> str:
        """For people: the name; of local devices how many there are, and what they are."""
        plural = "s" if self.devices > 1 else ""
        return f"{self.devices} local {self.kind} device{plural}" if self.local else self.name

    @property
    def memory_note(self) -> str:
        """For people, to follow the memory of a device: whose it is."""
        return f" ({self.memory_is})" if self.memory_is else ""

    @property
    def devices(self) -> int:
        """How many devices there are."""
        return math.prod(self.shape) * (1 if self.local else CHIPS[self.kind].per_chip)


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
            "v5p:4x4x4, or local for the devices that are here"
        )
    return Target(text, kind, tuple(int(part) for part in parts))


def chip_of(device_kind: str) -> Chip | None:
    """Return what a device of that `device_kind` can do, or None where it is not known."""
    name = device_kind.lower()
    return next((CHIPS[kind] for part, kind in _KINDS if part in name), None)


def local_target() -> Target:
    """Return the devices of this process as a target; starts JAX.

    The memory is what JAX may use of a device's; CPUs, simulated ones too, share the machine's.

    Raises:
        ValueError: if a device of unknown kind does not say how much memory it has.
    """
    import jax

    devices = jax.local_devices()
    kind, known = devices[0].device_kind, chip_of(devices[0].device_kind)
    memory, memory_is = (devices[0].memory_stats() or {}).get("bytes_limit"), "what JAX may use"
    if memory is None and devices[0].platform == "cpu":
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / len(devices)
        memory_is = "this machine's RAM" if len(devices) == 1 else "its share of the RAM"
    elif memory is None and known is not None:
        memory, memory_is = known.memory, ""
    if memory is None:
        raise ValueError(
            f"--target local: got a {kind!r} that does not say how much memory it has, expected "
            "memory statistics; unset XLA_PYTHON_CLIENT_ALLOCATOR"
        )
    device = LocalDevice(memory)
    if known is not None:
        device = LocalDevice(memory, known.flops, known.memory_rate, known.link_rate)
    return Target("local", kind, (len(devices),), device, memory_is)


def compile_only_devices(target: Target) -> list[Any]:
    """Return the target's devices, which one can compile for and nothing else.

    Raises:
        LookupError: saying what to install, where what compiles for the target is not there.
        ValueError: if there is no such target.
    """
    from jax.experimental import topologies

    if target.kind in _GPU_DESCRIPTIONS:
        platform, name, options = "cuda", "", _gpu_options(target)
    else:
        platform, name, options = "tpu", target.name, _tpu_options(target)
    try:
        return list(topologies.get_topology_desc(name, platform, **options).devices)
    except Exception as error:  # of whatever kind the plugin raises
        words = str(error).lower()
        missing = any(part in words for part in ("libtpu", "not installed", "for cuda"))
        if missing or isinstance(error, ImportError):
            raise LookupError(_INSTALL[platform]) from error
        raise ValueError(
            f"--target: got {target.name!r}, expected a shape that exists: {error}"
        ) from error


def _tpu_options(target: Target) -> dict[str, Any]:
    # Without wrap-around links XLA plans all-reduces where all-gathers are meant; a torus of
    # multiples of four has them.
    wraps = len(target.shape) == 3 and not any(size % 4 for size in target.shape)
    return {"wrap": (True, True, True)} if wraps else {}


def _gpu_options(target: Target) -> dict[str, Any]:
    """Describe GPUs to the compiler, which otherwise asks one: slices x nodes x GPUs of a node."""
    if len(target.shape) != 2:
        raise ValueError(
            f"--target: got {target.name!r}, expected nodes x GPUs of a node, as in "
            f"{target.kind}:8x8"
        )
    description = Path(__file__).with_name(_GPU_DESCRIPTIONS[target.kind]).read_text()
    shape = "x".join(map(str, (1, *target.shape)))
    return {"target_config": description, "topology": shape}
