"""Attention without a mask that never holds the whole table of scores, on every platform.

Conventions: queries [b, n, k, d], keys and values [b, m, k, d], result as the queries; scores are
scaled by d^-1/2. On TPUs long sequences go through JAX's Pallas flash attention, on NVIDIA GPUs
through cuDNN's, elsewhere and where those do not serve through plain JAX in blocks of queries.
The platform is that of the program when it is lowered, not of the process that traces it.
Reverse mode only: `jax.jvp` does not pass.

Read next: `attention_blocks.py` for the arithmetic, `layers.py`, which chooses by name.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float

from mirage_jax.models import attention_blocks

# Name of the results for `functional.REMAT`, which keeps them for the backward pass.
ATTENDED = "attended"

# Queries and keys of one step of the TPU kernel; sequences are padded to a multiple.
_TPU_BLOCK = 512


def attend(
    q: Float[jax.Array, "b n k d"], k: Float[jax.Array, "b m k d"], v: Float[jax.Array, "b m k d"]
) -> Float[jax.Array, "b n k d"]:
    """Return softmax(q k^T / sqrt(d)) v by the way that suits the platform it is lowered for.

    The ways differ by rounding only. Attention whose scores are a single block is computed in plain
    JAX everywhere. The TPU kernel is one device's: a program that JAX partitions over several
    takes plain JAX where a mesh is set (`jax.set_mesh`), and otherwise has to ask for
    `attention="recomputed"` in the model's config.
    """
    return _attention(_fused_ways(q, k), q, k, v)


def blockwise_attention(
    q: Float[jax.Array, "b n k d"], k: Float[jax.Array, "b m k d"], v: Float[jax.Array, "b m k d"]
) -> Float[jax.Array, "b n k d"]:
    """Return softmax(q k^T / sqrt(d)) v in plain JAX, in blocks of queries, on every platform."""
    return _attention((), q, k, v)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(ways: tuple[str, ...], q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Attend by the fused kernels named where the platform has one of them, else in blocks."""
    return _forward(ways, q, k, v)[0]


def _forward(ways, q, k, v):
    results = _on_platform(ways, attention_blocks.forward, _fused_forward, q, k, v)
    out, log_total = checkpoint_name(results, ATTENDED)
    return out, (q, k, v, out, log_total)


def _backward(ways, saved, gradient):
    return _on_platform(ways, attention_blocks.backward, _fused_backward, *saved, gradient)


_attention.defvjp(_forward, _backward)


def _on_platform(ways: tuple[str, ...], blocks: Any, fused: Any, *arguments: jax.Array) -> Any:
    if not ways:
        return blocks(*arguments)
    kernels = {name: functools.partial(fused, _FUSED[name]) for name in ways}
    return jax.lax.platform_dependent(*arguments, default=blocks, **kernels)


def _fused_ways(q: jax.Array, k: jax.Array) -> tuple[str, ...]:
    """Return the platforms whose fused kernel can compute this."""
    ways = []
    head_width, is_half = q.shape[-1], q.dtype in (jnp.bfloat16, jnp.float16)
    if attention_blocks.one_block(q, k):
        return ()
    if jax.sharding.get_abstract_mesh().size <= 1 or _is_manual():
        ways.append("tpu")
    # Without a GPU cuDNN's kernel cannot even be traced.
    if jax.default_backend() == "gpu" and is_half and head_width % 8 == 0 and head_width <= 128:
        ways.append("cuda")
    return tuple(ways)


def _is_manual() -> bool:
    """Return whether what is traced is one device's part, inside `jax.shard_map`."""
    mesh = jax.sharding.get_abstract_mesh()
    return bool(mesh.manual_axes) and set(mesh.manual_axes) == set(mesh.axis_names)


def _fused_forward(attend: Callable[..., jax.Array], q, k, v):
    """Return the kernel's result; it keeps no totals, zeros stand for them."""
    batch, queries, heads, _ = q.shape
    return attend(q, k, v), jnp.zeros((batch, heads, queries, 1), jnp.float32)


def _fused_backward(attend: Callable[..., jax.Array], q, k, v, out, log_total, gradient):
    """Return the kernel's gradients; what it keeps between its passes is computed anew."""
    return jax.vjp(attend, q, k, v)[1](gradient)


def _cudnn_attention(q, k, v):
    return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")


def _tpu_attention(q, k, v):
    """Pad to whole blocks, attend within what is not padding, cut."""
    from jax.experimental.pallas.ops.tpu import flash_attention as flash

    count, scale = q.shape[1], q.shape[-1] ** -0.5
    segments = flash.SegmentIds(_padding(q), _padding(k))
    q, k, v = (_padded(part).swapaxes(1, 2) for part in (q, k, v))
    out = flash.flash_attention(
        q, k, v, segment_ids=segments, sm_scale=scale, block_sizes=_tpu_blocks(flash)
    )
    return out.swapaxes(1, 2)[:, :count]


def _tpu_blocks(flash: Any) -> Any:
    fields = {field.name for field in dataclasses.fields(flash.BlockSizes)} - {"block_b"}
    return flash.BlockSizes(block_b=1, **dict.fromkeys(fields, _TPU_BLOCK))


def _padding(x: jax.Array) -> jax.Array:
    """Return [b, n padded] segments: 0 for rows of `x`, 1 for those that fill the last block."""
    rows = jnp.arange(x.shape[1] + -x.shape[1] % _TPU_BLOCK) >= x.shape[1]
    return jnp.broadcast_to(rows.astype(jnp.int32), (x.shape[0], rows.size))


def _padded(x: jax.Array) -> jax.Array:
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % _TPU_BLOCK), (0, 0), (0, 0)))


_FUSED: dict[str, Callable[..., jax.Array]] = {"tpu": _tpu_attention, "cuda": _cudnn_attention}
