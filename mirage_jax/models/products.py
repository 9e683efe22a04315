"""Products written so that CPU backends run them and their gradients fast.

Conventions: operands and results are float32 unless said otherwise. XLA's CPU backend runs the
derived gradient of a bfloat16 product ten to twenty times slower than the product itself; on
accelerators the plain one is the choice.
Reverse mode only: `jax.jvp` does not pass through.

Read next: `layers.py`, which chooses by name.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from mirage_jax.distributed.constrain import devices_in_mesh
from mirage_jax.ops.platform import current_platform


def plain_product(
    x: Float[jax.Array, "*n i"], kernel: Float[jax.Array, "i o"]
) -> Float[jax.Array, "*n o"]:
    """Return `x @ kernel` in the dtype of `x`.

    On a single CPU the leading axes are merged first: XLA runs the gradients of a product over two
    or three of them at half speed. Elsewhere they stay apart, since they may be sharded.
    """
    kernel = kernel.astype(x.dtype)
    if current_platform() != "cpu" or devices_in_mesh() > 1:
        return x @ kernel
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], -1)


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


def _dot(x: jax.Array, kernel: jax.Array) -> jax.Array:
    dimensions = (((x.ndim - 1,), (0,)), ((), ()))
    return jax.lax.dot_general(x, kernel, dimensions, preferred_element_type=jnp.float32)
