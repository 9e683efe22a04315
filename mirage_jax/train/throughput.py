"""How fast updates are, and how much of the hardware they use.

Conventions: operations are the analytic count of the model's products, forward and backward
(`mirage_jax/plan/operations.py`), without what is computed again. Utilisation (MFU) is those a
second over the peak of all devices; of devices whose peak is not known there is none. Read next:
`mirage_jax/distributed/targets.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from mirage_jax.distributed.targets import chip_of


@dataclasses.dataclass(frozen=True)
class Work:
    """What an update takes, of all devices together.

    Attributes:
        tokens: that pass through the denoiser.
        operations: floating-point operations of the model.
    """

    tokens: float
    operations: float


def throughput(
    work: Work | None, seconds: float, devices: Sequence[Any] | None = None
) -> dict[str, float]:
    """Return metrics of updates that take `seconds` each, of those devices or of all there are."""
    values = {"update_seconds": seconds}
    if work is None or seconds <= 0:
        return values
    values["tokens_per_second"] = work.tokens / seconds
    devices = jax.devices() if devices is None else devices
    chips = [chip_of(device.device_kind) for device in devices]
    if all(chip is not None for chip in chips):
        peak = sum(chip.flops for chip in chips if chip is not None)
        values["mfu"] = work.operations / seconds / peak
    return values


def memory_in_use(devices: Sequence[Any] | None = None) -> dict[str, float]:
    """Return the gigabytes of memory that the fullest local device uses; {} where it is not told.

    `memory_gb` is now, `memory_peak_gb` the most since the process started.
    """
    devices = jax.local_devices() if devices is None else devices
    stats = [device.memory_stats() or {} for device in devices]
    names = {"memory_gb": "bytes_in_use", "memory_peak_gb": "peak_bytes_in_use"}
    return {
        name: max(one[key] for one in stats) / 1e9
        for name, key in names.items()
        if stats and all(key in one for one in stats)
    }
