"""Which implementation of an operation runs: stated by the caller, or the one of the platform.

Never a silent fallback: a platform without an implementation is an error that says what to pass.
Read next: `rasterize_points/api.py`.
"""

from collections.abc import Mapping
from typing import Any

import jax

# What runs where when the caller does not say.
DEFAULTS = {"cpu": "xla", "tpu": "pallas_tpu", "gpu": "pallas_gpu"}


def current_platform() -> str:
    """Return "cpu", "gpu" or "tpu": that of the mesh that is set (`jax.set_mesh`), else JAX's own.

    Set the mesh of the target when compiling ahead of time for another platform.
    """
    device: Any = jax.sharding.get_abstract_mesh().abstract_device
    if device is not None:
        return "gpu" if device.platform in ("cuda", "rocm") else device.platform
    return jax.default_backend()


def choose_implementation(
    operation: str, implementation: str | None, choices: Mapping[str, Any]
) -> str:
    """Return the name of the implementation to run.

    Args:
        operation: Name of the operation, for messages.
        implementation: What the caller asked for; None takes the platform's.
        choices: Implementations the operation has, by name.

    Raises:
        ValueError: If there is no such implementation, or none for this platform.
    """
    if implementation is None:
        platform = current_platform()
        implementation = DEFAULTS.get(platform, "")
        if implementation not in choices:
            raise ValueError(
                f"{operation}: no implementation is the default on platform {platform!r}; pass "
                f"implementation= one of {sorted(choices)}."
            )
    if implementation not in choices:
        raise ValueError(
            f"{operation}: implementation is {implementation!r}, expected one of "
            f"{sorted(choices)}, or None for the one of the platform."
        )
    return implementation
