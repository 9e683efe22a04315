"""Attention without a mask: the library's on accelerators, in blocks of queries on CPUs.

Conventions: queries [b, n, k, d], keys and values [b, m, k, d], result as the queries; scores are
scaled by d^-1/2. On a CPU the table of scores is what costs: for 4,000 tokens and four heads it is
245 MB, written and read several times. In blocks that stay in the cache the same arithmetic takes
a third of the time (`benchmarks/README.md`). The backward pass computes the weights anew, block
by block, so neither pass ever holds the whole table. Reverse mode only: `jax.jvp` does not pass.

Read next: `layers.py`, which chooses by name.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

# Scores held at once, 8 MiB in float32: of 1 to 32 MiB the fastest on a core with 2 MiB of its own.
BLOCK_SCORES = 2**21


def attend(
    q: Float[jax.Array, "b n k d"], k: Float[jax.Array, "b m k d"], v: Float[jax.Array, "b m k d"]
) -> Float[jax.Array, "b n k d"]:
    """Return softmax(q k^T / sqrt(d)) v by the way that suits the default backend.

    The two ways differ by rounding only. The choice is made while tracing, from
    `jax.default_backend()`: a program compiled on a CPU host for another device names its way
    itself, with `attention="library"` in the model's config.
    """
    if jax.default_backend() == "cpu":
        return blockwise_attention(q, k, v)
    return jax.nn.dot_product_attention(q, k, v)


@jax.custom_vjp
def blockwise_attention(
    q: Float[jax.Array, "b n k d"], k: Float[jax.Array, "b m k d"], v: Float[jax.Array, "b m k d"]
) -> Float[jax.Array, "b n k d"]:
    """Return softmax(q k^T / sqrt(d)) v; the backward pass recomputes the weights.

    The same function as `jax.nn.dot_product_attention(q, k, v)`, computed in float32. Blocks are
    as many queries of one head as have `BLOCK_SCORES` scores; where all of them together have no
    more, it is one block.
    """
    return _forward(q, k, v)[0]


def _forward(q, k, v):
    dtype = q.dtype
    q, k, v = (_heads_first(part) for part in (q * q.shape[-1] ** -0.5, k, v))
    out, log_total = _each_head(_head_forward, q, k, v)
    return _heads_last(out).astype(dtype), (q, k, v, out, log_total)


def _backward(saved, gradient):
    q, k, v, out, log_total = saved
    dtype, gradient = gradient.dtype, _heads_first(gradient)
    inner = (gradient * out).sum(axis=-1, keepdims=True)
    to_q, to_k, to_v = _each_head(_head_backward, q, k, v, gradient, inner, log_total)
    to_q = to_q * q.shape[-1] ** -0.5
    return tuple(_heads_last(part).astype(dtype) for part in (to_q, to_k, to_v))


blockwise_attention.defvjp(_forward, _backward)


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


def _heads_first(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32).swapaxes(1, 2)


def _heads_last(x: jax.Array) -> jax.Array:
    return x.swapaxes(1, 2)
