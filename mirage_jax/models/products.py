"""Products written so that CPU backends run them and their gradients fast, and ones of 8 bits.

Conventions: operands and results are float32 unless said otherwise. XLA's CPU backend runs the
derived gradient of a bfloat16 product ten to twenty times slower than the product itself; on
accelerators the plain one is the choice.
Reverse mode only: `jax.jvp` does not pass through. Products of 8 bits are qwix's; here is which
operands they have, forwards and backwards.

Read next: `layers.py`, which chooses by name.
"""

import functools
import importlib.util

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


def quantized_product(
    x: Float[jax.Array, "*n i"], kernel: Float[jax.Array, "i o"], kind: str
) -> Float[jax.Array, "*n o"]:
    """Return `x @ kernel` of operands rounded to 8 bits, in the dtype of `x`.

    Each row of `x` and each column of `kernel` has a scale of its own, by its largest value. The
    gradient with respect to `x` is such a product too; that with respect to `kernel`, in which
    rounding would add up over steps, has operands in the dtype of `x`. Rounding itself counts as
    the identity.

    Args:
        x: activations.
        kernel: weights.
        kind: "int8"; or "float8": e4m3 forwards, and for the incoming gradient e5m2.

    Raises:
        ValueError: if the package qwix is missing.
    """
    require_qwix(kind)
    return _quantized(kind, x, kernel)


def require_qwix(kind: str) -> None:
    """Refuse products of 8 bits where the package that makes them is missing."""
    if importlib.util.find_spec("qwix") is None:
        raise ValueError(
            f"denoiser.products: got {kind!r}, but the package qwix is not installed; "
            'pip install "mirage-jax[quant]", or use "plain"'
        )


_EIGHT_BITS = {
    "int8": (jnp.int8, jnp.int8),
    "float8": (jnp.float8_e4m3fn, jnp.float8_e5m2),
}


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _quantized(kind, x, kernel):
    value_type, _ = _EIGHT_BITS[kind]
    return _eight_bit_dot(x, kernel, value_type, value_type)


def _quantized_forward(kind, x, kernel):
    return _quantized(kind, x, kernel), (x, kernel)


def _quantized_backward(kind, saved, gradient):
    x, kernel = saved
    value_type, gradient_type = _EIGHT_BITS[kind]
    to_x = _eight_bit_dot(gradient, kernel.T, gradient_type, value_type)
    lead = tuple(range(x.ndim - 1))
    to_kernel = jax.lax.dot_general(
        x, gradient, ((lead, lead), ((), ())), preferred_element_type=jnp.float32
    )
    return to_x.astype(x.dtype), to_kernel.astype(kernel.dtype)


_quantized.defvjp(_quantized_forward, _quantized_backward)


def _eight_bit_dot(x: jax.Array, kernel: jax.Array, x_type, kernel_type) -> jax.Array:
    import qwix

    rows = tuple(range(x.ndim - 1))
    return qwix.dot_general(
        qwix.quantize(x, x_type, channelwise_axes=rows, scale_dtype=jnp.float32),
        qwix.quantize(kernel, kernel_type, channelwise_axes=(1,), scale_dtype=jnp.float32),
        (((x.ndim - 1,), (0,)), ((), ())),
    ).astype(x.dtype)


def _dot(x: jax.Array, kernel: jax.Array) -> jax.Array:
    dimensions = (((x.ndim - 1,), (0,)), ((), ()))
    return jax.lax.dot_general(x, kernel, dimensions, preferred_element_type=jnp.float32)
