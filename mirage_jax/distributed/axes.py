"""The one table from logical axes of arrays to axes of the mesh, and the shardings it gives.

Conventions: an array is described by one logical name, or None, for each of its dimensions. A name
that the table gives no mesh axis, and None, mean whole on every device. Axes of size 1 are left out
of the specs, so the specs of a mesh of one device are empty.

Read next: `constrain.py` (activations), `mirage_jax/models/functional.py` (`logical_axes`).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AnyMesh = Mesh | AbstractMesh
Names = Sequence[str | None]

TABLE: Mapping[str, tuple[str, ...]] = {
    # activations
    "batch": ("data", "fsdp"),
    "frames": (),
    "tokens": ("context",),
    # heads where attention has the whole sequence before it
    "attending_heads": ("tensor", "context"),
    # parameters; the last two also of activations
    "embed": ("fsdp", "context"),
    "layers": (),
    "head_dim": (),
    "heads": ("tensor",),
    "mlp": ("tensor",),
    # partitions of a latent memory: along all axes that do not divide the batch of memories
    "memory": ("context", "tensor"),
}


def spec_for(
    names: Names, shape: Sequence[int], mesh: AnyMesh, what: str, *, whole_below: int = 0
) -> P:
    """Return where an array lies.

    Args:
        names: logical name of each dimension, or None.
        shape: of the array.
        mesh: its sizes; axes that it lacks count as 1.
        what: name of the array, for messages.
        whole_below: arrays of fewer scalars are not divided.

    Raises:
        ValueError: for an unknown name, one mesh axis twice in an array, or a dimension that its
            mesh axes do not divide.
    """
    if len(names) != len(shape):
        raise ValueError(
            f"{what}: got logical axes {tuple(names)} for shape {tuple(shape)}, expected one a "
            "dimension; write None for one that is never divided"
        )
    entries = [_mesh_axes(name, mesh, what) for name in names]
    used = [axis for entry in entries for axis in entry]
    if twice := sorted({axis for axis in used if used.count(axis) > 1}):
        raise ValueError(
            f"{what}: logical axes {tuple(names)} put mesh axis {twice[0]!r} on two dimensions, "
            "expected each mesh axis once in an array; name one of the dimensions None"
        )
    if math.prod(shape) < whole_below:
        return P()
    for index, (name, entry) in enumerate(zip(names, entries, strict=True)):
        shares = math.prod(mesh.shape[axis] for axis in entry)
        if shape[index] % shares:
            raise ValueError(
                f"{what}: dimension {index} ({name}) is {shape[index]}, expected a multiple of "
                f"{shares}, the devices along {' x '.join(entry)}; change it, or those axes of the "
                "mesh"
            )
    while entries and not entries[-1]:
        entries.pop()
    return P(*((entry if len(entry) > 1 else entry[0]) if entry else None for entry in entries))


def shardings_for(
    axes: Any, shapes: Any, mesh: AnyMesh, *, whole_below: int = 0, what: str = ""
) -> Any:
    """Return the sharding of each array of a nested dict.

    Args:
        axes: nested dict of tuples of logical names, one for each array; more are ignored.
        shapes: nested dict of arrays or abstract arrays.
        mesh: where they lie.
        whole_below: see `spec_for`.
        what: path of the dict, for messages.

    Returns:
        Nested dict of `NamedSharding`, keyed as `shapes`.

    Raises:
        ValueError: see `spec_for`; also for an array without logical axes.
    """
    if not isinstance(shapes, Mapping):
        spec = spec_for(axes, shapes.shape, mesh, what, whole_below=whole_below)
        return NamedSharding(mesh, spec)
    if missing := [name for name in shapes if name not in axes]:
        raise ValueError(
            f"{what or 'parameters'}: no logical axes for {missing}, expected a tuple of names or "
            f"None for each array; there are some for {list(axes)[:8]}"
        )
    return {
        name: shardings_for(
            axes[name],
            value,
            mesh,
            whole_below=whole_below,
            what=f"{what}/{name}" if what else str(name),
        )
        for name, value in shapes.items()
    }


def left_whole(shapes: Any, shardings: Any, *, at_least: int = 2**26) -> list[str]:
    """Name the large arrays that every device holds whole although the mesh could divide them.

    Args:
        shapes: tree of arrays or abstract arrays.
        shardings: tree of `NamedSharding` of the same structure.
        at_least: bytes from which on an array is large.

    Returns:
        A line for each, the largest first: name, shape, bytes, and the mesh axes left idle.
    """
    found = []
    placed = jax.tree.leaves(shardings)
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    for (path, leaf), sharding in zip(leaves, placed, strict=True):
        size = leaf.size * leaf.dtype.itemsize
        dividing = [axis for axis in ("fsdp", "context", "tensor") if sharding.mesh.shape[axis] > 1]
        if size >= at_least and dividing and not any(sharding.spec):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            line = f"{name} {tuple(leaf.shape)} {size / 2**20:.0f} MiB, idle: {', '.join(dividing)}"
            found.append((size, line))
    return [line for _, line in sorted(found, key=lambda pair: -pair[0])]


def _mesh_axes(name: str | None, mesh: AnyMesh, what: str) -> tuple[str, ...]:
    if name is None:
        return ()
    if name not in TABLE:
        near = difflib.get_close_matches(name, TABLE, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "add it to distributed/axes.py"
        raise ValueError(
            f"{what}: unknown logical axis {name!r}, expected one of {sorted(TABLE)}; {hint}"
        )
    return tuple(axis for axis in TABLE[name] if mesh.shape.get(axis, 1) > 1)
