"""Attention in plain JAX that holds the scores of one block of queries at a time.

Conventions: queries [b, n, k, d], keys and values [b, m, k, d], result as the queries; scores are
scaled by d^-1/2; sums and exponentials in float32. The backward pass computes the weights anew,
block by block, from the logarithm of their totals, so neither pass ever holds the whole table,
which for 13,200 tokens in 24 heads would be 16 GiB.

Read next: `attention.py`, which chooses where this is used.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

# Scores held at once, 8 MiB in float32.
BLOCK_SCORES = 2**21


def forward(
    q: Float[jax.Array, "b n k d"], k: Float[jax.Array, "b m k d"], v: Float[jax.Array, "b m k d"]
) -> tuple[Float[jax.Array, "b n k d"], Float[jax.Array, "b k n 1"]]:
    """Return softmax(q k^T / sqrt(d)) v, and the logarithm of each query's sum of exponentials.

    Blocks are as many queries of one head as have `BLOCK_SCORES` scores; where all of them
    together have no more, it is one block.
    """
    out, log_total = _each_head(_head_forward, _scaled(q), _heads_first(k), _heads_first(v))
    return _heads_last(out).astype(q.dtype), log_total


def backward(
    q: Float[jax.Array, "b n k d"],
    k: Float[jax.Array, "b m k d"],
    v: Float[jax.Array, "b m k d"],
    out: Float[jax.Array, "b n k d"],
    log_total: Float[jax.Array, "b k n 1"],
    gradient: Float[jax.Array, "b n k d"],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the gradients of queries, keys and values, given that of the result."""
    gradient = _heads_first(gradient)
    inner = (gradient * _heads_first(out)).sum(axis=-1, keepdims=True)
    parts = _scaled(q), _heads_first(k), _heads_first(v)
    to_q, to_k, to_v = _each_head(_head_backward, *parts, gradient, inner, log_total)
    results = to_q * q.shape[-1] ** -0.5, to_k, to_v
    return tuple(_heads_last(part).astype(q.dtype) for part in results)  # type: ignore[return-value]


def one_block(q: jax.Array, k: jax.Array) -> bool:
    """Return whether the scores of all heads together are one block."""
    batch, queries, heads, _ = q.shape
    return batch * heads * queries * k.shape[1] <= BLOCK_SCORES


def _each_head(step: Callable[..., Any], q: jax.Array, k: jax.Array, *others: jax.Array) -> Any:
    """Run `step` over all heads at once if their scores are one block, else over each in turn."""
    *lead, n, _ = q.shape
    if math.prod(lead) * n * k.shape[-2] <= BLOCK_SCORES:
        return step(q, k, *others)
    heads = [part.reshape(-1, *part.shape[2:]) for part in (q, k, *others)]
    results = jax.lax.map(lambda head: step(*head), heads)
    return jax.tree.map(lambda part: part.reshape(*lead, *part.shape[1:]), results)


def _head_forward(q, k, v):
    """Return the result and the logarithm of the sum of exponentials, for queries in blocks."""

    def block(_, queries):
        (q,) = queries
        scores = _matmul(q, k.swapaxes(-1, -2))
        top = scores.max(axis=-1, keepdims=True)
        weights = jnp.exp(scores - top)
        total = weights.sum(axis=-1, keepdims=True)
        return None, (_matmul(weights, v) / total, top + jnp.log(total))

    return _scan_blocks(block, None, (q,), k.shape[-2])[1]


def _head_backward(q, k, v, gradient, inner, log_total):
    """Return the gradients of queries, keys and values."""

    def block(carry, queries):
        q, gradient, inner, log_total = queries
        to_k, to_v = carry
        weights = jnp.exp(_matmul(q, k.swapaxes(-1, -2)) - log_total)
        to_scores = weights * (_matmul(gradient, v.swapaxes(-1, -2)) - inner)
        to_v = to_v + _matmul(weights.swapaxes(-1, -2), gradient)
        to_k = to_k + _matmul(to_scores.swapaxes(-1, -2), q)
        return (to_k, to_v), _matmul(to_scores, k)

    start = jnp.zeros_like(k), jnp.zeros_like(v)
    (to_k, to_v), to_q = _scan_blocks(block, start, (q, gradient, inner, log_total), k.shape[-2])
    return to_q, to_k, to_v


def _scan_blocks(block: Callable[..., Any], carry: Any, queries: Any, keys: int) -> tuple[Any, Any]:
    """Scan `block` over equal blocks of queries; rows of zeros fill the last one."""
    count = queries[0].shape[-2]
    blocks = 1 if queries[0].ndim > 2 else -(-count * keys // BLOCK_SCORES)
    if blocks == 1:
        return block(carry, queries)
    rows = -(-count // blocks)

    def cut(part: jax.Array) -> jax.Array:
        return jnp.pad(part, ((0, blocks * rows - count), (0, 0))).reshape(blocks, rows, -1)

    parts = tuple(cut(part) for part in queries)
    carry, results = jax.lax.scan(block, carry, parts)
    return carry, jax.tree.map(lambda part: part.reshape(-1, part.shape[-1])[:count], results)


def _matmul(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y, preferred_element_type=jnp.float32)


def _scaled(q: jax.Array) -> jax.Array:
    return _heads_first(q) * q.shape[-1] ** -0.5


def _heads_first(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32).swapaxes(1, 2)


def _heads_last(x: jax.Array) -> jax.Array:
    return x.swapaxes(1, 2)
