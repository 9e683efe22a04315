"""The latent depth head: depth of each latent cell, read off the latents without decoding them.

Conventions: works frame by frame, each frame also seeing the latents of the frame before it (never
a later one). Depth is z-depth in scene units, 0 = unknown; its logarithm is predicted as a
correction of the depth that the memory shows at the same camera, where it shows any. At
initialisation the output is that depth, and 1 scene unit elsewhere.

Read next: `mirage_jax/world_model`, which writes chunks to memory with it.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float

_lecun = nnx.initializers.lecun_normal()


@dataclasses.dataclass(frozen=True)
class DepthHeadConfig:
    """Sizes of the depth head.

    Attributes:
      latent_channels: channels of a latent cell.
      width: channels of the residual blocks.
      blocks: number of residual blocks; the receptive field is 4 * blocks + 3 cells.
    """

    latent_channels: int = 48
    width: int = 96
    blocks: int = 4

    def __post_init__(self):
        """Refuse empty sizes."""
        if min(self.latent_channels, self.width, self.blocks) < 1:
            raise ValueError(
                f"depth_head: got {self}, expected sizes of at least 1; the shipped head uses "
                "width 96 and 4 blocks"
            )

    def build(self, rngs: nnx.Rngs) -> "DepthHead":
        """Return the module with freshly drawn parameters."""
        return DepthHead(self, rngs=rngs)


class Conv3x3(nnx.Module):
    """3x3 convolution that keeps the grid; edges are padded with the nearest cell."""

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        rngs: nnx.Rngs,
        kernel_init: nnx.Initializer = _lecun,
    ):
        """Draw the kernel [3, 3, in_width, out_width]; the bias is zero."""
        kernel = kernel_init(rngs.params(), (3, 3, in_width, out_width), jnp.float32)
        self.kernel = nnx.Param(kernel, axes=(None, None, None, "mlp"))
        self.bias = nnx.Param(jnp.zeros(out_width), axes=("mlp",))

    def __call__(self, x: Float[jax.Array, "n h w i"]) -> Float[jax.Array, "n h w o"]:
        """Return the convolved grid in the dtype of `x`."""
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        y = jax.lax.conv_general_dilated(
            padded,
            self.kernel[...].astype(x.dtype),
            window_strides=(1, 1),
            padding="VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + self.bias[...].astype(x.dtype)


class ResidualBlock(nnx.Module):
    """Two convolutions with SiLU before each; the second starts at zero."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        """Draw the block's parameters."""
        self.inner = Conv3x3(width, width, rngs=rngs)
        self.outer = Conv3x3(width, width, rngs=rngs, kernel_init=nnx.initializers.zeros)

    def __call__(self, x: Float[jax.Array, "n h w d"]) -> Float[jax.Array, "n h w d"]:
        """Return `x` plus its correction."""
        return x + self.outer(jax.nn.silu(self.inner(jax.nn.silu(x))))


class DepthHead(nnx.Module):
    """Convolutional depth and sky predictor; see the module docstring."""

    def __init__(self, config: DepthHeadConfig, *, rngs: nnx.Rngs):
        """Draw parameters; the last map starts at zero."""
        channels = 2 * config.latent_channels + 8
        self.embed = Conv3x3(channels, config.width, rngs=rngs)
        self.blocks = nnx.List(
            [ResidualBlock(config.width, rngs=rngs) for _ in range(config.blocks)]
        )
        self.out = Conv3x3(config.width, 2, rngs=rngs, kernel_init=nnx.initializers.zeros)

    def __call__(
        self,
        latents: Float[jax.Array, "b t h w c"],
        memory_depth: Float[jax.Array, "b t h w"],
        visibility: Bool[jax.Array, "b t h w"],
        rays: Float[jax.Array, "b t h w 6"],
    ) -> tuple[Float[jax.Array, "b t h w"], Float[jax.Array, "b t h w"]]:
        """Predict depth and sky of every cell of latent frames.

        Args:
          latents: clean latents, consecutive frames.
          memory_depth: z-depth that the memory shows at the same cameras, 0 where it shows none.
          visibility: True where the memory shows something.
          rays: Plücker rays of the cells (unit direction, moment) in a frame near the cameras.

        Returns:
          Log z-depth, and a sky logit (above 0: sky, whose depth means nothing).
        """
        b, t, h, w, _ = latents.shape
        seen = visibility & (memory_depth > 0)
        log_depth = jnp.log(jnp.where(seen, memory_depth, 1.0)).astype(latents.dtype)
        before = jnp.concatenate([latents[:, :1], latents[:, :-1]], axis=1)
        direction, moment = jnp.split(rays, 2, axis=-1)
        compressed = jnp.sign(moment) * jnp.log1p(jnp.abs(moment))
        parts = (latents, before, log_depth[..., None], seen[..., None], direction, compressed)
        x = jnp.concatenate([part.astype(latents.dtype) for part in parts], axis=-1)
        x = self.embed(x.reshape(b * t, h, w, -1))
        for block in self.blocks:
            x = block(x)
        correction, sky = jnp.moveaxis(self.out(jax.nn.silu(x)), -1, 0)
        return log_depth + correction.reshape(b, t, h, w), sky.reshape(b, t, h, w)
