"""The small video codec that ships: a linear patch transform with causal convolutions around it.

The first frame is coded alone, every later group of `temporal_stride` frames together, each 8x8
patch becoming one latent cell. The linear path starts as the principal components of real patches
(`models/pca.py`), so an untrained codec already equals the PCA baseline and training can only be
judged against it; residual causal blocks on the latent grid then see neighbours and the past. With
`width=0` only the linear path exists: the baseline itself.

Latents are normalised per channel. Videos are float in [-1, 1], channel last. Same contract as
`models/autoencoder.py`, which is the release's own autoencoder, streamed methods included. Next:
`models/pca.py`, `train/objective.py`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float


@dataclasses.dataclass(frozen=True)
class CodecConfig:
    """Sizes of the codec.

    Attributes:
      latent_channels: channels of a latent cell; at most the values of a first-frame patch.
      spatial_stride: pixels a latent cell covers, each way.
      temporal_stride: video frames a latent frame covers, but the first, which covers one.
      width: channels of the residual blocks; 0 leaves the linear path alone.
      encoder_blocks: residual blocks before the latents.
      decoder_blocks: residual blocks after the latents.
    """

    latent_channels: int = 48
    spatial_stride: int = 8
    temporal_stride: int = 4
    width: int = 160
    encoder_blocks: int = 2
    decoder_blocks: int = 5

    def __post_init__(self):
        patch = 3 * self.spatial_stride**2
        if not 0 < self.latent_channels <= patch:
            raise ValueError(
                f"codec.latent_channels: got {self.latent_channels}, expected 1 to {patch} "
                f"(the values of one {self.spatial_stride}x{self.spatial_stride} RGB patch); lower "
                "it."
            )

    @property
    def image_patch(self) -> int:
        """Values of one patch of the first frame."""
        return 3 * self.spatial_stride**2

    @property
    def group_patch(self) -> int:
        """Values of one patch of a group of later frames."""
        return self.image_patch * self.temporal_stride

    def build(self, rngs: nnx.Rngs) -> Codec:
        """Construct the module with fresh parameters."""
        return Codec(self, rngs=rngs)


class CausalBlock(nnx.Module):
    """Residual block on the latent grid: two 3x3 convolutions.

    The first also sees the previous latent frame.
    """

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.norm = nnx.RMSNorm(width, rngs=rngs)
        self.here = nnx.Conv(width, width, (3, 3), rngs=rngs)
        self.past = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.out = nnx.Conv(width, width, (3, 3), kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, x: Float[jax.Array, "b t h w d"]) -> Float[jax.Array, "b t h w d"]:
        """Add the residual of each frame and the one before it."""
        y = jax.nn.silu(self.norm(x))
        past = jnp.pad(y[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0), (0, 0)))
        y = self.here(y) + self.past(past)
        return x + self.out(jax.nn.silu(y))


class Transform(nnx.Module):
    """One linear map for the first frame and one for later groups.

    Applied to each cell and joined in time.
    """

    def __init__(
        self, image: tuple[int, int], group: tuple[int, int], *, rngs: nnx.Rngs, zero: bool = False
    ):
        init: dict[str, Any] = {"kernel_init": nnx.initializers.zeros} if zero else {}
        self.image = nnx.Linear(*image, rngs=rngs, **init)
        self.group = nnx.Linear(*group, rngs=rngs, **init)

    def __call__(self, first: jax.Array, later: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Map the first frame [..., image[0]] and the later groups [..., group[0]]."""
        return self.image(first), self.group(later)


