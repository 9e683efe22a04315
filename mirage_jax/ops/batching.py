"""What hand-written kernels do under `jax.vmap`, where Pallas' own rule gives blocks TPUs refuse.

Kernels that walk tables run once for each member of the batch, one after another, as they would on
a TPU's one core anyway. Kernels that take or put single rows see all tables as one long table, so
that nothing is copied and writes stay in place.

Read next: `rasterize_points/api.py`, `gather_rows/api.py`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap


def one_by_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function`, of trees of arrays, as one that a batch calls once for each member."""
    single = custom_vmap(function)

    @single.def_vmap
    def batched(size: int, is_batched: list[Any], *arguments: Any) -> tuple[Any, Any]:
        leaves, tree = jax.tree.flatten(arguments)
        flags = jax.tree.leaves(is_batched)
        whole = [leaf for leaf, flag in zip(leaves, flags, strict=True) if flag]

        def one(parts: list[Any]) -> Any:
            own = iter(parts)
            mixed = [next(own) if f else leaf for leaf, f in zip(leaves, flags, strict=True)]
            return single(*jax.tree.unflatten(tree, mixed))

        if size == 1:  # nothing is sliced, so nothing is copied
            made = jax.tree.map(lambda leaf: leaf[None], one([leaf[0] for leaf in whole]))
        else:
            made = jax.lax.map(one, whole)
        return made, jax.tree.map(lambda _: True, made)

    return single


def rows_of_one_table(
    function: Callable[..., jax.Array], channels: int, *, puts: bool
) -> Callable[..., jax.Array]:
    """Return a row operation that takes the tables of a batch for one long table.

    Args:
        function: (table [l, w], index [m]) -> rows [m, c], or, with `puts`, (table, rows [m, c],
            index) -> table. An index of -1 means no row.
        channels: c.
        puts: which of the two it is.
    """
    single = custom_vmap(function)

    @single.def_vmap
    def batched(size: int, is_batched: list[bool], *arguments: jax.Array) -> tuple[Any, bool]:
        table, *rows, index = (
            leaf if flag else jnp.broadcast_to(leaf, (size, *leaf.shape))
            for leaf, flag in zip(arguments, is_batched, strict=True)
        )
        per_table = table.shape[1] * (table.shape[2] // channels)
        first = jnp.arange(size, dtype=jnp.int32)[:, None] * per_table
        index = jnp.where(index >= 0, index + first, -1).reshape(-1)
        long = table.reshape(-1, table.shape[2])
        if puts:
            new = rows[0].reshape(-1, channels)
            return single(long, new, index).reshape(table.shape), True
        return single(long, index).reshape(size, -1, channels), True

    return single
