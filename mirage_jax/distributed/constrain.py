"""Where activations lie, stated in few places; and functions that each device runs on its own part.

Conventions: the mesh is the one that is set (`jax.set_mesh`) while a function is traced. Without
one, or with one of a single device, all of this leaves its arguments alone. Values never depend on
it.

Read next: `axes.py` for the table, `mirage_jax/models/layers.py` for who calls this.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from mirage_jax.distributed.axes import TABLE, Names, spec_for


def devices_in_mesh() -> int:
    """Return how many devices share what is being traced; 1 within `on_own_part`."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty or AxisType.Manual in mesh.axis_types else mesh.size


def constrain(x: jax.Array, *names: str | None, what: str = "activations") -> jax.Array:
    """Return `x`, laid out as the logical names of its dimensions say.

    Raises:
        ValueError: see `axes.spec_for`.
    """
    if devices_in_mesh() == 1:
        return x
    mesh = jax.sharding.get_abstract_mesh()
    return jax.lax.with_sharding_constraint(x, spec_for(names, x.shape, mesh, what))


def gather_weight(kernel: jax.Array, axes: Names) -> jax.Array:
    """Return a weight whole along `embed`, as its product wants it, still divided along `tensor`.

    Called on the weight in the type of the product, so that no more bytes than that are moved; the
    gradient goes the other way, summed and divided again.
    """
    return constrain(kernel, *(None if name == "embed" else name for name in axes), what="weight")


def divided(name: str, size: int) -> bool:
    """Return whether the devices along a logical axis divide a dimension of that size."""
    if devices_in_mesh() == 1:
        return True
    sizes = jax.sharding.get_abstract_mesh().shape
    return size % math.prod(sizes.get(axis, 1) for axis in TABLE[name]) == 0


def on_own_part(function: Callable[..., Any], *names: str | None) -> Callable[..., Any]:
    """Return `function` as each device runs it on its own part of the arguments, alone.

    For work that is independent along the divided axes, and that XLA would not divide by itself:
    hand-written kernels, loops with an early end, sorting.

    Args:
        function: of pytrees of arrays, all laid out alike; gives such pytrees.
        *names: logical names of the leading dimensions of every array, given or returned.
    """
    if devices_in_mesh() == 1:
        return function
    mesh = jax.sharding.get_abstract_mesh()

    def spec(x: Any) -> P:
        padded = (*names, *(None for _ in x.shape[len(names) :]))
        return spec_for(padded, x.shape, mesh, "a device's own part")

    def run(*arguments: Any) -> Any:
        given = jax.tree.map(spec, arguments)
        made = jax.tree.map(spec, jax.eval_shape(function, *arguments))
        alone = jax.shard_map(function, in_specs=given, out_specs=made, check_vma=False)
        return alone(*arguments)

    return run
