"""Building blocks of the transformer: linear maps, norms, attention and the feed-forward net.

Conventions: channel last; parameters float32, products in the dtype of the activations, norms and
softmax in float32. Each `nnx.Param` names its logical axes in `axes`. No stored random keys.

Read next: `rotary.py` for positions, `denoiser.py` for how blocks are put together.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from mirage_jax.distributed.constrain import constrain, gather_weight, on_own_part
from mirage_jax.models.attention import attend, blockwise_attention
from mirage_jax.models.products import bfloat16_product, plain_product, quantized_product

Products = Literal["plain", "bfloat16", "int8", "float8"]
_xavier = nnx.initializers.xavier_uniform()


@dataclasses.dataclass(frozen=True)
class BlockSizes:
    """Sizes of a transformer block, and how its products are computed.

    Attributes:
      width: channels of a token.
      heads: attention heads.
      mlp_width: hidden channels of the feed-forward net.
      eps: added to variances in norms.
      products: "plain" multiplies in the dtype of the activations, "bfloat16" rounds the operands
        of every linear map but leaves the activations as they are, "int8" and "float8" round them
        to 8 bits, see `products.quantized_product`.
      attention: "auto" is `attention.attend`, the platform's kernel or blocks of queries;
        "recomputed" is `attention.blockwise_attention`, blocks on every platform; "library" is
        `jax.nn.dot_product_attention`, which may hold the whole table of scores.
    """

    width: int
    heads: int
    mlp_width: int
    eps: float
    products: Products = "plain"
    attention: Literal["auto", "library", "recomputed"] = "auto"


class Linear(nnx.Module):
    """Affine map of the last axis, `x @ kernel + bias`, or linear without a bias.

    Where `adapted.py` has attached factors `a` and `b`, `scale * (x @ a) @ b` is added.
    """

    # Set by `adapted.py` only.
    a: nnx.Param
    b: nnx.Param
    scale: float

    def __init__(
        self,
        in_width: int,
        out_width: int,
        axes: tuple[str | None, str | None],
        *,
        rngs: nnx.Rngs,
        kernel_init: nnx.Initializer = _xavier,
        products: Products = "plain",
        has_bias: bool = True,
    ):
        """Make a kernel [in_width, out_width] with logical axes `axes`, and a zero bias."""
        self.products, self.has_bias, self.axes = products, has_bias, axes
        kernel = kernel_init(rngs.params(), (in_width, out_width), jnp.float32)
        self.kernel = nnx.Param(kernel, axes=axes)
        if has_bias:
            self.bias = nnx.Param(jnp.zeros(out_width), axes=axes[1:])

    def __call__(self, x: Float[jax.Array, "... i"]) -> Float[jax.Array, "... o"]:
        """Return the mapped activations in the dtype of `x`."""
        if self.products == "bfloat16":
            y = bfloat16_product(x, gather_weight(self.kernel[...], self.axes))
        else:
            kernel = gather_weight(self.kernel[...].astype(x.dtype), self.axes)
            if self.products == "plain":
                y = plain_product(x, kernel)
            else:
                y = quantized_product(x, kernel, self.products)
        if hasattr(self, "a"):
            down = x @ self.a[...].astype(x.dtype)
            y = y + self.scale * (down @ self.b[...].astype(x.dtype))
        return y + self.bias[...].astype(x.dtype) if self.has_bias else y


class RMSNorm(nnx.Module):
    """Root-mean-square norm over the last axis with a learned scale."""

    def __init__(self, width: int, eps: float, axis: str | None = None):
        """Make a scale of ones with logical axis `axis`."""
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(width), axes=(axis,))

    def __call__(self, x: Float[jax.Array, "... d"]) -> Float[jax.Array, "... d"]:
        """Normalise in float32, return the dtype of `x`."""
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + self.eps)
        return (y * self.scale[...].astype(jnp.float32)).astype(x.dtype)


class AffineLayerNorm(nnx.Module):
    """Layer norm with learned scale and bias."""

    def __init__(self, width: int, eps: float):
        """Make a scale of ones and a bias of zeros."""
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(width), axes=("embed",))
        self.bias = nnx.Param(jnp.zeros(width), axes=("embed",))

    def __call__(self, x: Float[jax.Array, "... d"]) -> Float[jax.Array, "... d"]:
        """Normalise in float32, return the dtype of `x`."""
        y = layer_norm(x, self.eps) * self.scale[...] + self.bias[...]
        return y.astype(x.dtype)


class FeedForward(nnx.Module):
    """Two linear maps with a tanh-approximated GELU between."""

    def __init__(self, sizes: BlockSizes, *, rngs: nnx.Rngs):
        """Make the maps width -> mlp_width -> width."""
        width, hidden, products = sizes.width, sizes.mlp_width, sizes.products
        self.up = Linear(width, hidden, ("embed", "mlp"), rngs=rngs, products=products)
        self.down = Linear(hidden, width, ("mlp", "embed"), rngs=rngs, products=products)

    def __call__(self, x: Float[jax.Array, "... d"]) -> Float[jax.Array, "... d"]:
        """Return the transformed activations."""
        hidden = jax.nn.gelu(self.up(x), approximate=True)
        return self.down(constrain(hidden, *leading_axes(hidden.ndim), "mlp"))


class Attention(nnx.Module):
    """Multi-head attention with queries and keys RMS-normalised over the full width.

    The norm comes before heads are split, as the released weights expect it. There is no mask:
    every query sees every key.
    """

    def __init__(self, sizes: BlockSizes, *, rngs: nnx.Rngs):
        """Make the four projections and the two norms."""
        self.heads, self.attention = sizes.heads, sizes.attention
        self.q = _square(sizes, ("embed", "heads"), rngs)
        self.k = _square(sizes, ("embed", "heads"), rngs)
        self.v = _square(sizes, ("embed", "heads"), rngs)
        self.o = _square(sizes, ("heads", "embed"), rngs)
        self.norm_q = RMSNorm(sizes.width, sizes.eps, "heads")
        self.norm_k = RMSNorm(sizes.width, sizes.eps, "heads")

    def __call__(
        self,
        x: Float[jax.Array, "b *n d"],
        context: Float[jax.Array, "b m d"] | None = None,
        rotate=None,
    ) -> Float[jax.Array, "b *n d"]:
        """Attend from `x` to `context`, or to itself where there is none.

        On a mesh, tokens are divided along `context` outside and heads inside, where each device
        has the whole sequence of its heads.

        Args:
          x: what asks; all its tokens are one sequence.
          context: what is looked at; None for self-attention.
          rotate: function [b, n, heads, head_dim] -> same that turns queries and keys, or None.
        """
        source = x if context is None else context
        q = self._split(self.norm_q(self.q(x)))
        k = self._split(self.norm_k(self.k(source)))
        v = self._split(self.v(source))
        if rotate is not None:
            q, k = rotate(q), rotate(k)
        heads = ("batch", None, "attending_heads", None)
        y = on_own_part(_ATTENTION[self.attention], *heads)(q, k, v)
        return self.o(self._join(y, x.shape))

    def _split(self, x: jax.Array) -> jax.Array:
        """Return [b, *n, d] as [b, n, heads, head_dim]."""
        # Stated before and after: the change between the two is then one all-to-all.
        lead, between = leading_axes(x.ndim), (None,) * (x.ndim - 2)
        x = constrain(x, *lead, "heads").reshape(*x.shape[:-1], self.heads, -1)
        x = constrain(x, *lead, "heads", None, what="heads of attention")
        x = constrain(x, "batch", *between, "attending_heads", None, what="heads of attention")
        return x.reshape(x.shape[0], -1, *x.shape[-2:])

    def _join(self, y: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Return [b, n, heads, head_dim] as [b, *n, d], the inverse of `_split`."""
        lead, between = leading_axes(len(shape)), (None,) * (len(shape) - 2)
        y = y.reshape(*shape[:-1], self.heads, -1)
        y = constrain(y, "batch", *between, "attending_heads", None)
        y = constrain(y, *lead, "heads", None)
        return constrain(y.reshape(shape), *lead, "heads")


