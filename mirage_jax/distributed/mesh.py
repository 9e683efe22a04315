"""The mesh of a run: its sizes from the config, its devices in an order that suits the network.

Conventions: four axes, always present, of size 1 where unused; their types are Auto, so XLA places
what is not stated. `data` is the outermost axis and the only one that crosses slow links (slices of
a TPU cluster); `tensor` is the innermost, between devices that are nearest to each other.

Read next: `axes.py`.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh

AXES = ("data", "fsdp", "context", "tensor")
REST = -1


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How many devices lie along each axis of the mesh; one axis may be -1, all that are left.

    Attributes:
        data: copies of the parameters, each with its own share of the batch.
        fsdp: shares of parameters, moments and average; the batch is divided along it too.
        context: shares of a sequence's tokens; parameters are divided along it too.
        tensor: shares of attention heads and of hidden channels.
        whole_below: arrays of fewer scalars stay whole on every device: gathering them would cost
            more time than it saves memory.
    """

    data: int = 1
    fsdp: int = 1
    context: int = 1
    tensor: int = 1
    whole_below: int = 2**20

    def __post_init__(self) -> None:
        for name, size in self._stated.items():
            if size < 1 and size != REST:
                raise ValueError(
                    f"mesh.{name}: got {size}, expected a number of devices from 1 up, or {REST} "
                    "for all that are left"
                )
        if list(self._stated.values()).count(REST) > 1:
            raise ValueError(f"mesh: got {self}, expected {REST} for one axis at most; size others")

    @property
    def _stated(self) -> dict[str, int]:
        sizes = (self.data, self.fsdp, self.context, self.tensor)
        return dict(zip(AXES, sizes, strict=True))

    def sizes(self, devices: int) -> dict[str, int]:
        """Return the size of each axis for so many devices.

        Raises:
            ValueError: if there are too few devices, or they are no multiple of the stated axes.
        """
        sizes = self._stated
        stated = math.prod(size for size in sizes.values() if size != REST)
        if stated > devices or (REST in sizes.values() and devices % stated):
            raise ValueError(
                f"mesh: got {_text(sizes)} with {devices} devices, expected a product that divides "
                "them; change an axis, or give more devices"
            )
        return {name: devices // stated if size == REST else size for name, size in sizes.items()}


def parse_mesh(text: str) -> dict[str, int]:
    """Turn "fsdp=8,context=4" into the sizes it states.

    Raises:
        ValueError: for an unknown axis or a size that is no integer.
    """
    sizes = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name not in AXES or not value.removeprefix("-").isdigit():
            raise ValueError(
                f"--mesh: got {part.strip()!r}, expected axis=size with an axis of {AXES}, as in "
                "fsdp=8,context=4"
            )
        sizes[name] = int(value)
    return sizes


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Return the mesh of a config.

    Args:
        config: sizes.
        devices: to use; None takes JAX's own. Of more than the config states the first are used,
            which several processes may not do: each of them must have a part in the mesh.

    Raises:
        ValueError: if the sizes do not fit the devices, their processes or their slices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = config.sizes(len(devices))
    shape = tuple(sizes.values())
    count = math.prod(shape)
    if count < len(devices) and len({d.process_index for d in devices}) > 1:
        raise ValueError(
            f"mesh: got {_text(sizes)}, {count} devices, with {len(devices)} in several processes, "
            f"expected all of them; set one axis to {REST}"
        )
    ordered = _ordered(devices[:count], shape)
    return Mesh(ordered, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def abstract_mesh(config: MeshConfig, devices: int) -> AbstractMesh:
    """Return the mesh of a config without devices, to reason about shardings."""
    shape = tuple(config.sizes(devices).values())
    return AbstractMesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def describe(mesh: Mesh | AbstractMesh) -> str:
    """Return the axes of more than one device as "fsdp=8 context=4", or "one device"."""
    return _text({k: v for k, v in mesh.shape.items() if v > 1}) or "one device"


def _ordered(devices: list[Any], shape: tuple[int, ...]) -> Any:
    """Arrange devices so that inner axes lie on near ones; slices are divided along `data`."""
    slices = collections.Counter(getattr(d, "slice_index", 0) for d in devices)
    if len(slices) == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    if shape[0] % len(slices) or len(set(slices.values())) > 1:
        raise ValueError(
            f"mesh.data: got {shape[0]} with devices in {len(slices)} slices of "
            f"{sorted(slices.values())}, expected a multiple of the slices, of equal size: only "
            "this axis may cross the network between them"
        )
    inside = (shape[0] // len(slices), *shape[1:])
    across = (len(slices), *(1 for _ in shape[1:]))
    return mesh_utils.create_hybrid_device_mesh(
        inside, across, devices, allow_split_physical_axes=True
    )


def _text(sizes: Mapping[str, int]) -> str:
    return " ".join(f"{name}={size}" for name, size in sizes.items())