class Codec(nnx.Module):
    """Causal patch codec; see the module docstring.

    Parameters of the linear path come from `pca.fit`.
    """

    def __init__(self, config: CodecConfig, *, rngs: nnx.Rngs):
        c, d = config.latent_channels, config.width
        image, group = config.image_patch, config.group_patch
        self.config = config
        self.analysis = Transform((image, c), (group, c), rngs=rngs)
        self.synthesis = Transform((c, image), (c, group), rngs=rngs)
        self.latent_mean = nnx.Param(jnp.zeros((c,)))
        self.latent_std = nnx.Param(jnp.ones((c,)))
        if d:
            self.encoder_in = Transform((image, d), (group, d), rngs=rngs)
            self.encoder = nnx.List(
                [CausalBlock(d, rngs=rngs) for _ in range(config.encoder_blocks)]
            )
            self.encoder_out = nnx.Linear(d, c, kernel_init=nnx.initializers.zeros, rngs=rngs)
            self.decoder_in = nnx.Linear(c, d, rngs=rngs)
            self.decoder = nnx.List(
                [CausalBlock(d, rngs=rngs) for _ in range(config.decoder_blocks)]
            )
            self.decoder_out = Transform((d, image), (d, group), rngs=rngs, zero=True)

    def encode(self, video: Float[jax.Array, "b f H W 3"]) -> Float[jax.Array, "b t h w c"]:
        """Encode videos of 1 + n * temporal_stride frames into normalised latents, t = 1 + n.

        Raises:
          ValueError: if the frame count or the picture size does not fit the strides.
        """
        first, later = to_patches(self.config, video)
        z = jnp.concatenate(self.analysis(first, later), axis=1)
        z = (z - self.latent_mean[...]) / self.latent_std[...]
        if self.config.width:
            x = jnp.concatenate(self.encoder_in(first, later), axis=1)
            for block in self.encoder:
                x = block(x)
            z = z + self.encoder_out(x)
        return z

    def decode(self, latents: Float[jax.Array, "b t h w c"]) -> Float[jax.Array, "b f H W 3"]:
        """Decode latents into videos of 1 + (t - 1) * temporal_stride frames.

        The values are not clipped to [-1, 1].
        """
        z = latents * self.latent_std[...] + self.latent_mean[...]
        first, later = self.synthesis(z[:, :1], z[:, 1:])
        if self.config.width:
            x = self.decoder_in(latents)
            for block in self.decoder:
                x = block(x)
            first_fix, later_fix = self.decoder_out(x[:, :1], x[:, 1:])
            first, later = first + first_fix, later + later_fix
        return from_patches(self.config, first, later)

    def encode_streamed(
        self, video: Float[jax.Array, "b f H W 3"]
    ) -> Float[jax.Array, "b t h w c"]:
        """Encode as `encode` does: clips are encoded whole, as this codec needs little memory."""
        return self.encode(video)

    def decode_streamed(
        self, latents: Float[jax.Array, "b t h w c"]
    ) -> Float[jax.Array, "b f H W 3"]:
        """Decode as `decode` does, whole."""
        return self.decode(latents)

    def __call__(self, video: Float[jax.Array, "b f H W 3"]) -> Float[jax.Array, "b f H W 3"]:
        """Reconstruct videos."""
        return self.decode(self.encode(video))


def to_patches(
    config: CodecConfig, video: Float[jax.Array, "b f H W 3"]
) -> tuple[jax.Array, jax.Array]:
    """Cut a video into patches of its first frame and of its later groups.

    Returns [b, 1, h, w, s*s*3] and [b, n, h, w, T*s*s*3].
    """
    b, f, height, width, _ = video.shape
    s, stride = config.spatial_stride, config.temporal_stride
    if (f - 1) % stride or height % s or width % s:
        raise ValueError(
            f"video: got {f} frames of {height}x{width}, expected 1 + {stride}n frames and sides "
            "divisible "
            f"by {s}; cut or pad the video."
        )
    x = video.reshape(b, f, height // s, s, width // s, s, 3).transpose(0, 1, 2, 4, 3, 5, 6)
    first = x[:, :1].reshape(b, 1, height // s, width // s, config.image_patch)
    later = x[:, 1:].reshape(
        b, (f - 1) // stride, stride, height // s, width // s, config.image_patch
    )
    later = later.transpose(0, 1, 3, 4, 2, 5)
    return first, later.reshape(*later.shape[:4], config.group_patch)


def from_patches(
    config: CodecConfig, first: jax.Array, later: jax.Array
) -> Float[jax.Array, "b f H W 3"]:
    """Inverse of `to_patches`."""
    b, n, h, w, _ = later.shape
    s, stride = config.spatial_stride, config.temporal_stride
    later = later.reshape(b, n, h, w, stride, config.image_patch).transpose(0, 1, 4, 2, 3, 5)
    x = jnp.concatenate([first, later.reshape(b, n * stride, h, w, config.image_patch)], axis=1)
    x = x.reshape(b, 1 + n * stride, h, w, s, s, 3).transpose(0, 1, 2, 4, 3, 5, 6)
    return x.reshape(b, 1 + n * stride, h * s, w * s, 3)