_ATTENTION: Mapping[str, Callable[..., jax.Array]] = {
    "auto": attend,
    "library": jax.nn.dot_product_attention,
    "recomputed": blockwise_attention,
}


def leading_axes(ndim: int) -> tuple[str | None, ...]:
    """Return the logical names of all but the last axis of tokens [b, t, s, d] or a text [b, n, d].

    Only tokens that are kept by frames are divided among devices.
    """
    return ("batch", "frames", "tokens") if ndim == 4 else ("batch", *(None,) * (ndim - 2))


def layer_norm(x: Float[jax.Array, "... d"], eps: float) -> Float[jax.Array, "... d"]:
    """Return `x` with zero mean and unit variance along the last axis, in float32."""
    y = x.astype(jnp.float32)
    y = y - jnp.mean(y, axis=-1, keepdims=True)
    return y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + eps)


def modulate(
    x: Float[jax.Array, "*n d"],
    scale: Float[jax.Array, "*n d"],
    shift: Float[jax.Array, "*n d"],
    eps: float,
) -> Float[jax.Array, "*n d"]:
    """Return `layer_norm(x) * (1 + scale) + shift` in the dtype of `x`."""
    return (layer_norm(x, eps) * (1 + scale) + shift).astype(x.dtype)


def _square(sizes: BlockSizes, axes: tuple[str, str], rngs: nnx.Rngs) -> Linear:
    return Linear(sizes.width, sizes.width, axes, rngs=rngs, products=sizes.products)
