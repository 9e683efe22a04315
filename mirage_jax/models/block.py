"""One transformer block of the denoiser, modulated by the timestep of each latent frame.

Conventions: tokens are kept as [b, t, s, d] (latent frame, token of the frame) so that modulation
is computed once a frame; attention runs over all t * s tokens together.

Read next: `denoiser.py` (the backbone), `branch.py` (the side branch made of the same block).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from mirage_jax.distributed.constrain import constrain
from mirage_jax.models.layers import (
    AffineLayerNorm,
    Attention,
    BlockSizes,
    FeedForward,
    leading_axes,
    modulate,
)
from mirage_jax.models.rotary import rotate_pairs


class BlockInputs(NamedTuple):
    """What every block of a pass is given beside its tokens.

    Attributes:
      modulation: [b, t, 6, d] projected timestep embedding of each latent frame.
      rotary: [2, t * s, head_dim / 2] cosines and sines of the token positions.
      text: [b, n, d] embedded text, or None.
    """

    modulation: Float[jax.Array, "b t 6 d"]
    rotary: Float[jax.Array, "2 n half"]
    text: Float[jax.Array, "b m d"] | None


class Block(nnx.Module):
    """Self-attention, cross-attention to text (if the model has text) and a feed-forward net.

    x += gate1 * SelfAttn(LN(x) (1 + scale1) + shift1); x += CrossAttn(LN_affine(x), text);
    x += gate2 * FFN(LN(x) (1 + scale2) + shift2), where (shift1, scale1, gate1, shift2, scale2,
    gate2) = modulation of the block + projected timestep embedding of the frame.
    """

    def __init__(self, sizes: BlockSizes, has_text: bool, *, rngs: nnx.Rngs):
        """Draw the block's parameters."""
        self.eps, width = sizes.eps, sizes.width
        drawn = jax.random.normal(rngs.params(), (6, width)) / width**0.5
        self.modulation = nnx.Param(drawn, axes=(None, "embed"))
        self.self_attn = Attention(sizes, rngs=rngs)
        if has_text:
            self.norm3 = AffineLayerNorm(width, sizes.eps)
            self.cross_attn = Attention(sizes, rngs=rngs)
        self.ffn = FeedForward(sizes, rngs=rngs)

    def __call__(
        self, x: Float[jax.Array, "b t s d"], inputs: BlockInputs
    ) -> Float[jax.Array, "b t s d"]:
        """Return the updated tokens, same shape and dtype."""
        parts = self.modulation[...] + inputs.modulation
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(parts, 6, axis=2)
        y = modulate(x, scale1, shift1, self.eps)
        y = self.self_attn(y, rotate=functools.partial(rotate_pairs, table=inputs.rotary))
        x = _gated(x, gate1, y)
        if inputs.text is not None:
            x = x + self.cross_attn(self.norm3(x), inputs.text)
        x = _gated(x, gate2, self.ffn(modulate(x, scale2, shift2, self.eps)))
        return constrain(x, *leading_axes(x.ndim), None, what="tokens")


def _gated(x: jax.Array, gate: jax.Array, y: jax.Array) -> jax.Array:
    return x + (gate * y).astype(x.dtype)
