"""Products with hand-written backward passes, for backends that do badly on the derived ones.

Conventions: operands and results are float32 unless said otherwise. XLA's CPU backend runs the
derived gradient of a bfloat16 product ten to twenty times slower than the product itself, and
attention with its derived gradient at half speed; on accelerators the library's own are the choice.
Reverse mode only: `jax.jvp` does not pass through.

Read next: `layers.py`, which chooses by name.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float


@jax.custom_vjp
def bfloat16_product(
    x: Float[jax.Array, "*n i"], kernel: Float[jax.Array, "i o"]
) -> Float[jax.Array, "*n o"]:
    """Return `x @ kernel`, operands rounded to bfloat16, summed in float32, in the dtype of `x`."""
    return _bfloat16_product_forward(x, kernel)[0]


def _bfloat16_product_forward(x, kernel):
    rounded = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    # Empty arrays carry the dtypes that the gradients must have.
    dtypes = jnp.zeros(0, x.dtype), jnp.zeros(0, kernel.dtype)
    return _dot(*rounded).astype(x.dtype), (*rounded, *dtypes)


def _bfloat16_product_backward(saved, gradient):
    x, kernel, x_like, kernel_like = saved
    gradient = gradient.astype(jnp.bfloat16)
    # Without the barrier XLA folds the transpose into the product and leaves its fast path.
    to_x = _dot(gradient, jax.lax.optimization_barrier(kernel.T))
    lead = tuple(range(x.ndim - 1))
    to_kernel = jax.lax.dot_general(
        x, gradient, ((lead, lead), ((), ())), preferred_element_type=jnp.float32
    )
    return to_x.astype(x_like.dtype), to_kernel.astype(kernel_like.dtype)


bfloat16_product.defvjp(_bfloat16_product_forward, _bfloat16_product_backward)


@jax.custom_vjp
def recomputed_attention(
    q: Float[jax.Array, "b n k d"], k: Float[jax.Array, "b m k d"], v: Float[jax.Array, "b m k d"]
) -> Float[jax.Array, "b n k d"]:
    """Return softmax(q k^T / sqrt(d)) v without a mask; the backward pass recomputes the weights.

    The same function as `jax.nn.dot_product_attention(q, k, v)`, computed in float32.
    """
    return _attention_forward(q, k, v)[0]


def _attention_forward(q, k, v):
    dtype = q.dtype
    q, k, v = (_heads_first(part) for part in (q * q.shape[-1] ** -0.5, k, v))
    scores = _scores(q, k)
    top = scores.max(axis=-1, keepdims=True)
    weights = jnp.exp(scores - top)
    total = weights.sum(axis=-1, keepdims=True)
    out = _matmul(weights, v) / total
    return _heads_last(out).astype(dtype), (q, k, v, out, top + jnp.log(total))


def _attention_backward(saved, gradient):
    q, k, v, out, log_total = saved
    dtype = gradient.dtype
    gradient = _heads_first(gradient)
    weights = jnp.exp(_scores(q, k) - log_total)
    to_v = _matmul(weights.swapaxes(-1, -2), gradient)
    to_weights = _matmul(gradient, v.swapaxes(-1, -2))
    to_scores = weights * (to_weights - (gradient * out).sum(axis=-1, keepdims=True))
    to_q = _matmul(to_scores, k) * q.shape[-1] ** -0.5
    to_k = _matmul(to_scores.swapaxes(-1, -2), q)
    return tuple(_heads_last(part).astype(dtype) for part in (to_q, to_k, to_v))


recomputed_attention.defvjp(_attention_forward, _attention_backward)


def _dot(x: jax.Array, kernel: jax.Array) -> jax.Array:
    dimensions = (((x.ndim - 1,), (0,)), ((), ()))
    return jax.lax.dot_general(x, kernel, dimensions, preferred_element_type=jnp.float32)


def _scores(q: jax.Array, k: jax.Array) -> jax.Array:
    return _matmul(q, k.swapaxes(-1, -2))


def _matmul(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y, preferred_element_type=jnp.float32)


def _heads_first(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32).swapaxes(1, 2)


def _heads_last(x: jax.Array) -> jax.Array:
    return x.swapaxes(1, 2)
