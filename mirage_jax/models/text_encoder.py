"""The text encoder: UMT5's, whose every layer has its own table of relative positions.

Conventions: token ids are [b, n], the mask is True where there is text; padding comes last. Scores
are not scaled, linear maps have no bias, norms neither shift nor subtract a mean (T5). Softmax and
norms are in float32. Rows of padding come out as zeros: the denoiser attends to all of them, as the
released weights were trained. Text rows do not depend on how much padding follows them.

Read next: `convert/text_encoder.py` for released weights; `../data/text_cache.py`, which keeps what
this makes, so that training and generation need not load it.
"""

import dataclasses
from typing import Literal, get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float, Int

from mirage_jax.models.functional import scan_layers, stack_layers
from mirage_jax.models.layers import Linear, RMSNorm


@dataclasses.dataclass(frozen=True)
class TextEncoderConfig:
    """Sizes of the text encoder; the defaults are those of UMT5-XXL.

    Attributes:
      vocabulary: rows of the token table.
      width: channels of a token and of an embedding.
      attention_width: channels of queries, keys and values of all heads together.
      mlp_width: hidden channels of the feed-forward nets.
      heads: attention heads; divides attention_width.
      layers: blocks.
      buckets: rows of each table of relative positions, half of them for what comes later.
      max_distance: tokens from which on all distances share a bucket.
      eps: added to variances in norms.
      dtype: of activations and products; parameters stay as they are.
    """

    vocabulary: int = 256384
    width: int = 4096
    attention_width: int = 4096
    mlp_width: int = 10240
    heads: int = 64
    layers: int = 24
    buckets: int = 32
    max_distance: int = 128
    eps: float = 1e-6
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self):
        """Refuse sizes that do not fit each other."""
        if self.attention_width % self.heads:
            raise ValueError(
                f"text_encoder.heads: got {self.heads} with attention_width "
                f"{self.attention_width}, expected a divisor of it; change one of the two"
            )
        if self.buckets % 4 or self.max_distance <= self.buckets // 4:
            raise ValueError(
                f"text_encoder.buckets: got {self.buckets} with max_distance {self.max_distance}, "
                "expected a multiple of 4 whose quarter is below max_distance; change one of the "
                "two"
            )
        allowed = get_args(get_type_hints(TextEncoderConfig)["dtype"])
        if self.dtype not in allowed:
            raise ValueError(f"text_encoder.dtype: got {self.dtype!r}, expected one of {allowed}")

    def build(self, rngs: nnx.Rngs) -> "TextEncoder":
        """Return the module with freshly drawn parameters."""
        return TextEncoder(self, rngs=rngs)


class TextEncoder(nnx.Module):
    """Stacked blocks over a token table; see the module docstring."""

    def __init__(self, config: TextEncoderConfig, *, rngs: nnx.Rngs):
        """Draw parameters."""
        self.config = config
        drawn = jax.random.normal(rngs.params(), (config.vocabulary, config.width))
        self.token_embedding = nnx.Param(drawn, axes=(None, "embed"))
        self.blocks = stack_layers(
            lambda rngs: TextBlock(config, rngs=rngs), config.layers, rngs=rngs
        )
        self.norm = RMSNorm(config.width, config.eps, "embed")

    def __call__(
        self, ids: Int[jax.Array, "b n"], mask: Bool[jax.Array, "b n"]
    ) -> Float[jax.Array, "b n d"]:
        """Embed token ids.

        Args:
          ids: below `vocabulary`; what stands under padding does not matter.
          mask: True (or 1) where there is text; at least once in every row.

        Returns:
          Embeddings in the config's dtype, zeros under padding.
        """
        config, mask = self.config, mask.astype(bool)
        buckets = jnp.asarray(position_buckets(ids.shape[1], config.buckets, config.max_distance))
        x = self.token_embedding[...][ids].astype(config.dtype)
        x, _ = scan_layers(self.blocks, lambda block, x, _: (block(x, mask, buckets), None), x)
        return jnp.where(mask[..., None], self.norm(x), 0)


