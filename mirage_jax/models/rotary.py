"""Positions: rotary angles of tokens in time, height and width, and sinusoids of timesteps.

Conventions: tokens are ordered [references | target | preceding], then row by row. Angles depend
on static sizes only and are computed in float64 with NumPy; rotation acts on interleaved pairs of
channels (0, 1), (2, 3), ...

Read next: `denoiser.py`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

_THETA = 10000.0


@dataclasses.dataclass(frozen=True)
class FrameLayout:
    """How many latent frames of each kind a sequence holds, in this order.

    Attributes:
      references: past frames picked because they see the same place.
      target: frames to denoise, the clean first one included.
      preceding: frames right before the clean first one.
    """

    references: int = 0
    target: int = 1
    preceding: int = 0

    def __post_init__(self):
        """Refuse counts that make no sequence."""
        if self.target < 1 or self.references < 0 or self.preceding < 0:
            raise ValueError(
                f"FrameLayout: got {self}, expected target >= 1 and references, preceding >= 0"
            )

    @property
    def total(self) -> int:
        """All latent frames of the sequence."""
        return self.references + self.target + self.preceding

    @property
    def remembered(self) -> int:
        """The latent frames that the memory branch sees: target and preceding."""
        return self.target + self.preceding


def rotary_table(
    frames: FrameLayout, grid_hw: tuple[int, int], head_width: int
) -> Float[np.ndarray, "2 n half"]:
    """Return cosines and sines of the rotary angles of every token of a sequence.

    Of a head of d channels, d - 2g turn with time, g with height and g with width, where
    g = 2 * (d // 6) (the released d // 3 wherever that is even). Target then preceding frames
    share one running time index 0, 1, ...; reference i of R has time index i - R and its height
    indices start at the grid height, so that a reference never coincides with a target token.

    Args:
      frames: latent frames by kind.
      grid_hw: token rows and columns of a latent frame.
      head_width: channels of a head, even.

    Returns:
      [2, tokens, head_width / 2] float32: cosines, then sines.
    """
    height, width = grid_hw
    spatial = 2 * (head_width // 6)
    time = np.arange(-frames.references, frames.remembered)
    offset = np.where(time < 0, height, 0)
    rows = np.arange(height)[None, :] + offset[:, None]
    axes = (
        _angles(
            np.broadcast_to(time[:, None, None], (len(time), height, width)),
            head_width - 2 * spatial,
        ),
        _angles(np.broadcast_to(rows[:, :, None], (len(time), height, width)), spatial),
        _angles(np.broadcast_to(np.arange(width), (len(time), height, width)), spatial),
    )
    angles = np.concatenate(axes, axis=-1).reshape(-1, head_width // 2)
    return np.stack([np.cos(angles), np.sin(angles)]).astype(np.float32)


def rotate_pairs(
    x: Float[jax.Array, "b n k d"], table: Float[jax.Array, "2 n half"]
) -> Float[jax.Array, "b n k d"]:
    """Turn each interleaved pair of channels by its token's angle; float32 inside."""
    cos, sin = (part[None, :, None, :] for part in jnp.asarray(table))
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
    even, odd = pairs[..., 0], pairs[..., 1]
    turned = jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
    return turned.reshape(x.shape).astype(x.dtype)


def timestep_sinusoid(
    timestep: Float[jax.Array, "*n"], channels: int
) -> Float[jax.Array, "*n channels"]:
    """Return cosines then sines of timestep * 10000^(-i / half), i = 0 .. half - 1.

    The release computes this in float64. Here the turns (angle / 2 pi) are summed from products
    that are exact in float32, or too small for their rounding to matter, each reduced to its
    fractional part; angles are then right to 1e-7 for timesteps in [0, 1024).

    Args:
      timestep: 0 (clean) to 1000 (noise).
      channels: size of the result's last axis, even.
    """
    coarse, fine = (jnp.asarray(part) for part in _turns_per_step(channels // 2))
    timestep = timestep.astype(jnp.float32)[..., None]
    near = jnp.round(timestep * 4) / 4
    rest = timestep - near
    turns = near * coarse
    turns = (turns - jnp.round(turns)) + near * fine + rest * (coarse + fine)
    angles = 2 * np.pi * (turns - jnp.round(turns))
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


@functools.lru_cache(maxsize=8)
def _turns_per_step(half: int) -> tuple[np.ndarray, np.ndarray]:
    """Split frequencies / 2 pi into 11 bits, which times 12 bits stay exact, and the rest."""
    turns = _THETA ** (-np.arange(half) / half) / (2 * np.pi)
    coarse = np.round(turns * 2**13) / 2**13
    return coarse.astype(np.float32), (turns - coarse).astype(np.float32)


def _angles(positions: np.ndarray, channels: int) -> np.ndarray:
    frequencies = _THETA ** (-np.arange(0, channels, 2) / channels)
    return positions[..., None].astype(np.float64) * frequencies
