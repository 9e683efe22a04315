"""The learned read: turns stored tokens into the tokens the target camera would have seen.

A latent token carries the phase of its patch, so moving it by a fraction of a cell, or looking at
it from nearer, changes it. The memory read returns, beside the token, where in the cell its row
falls, how much nearer it is seen now and from how different a direction; a few residual
convolutions on the latent grid use that to correct the hole-filled read. A row seen again from
where it was stored needs no correction and gets none (`exactness`). At initialisation the output
equals the hole-filled read. Noise plays no part, so a rollout runs it once a chunk. Next:
`memory/read.py` for the features, `world_model/` for its place.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from mirage_jax.distributed.constrain import constrain

# Offsets (cells), log scales and angles (radians) well below this leave a token as it is.
_EXACT_WITHIN = 0.1


@dataclasses.dataclass(frozen=True)
class LearnedReadConfig:
    """Sizes of the learned read.

    Attributes:
      latent_channels: channels of a token.
      feature_channels: channels of the read's geometry features.
      width: channels of the residual blocks.
      blocks: number of residual blocks; the receptive field is 4 * blocks + 3 cells.
      placed: start from patches placed where they are seen (`patch_read.py`) instead of from the
        hole-filled read.
      patch: side in pixels of the patches, whose linear maps from and to tokens are fitted to the
        codec and kept here; 0 for the small codec, which has maps of its own.
      keeps: how far a row may have moved (cells, log scale and radians) until what those maps
        cannot say of its token is left out; 0 leaves it out at once.
      parts: of a cell each way that show a row of their own to be placed; more than 1 reads memory
        once more, on a grid that much finer.
      corrects: run the network; False returns the start as it is, for weights that add nothing to
        it, and trains nothing.
    """

    latent_channels: int = 48
    feature_channels: int = 6
    width: int = 128
    blocks: int = 4
    placed: bool = False
    patch: int = 0
    keeps: float = 0.0
    parts: int = 1
    corrects: bool = True

    def __post_init__(self):
        if self.parts < 1 or (self.parts > 1 and not self.placed):
            raise ValueError(
                f"learned_read.parts: got {self.parts} with placed={self.placed}, expected 1, or "
                "more with placed=True"
            )
        if self.patch < 0 or self.keeps < 0:
            raise ValueError(
                f"learned_read.patch, learned_read.keeps: got {self.patch} and {self.keeps}, "
                "expected 0 or more"
            )

    def build(self, rngs: nnx.Rngs) -> LearnedRead:
        """Construct the module with fresh parameters."""
        return LearnedRead(self, rngs=rngs)


class GridBlock(nnx.Module):
    """Residual block of two 3x3 convolutions on one latent frame."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.norm = nnx.RMSNorm(width, rngs=rngs)
        self.inner = nnx.Conv(width, width, (3, 3), rngs=rngs)
        self.outer = nnx.Conv(width, width, (3, 3), kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, x: Float[jax.Array, "... h w d"]) -> Float[jax.Array, "... h w d"]:
        """Add the residual of one latent grid."""
        return x + self.outer(jax.nn.silu(self.inner(jax.nn.silu(self.norm(x)))))


class LearnedRead(nnx.Module):
    """Residual correction of a hole-filled read; see the module docstring."""

    def __init__(self, config: LearnedReadConfig, *, rngs: nnx.Rngs):
        self.corrects = config.corrects
        if config.patch:
            pixels = 3 * config.patch**2
            self.to_pixels = nnx.Linear(config.latent_channels, pixels, rngs=rngs)
            self.to_tokens = nnx.Linear(pixels, config.latent_channels, rngs=rngs)
        channels = 2 * config.latent_channels + config.feature_channels
        self.embed = nnx.Conv(channels, config.width, (3, 3), rngs=rngs)
        self.blocks = nnx.List([GridBlock(config.width, rngs=rngs) for _ in range(config.blocks)])
        self.head = nnx.Linear(
            config.width, config.latent_channels, kernel_init=nnx.initializers.zeros, rngs=rngs
        )

    def __call__(
        self,
        tokens: Float[jax.Array, "*n h w c"],
        start: Float[jax.Array, "*n h w c"],
        features: Float[jax.Array, "*n h w g"],
    ) -> Float[jax.Array, "*n h w c"]:
        """Correct a read.

        Args:
          tokens: tokens as read, 0 in empty cells.
          start: the same with holes filled or patches placed; what is corrected.
          features: geometry of the read (visibility, offset, scale, angle, log depth), 0 in empty
              cells.

        Returns:
          Expected tokens at the target camera, in every cell.
        """
        if not self.corrects:
            return start
        x = self.embed(_rows_only(jnp.concatenate([tokens, start, features], axis=-1)))
        for block in self.blocks:
            x = block(_rows_only(x))
        return start + (1.0 - exactness(features))[..., None] * self.head(_rows_only(x))


def _rows_only(x: Float[jax.Array, "*n h w d"]) -> Float[jax.Array, "*n h w d"]:
    """Divide the rows of a batch among devices and leave each its whole grids.

    Left to itself XLA divides the lines of a grid as the denoiser divides its tokens, and then
    counts the gradients of the kernels twice (seen on CPUs).
    """
    return constrain(x, "batch", *(None for _ in x.shape[1:])) if x.ndim > 4 else x


def exactness(
    features: Float[jax.Array, "*n h w g"], within: float = _EXACT_WITHIN
) -> Float[jax.Array, "*n h w"]:
    """Return how nearly a cell is seen as it was stored: 1 for the same camera, 0 for holes.

    Args:
      features: as given to `LearnedRead`; visibility, offset (2), scale and angle come first.
      within: moves well below this count as none.
    """
    moved = jnp.sum(jnp.square(features[..., 1:5]), axis=-1) / within**2
    return features[..., 0] * jnp.exp(-moved)