class TextBlock(nnx.Module):
    """Self-attention and a gated feed-forward net: x += Attn(norm1(x)); x += FFN(norm2(x))."""

    def __init__(self, config: TextEncoderConfig, *, rngs: nnx.Rngs):
        """Draw the block's parameters."""
        self.norm1 = RMSNorm(config.width, config.eps, "embed")
        self.attn = TextAttention(config, rngs=rngs)
        self.norm2 = RMSNorm(config.width, config.eps, "embed")
        self.ffn = GatedFeedForward(config, rngs=rngs)

    def __call__(
        self,
        x: Float[jax.Array, "b n d"],
        mask: Bool[jax.Array, "b n"],
        buckets: Int[jax.Array, "n n"],
    ) -> Float[jax.Array, "b n d"]:
        """Return the updated tokens, same shape and dtype."""
        x = x + self.attn(self.norm1(x), mask, buckets)
        return x + self.ffn(self.norm2(x))


class TextAttention(nnx.Module):
    """Attention with unscaled scores and a learned bias for each head and bucket of distance."""

    def __init__(self, config: TextEncoderConfig, *, rngs: nnx.Rngs):
        """Make the four projections and the table of relative positions."""
        self.heads = config.heads
        width, inner = config.width, config.attention_width
        self.q = _linear(width, inner, ("embed", "heads"), rngs)
        self.k = _linear(width, inner, ("embed", "heads"), rngs)
        self.v = _linear(width, inner, ("embed", "heads"), rngs)
        self.o = _linear(inner, width, ("heads", "embed"), rngs)
        drawn = jax.random.normal(rngs.params(), (config.buckets, config.heads)) / width**0.5
        self.pos_embedding = nnx.Param(drawn, axes=(None, "heads"))

    def __call__(
        self,
        x: Float[jax.Array, "b n d"],
        mask: Bool[jax.Array, "b n"],
        buckets: Int[jax.Array, "n n"],
    ) -> Float[jax.Array, "b n d"]:
        """Attend from every token to the tokens of the text.

        Args:
          x: normalised tokens.
          mask: True where there is text.
          buckets: bucket of every (query, key), from `position_buckets`.
        """
        q, k, v = (
            part(x).reshape(*x.shape[:2], self.heads, -1) for part in (self.q, self.k, self.v)
        )
        bias = self.pos_embedding[...][buckets].astype(jnp.float32).transpose(2, 0, 1)[None]
        y = jax.nn.dot_product_attention(q, k, v, bias=bias, mask=mask[:, None, None], scale=1.0)
        return self.o(y.reshape(*x.shape[:2], -1))


class GatedFeedForward(nnx.Module):
    """down(gelu(gate(x)) * up(x)), with the tanh approximation of GELU."""

    def __init__(self, config: TextEncoderConfig, *, rngs: nnx.Rngs):
        """Make the three maps."""
        width, hidden = config.width, config.mlp_width
        self.gate = _linear(width, hidden, ("embed", "mlp"), rngs)
        self.up = _linear(width, hidden, ("embed", "mlp"), rngs)
        self.down = _linear(hidden, width, ("mlp", "embed"), rngs)

    def __call__(self, x: Float[jax.Array, "... d"]) -> Float[jax.Array, "... d"]:
        """Return the transformed activations."""
        return self.down(jax.nn.gelu(self.gate(x), approximate=True) * self.up(x))


def position_buckets(length: int, buckets: int, max_distance: int) -> np.ndarray:
    """Return the bucket of every pair of positions, as T5 counts them.

    Half of the buckets are for keys after the query. Of each half, the first half are single
    distances; the rest grow in width up to `max_distance`, from which on all share the last.

    Args:
      length: n, tokens of a sequence.
      buckets: rows of a table of relative positions.
      max_distance: see above.

    Returns:
      [n, n] int32, query by key.
    """
    half, exact = buckets // 2, buckets // 4
    ahead = np.arange(length)[None, :] - np.arange(length)[:, None]
    # In float32 and in this order, since the border between two buckets is a matter of rounding.
    distance = np.maximum(np.abs(ahead), 1).astype(np.float32)
    grown = np.log(distance / np.float32(exact)) / np.float32(np.log(max_distance / exact))
    far = np.minimum(exact + (grown * np.float32(half - exact)).astype(np.int32), half - 1)
    near = np.abs(ahead)
    return (np.where(near < exact, near, far) + half * (ahead > 0)).astype(np.int32)


def _linear(width: int, out_width: int, axes: tuple[str, str], rngs: nnx.Rngs) -> Linear:
    return Linear(width, out_width, axes, rngs=rngs, has_bias=False)
