"""The denoiser: a diffusion transformer with one timestep a latent frame and a memory branch.

Conventions: frames are ordered [references | target | preceding]; videos of latents are
[b, t, h, w, c]; timesteps run from 0 (clean) to 1000 (noise); patches are flattened in the order
(time, height, width, channel). Blocks are stacked on a leading `layers` axis and scanned.
The network predicts the flow velocity, or, with `prediction="clean"`, a correction of a given
clean guess; turning that into a velocity is the business of `diffusion/`.

Read next: `block.py`, `branch.py`, `rotary.py`; `convert/` for released weights.
"""

import dataclasses
import functools
from typing import Literal, get_args, get_type_hints

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from mirage_jax.distributed.constrain import constrain
from mirage_jax.models.block import Block, BlockInputs
from mirage_jax.models.branch import MemoryBranch
from mirage_jax.models.functional import scan_layers, stack_layers
from mirage_jax.models.layers import BlockSizes, Linear, modulate
from mirage_jax.models.rotary import FrameLayout, rotary_table, timestep_sinusoid

__all__ = ["Denoiser", "DenoiserConfig", "FrameLayout"]


@dataclasses.dataclass(frozen=True)
class DenoiserConfig:
    """Sizes and options of the denoiser.

    Attributes:
      latent_channels: channels of a latent cell of the input.
      out_channels: channels of a predicted cell.
      width: channels of a token.
      heads: attention heads; width / heads must be even.
      layers: backbone blocks.
      mlp_width: hidden channels of the feed-forward nets.
      text_width: channels of text embeddings; 0 means no text and no cross-attention.
      time_frequencies: channels of the timestep sinusoid.
      patch: latent frames, rows and columns of a token; one frame, since each has its timestep.
      branch_layers: backbone blocks after which a hint of the memory branch is added; () means
        no branch.
      condition_channels: channels of the memory branch's input, see `condition.py`.
      eps: added to variances in every norm.
      prediction: "velocity", or "clean" for `base` plus a correction.
      dtype: of activations and products; parameters stay as they are.
      products: "plain", or the operands of linear maps in "bfloat16", "int8" or "float8"; see
        `layers.BlockSizes`. On CPUs with AMX "bfloat16" with "recomputed" attention halves the
        time of a training step; those of 8 bits need the extra `quant`.
      attention: "auto", "library" or "recomputed"; see `layers.BlockSizes`.
      remat: a key of `functional.REMAT`: what the backward pass recomputes.
      unroll: blocks run by one iteration of the scan; more compiles longer.
    """

    latent_channels: int = 48
    out_channels: int = 48
    width: int = 256
    heads: int = 4
    layers: int = 6
    mlp_width: int = 1024
    text_width: int = 0
    time_frequencies: int = 256
    patch: tuple[int, int, int] = (1, 2, 2)
    branch_layers: tuple[int, ...] = (0, 2, 4)
    condition_channels: int = 60
    eps: float = 1e-6
    prediction: Literal["velocity", "clean"] = "velocity"
    dtype: Literal["float32", "bfloat16"] = "float32"
    products: Literal["plain", "bfloat16", "int8", "float8"] = "plain"
    attention: Literal["auto", "library", "recomputed"] = "auto"
    remat: Literal["none", "dots", "full"] = "none"
    unroll: int = 1

    def __post_init__(self):
        """Refuse sizes that do not fit each other."""
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(
                f"denoiser.heads: got {self.heads} with width {self.width}, expected a divisor "
                "that leaves an even head width; change one of the two"
            )
        if self.patch[0] != 1:
            raise ValueError(
                f"denoiser.patch: got {self.patch}, expected one latent frame a token, since "
                "each frame has its own timestep; set patch[0] to 1"
            )
        layers = self.branch_layers
        if sorted(set(layers)) != list(layers) or any(not 0 <= i < self.layers for i in layers):
            raise ValueError(
                f"denoiser.branch_layers: got {layers}, expected increasing block indices below "
                f"layers = {self.layers}"
            )
        if bool(layers) != bool(self.condition_channels):
            raise ValueError(
                f"denoiser.condition_channels: got {self.condition_channels} with branch_layers "
                f"{layers}, expected both or neither; use 0 and () for a model without memory"
            )
        for name in ("prediction", "dtype", "products", "attention", "remat"):
            allowed = get_args(get_type_hints(DenoiserConfig)[name])
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"denoiser.{name}: got {getattr(self, name)!r}, expected one of {allowed}"
                )

    @property
    def patch_cells(self) -> int:
        """Latent cells of a token."""
        return self.patch[0] * self.patch[1] * self.patch[2]

    @property
    def block_sizes(self) -> BlockSizes:
        """Sizes of the blocks of backbone and branch."""
        return BlockSizes(
            self.width, self.heads, self.mlp_width, self.eps, self.products, self.attention
        )

    def build(self, rngs: nnx.Rngs) -> "Denoiser":
        """Return the module with freshly drawn parameters."""
        return Denoiser(self, rngs=rngs)

    def build_branch(self, rngs: nnx.Rngs) -> MemoryBranch:
        """Return the memory branch alone with freshly drawn parameters."""
        return MemoryBranch(
            self.block_sizes,
            self.text_width > 0,
            len(self.branch_layers),
            self.patch_cells * self.condition_channels,
            rngs=rngs,
        )


class Denoiser(nnx.Module):
    """Diffusion transformer; see the module docstring."""

    def __init__(self, config: DenoiserConfig, *, rngs: nnx.Rngs):
        """Draw parameters; the head and the hints of the branch start at zero."""
        self.config = config
        width = config.width
        sizes, has_text = config.block_sizes, config.text_width > 0
        patch_width = config.patch_cells * config.latent_channels
        self.patch_embedding = Linear(patch_width, width, (None, "embed"), rngs=rngs)
        self.time_embedding = Embedding(config.time_frequencies, width, jax.nn.silu, rngs=rngs)
        self.time_projection = Linear(width, 6 * width, ("embed", "mlp"), rngs=rngs)
        if has_text:
            gelu = functools.partial(jax.nn.gelu, approximate=True)
            self.text_embedding = Embedding(config.text_width, width, gelu, rngs=rngs)
        self.blocks = stack_layers(
            lambda rngs: Block(sizes, has_text, rngs=rngs), config.layers, rngs=rngs
        )
        if config.branch_layers:
            self.branch = config.build_branch(rngs)
        self.head = Head(width, config.patch_cells * config.out_channels, config.eps, rngs=rngs)

    def __call__(
        self,
        x: Float[jax.Array, "b f h w c"],
        timestep: Float[jax.Array, "b f"],
        condition: Float[jax.Array, "b g h w e"] | None,
        text: Float[jax.Array, "b m dt"] | None,
        frames: FrameLayout,
        base: Float[jax.Array, "b t h w o"] | None = None,
    ) -> Float[jax.Array, "b t h w o"]:
        """Predict the velocity, or the clean latents, of the target frames.

        Args:
          x: latents of all frames, noisy where their timestep says so.
          timestep: noise level of each frame, 1000 * sigma; 0 for clean frames.
          condition: input of the memory branch for target then preceding frames, from
            `condition.build_condition`; None leaves the branch out.
          text: text embeddings, zero-padded; None only for models without text.
          frames: counts of reference, target and preceding frames (static).
          base: clean guess that the output corrects, with `prediction="clean"` only; zeros
            where absent.

        Returns:
          The prediction for the target frames, in the dtype of `x`.

        Raises:
          ValueError: if an input does not fit the config or the other inputs.
        """
        out = self.every_frame(x, timestep, condition, text, frames)
        out = out[:, frames.references : frames.references + frames.target]
        if base is None:
            return out
        if self.config.prediction != "clean":
            raise ValueError(
                "base: got an array, expected None since this model predicts the velocity; drop "
                'base or set denoiser.prediction to "clean"'
            )
        return out + base.astype(out.dtype)

    def every_frame(
        self,
        x: Float[jax.Array, "b f h w c"],
        timestep: Float[jax.Array, "b f"],
        condition: Float[jax.Array, "b g h w e"] | None,
        text: Float[jax.Array, "b m dt"] | None,
        frames: FrameLayout,
    ) -> Float[jax.Array, "b f h w o"]:
        """Return the network's raw output for reference, target and preceding frames alike."""
        config = self.config
        _check_inputs(config, x, timestep, condition, text, frames)
        dtype = jnp.dtype(config.dtype)
        grid_hw = (x.shape[2] // config.patch[1], x.shape[3] // config.patch[2])
        embedded_time = self.time_embedding(timestep_sinusoid(timestep, config.time_frequencies))
        embedded_time = constrain(embedded_time, "batch", "frames", None)
        modulation = self.time_projection(jax.nn.silu(embedded_time))
        modulation = constrain(modulation, "batch", "frames", None)
        inputs = BlockInputs(
            modulation.reshape(*timestep.shape, 6, config.width),
            jnp.asarray(rotary_table(frames, grid_hw, config.width // config.heads)),
            None if text is None else self.text_embedding(text.astype(dtype)),
        )
        tokens = self.patch_embedding(to_patches(x.astype(dtype), config.patch))
        tokens = constrain(tokens, "batch", "frames", "tokens", None, what="tokens of a frame")
        hints = None
        if condition is not None:
            hints = self._hints(condition.astype(dtype), tokens, inputs, frames)
        tokens = self._backbone(tokens, hints, inputs, frames)
        patches = self.head(tokens, embedded_time)
        return from_patches(patches, grid_hw, config.patch).astype(x.dtype)

    def _hints(self, condition, tokens, inputs, frames):
        """Return a hint for every backbone block, zeros after blocks without one.

        One row a block, so that the scan slices them and their gradient is a slice too.
        """
        config, skipped = self.config, frames.references
        rotary = inputs.rotary[:, skipped * tokens.shape[2] :]
        remembered = BlockInputs(inputs.modulation[:, skipped:], rotary, inputs.text)
        hints = self.branch(
            to_patches(condition, config.patch),
            tokens[:, skipped:],
            remembered,
            remat=config.remat,
            unroll=min(config.unroll, len(config.branch_layers)),
        )
        rows = jnp.zeros((config.layers, *hints.shape[1:]), hints.dtype)
        rows = rows.at[jnp.asarray(config.branch_layers)].set(hints, unique_indices=True)
        return constrain(rows, "layers", "batch", "frames", "tokens", None)

    def _backbone(self, tokens, hints, inputs, frames):
        def step(block, tokens, hint):
            tokens = block(tokens, inputs)
            if hint is not None:
                tokens = tokens.at[:, frames.references :].add(hint)
            return tokens, None

        config = self.config
        unroll = min(config.unroll, config.layers)
        tokens, _ = scan_layers(self.blocks, step, tokens, hints, remat=config.remat, unroll=unroll)
        return tokens


class Embedding(nnx.Module):
    """Two linear maps with an activation between: embeds timesteps and text."""

    def __init__(self, in_width: int, width: int, activation, *, rngs: nnx.Rngs):
        """Make the maps in_width -> width -> width."""
        self.activation = activation
        self.inner = Linear(in_width, width, (None, "mlp"), rngs=rngs)
        self.outer = Linear(width, width, ("mlp", "embed"), rngs=rngs)

    def __call__(self, x: Float[jax.Array, "... i"]) -> Float[jax.Array, "... d"]:
        """Return the embedding."""
        return self.outer(self.activation(self.inner(x)))


class Head(nnx.Module):
    """Timestep-modulated norm and the map from tokens to patches, which starts at zero."""

    def __init__(self, width: int, out_width: int, eps: float, *, rngs: nnx.Rngs):
        """Draw the modulation and make the zero map."""
        self.eps = eps
        drawn = jax.random.normal(rngs.params(), (2, width)) / width**0.5
        self.modulation = nnx.Param(drawn, axes=(None, "embed"))
        self.linear = Linear(
            width, out_width, ("embed", None), rngs=rngs, kernel_init=nnx.initializers.zeros
        )

    def __call__(
        self, x: Float[jax.Array, "b t s d"], embedded_time: Float[jax.Array, "b t d"]
    ) -> Float[jax.Array, "b t s p"]:
        """Return patches; `embedded_time` is the timestep embedding before its projection."""
        parts = self.modulation[...] + embedded_time[:, :, None]
        shift, scale = jnp.split(parts, 2, axis=2)
        return self.linear(modulate(x, scale, shift, self.eps))


def to_patches(
    x: Float[jax.Array, "b t h w c"], patch: tuple[int, int, int]
) -> Float[jax.Array, "b t s p"]:
    """Cut each latent frame into patches, row by row, each flattened in the order (h, w, c)."""
    b, t, h, w, c = x.shape
    _, ph, pw = patch
    x = x.reshape(b, t, h // ph, ph, w // pw, pw, c).transpose(0, 1, 2, 4, 3, 5, 6)
    return x.reshape(b, t, -1, ph * pw * c)


def from_patches(
    patches: Float[jax.Array, "b t s p"], grid_hw: tuple[int, int], patch: tuple[int, int, int]
) -> Float[jax.Array, "b t h w c"]:
    """Inverse of `to_patches` for a token grid of `grid_hw`."""
    b, t = patches.shape[:2]
    (gh, gw), (_, ph, pw) = grid_hw, patch
    x = patches.reshape(b, t, gh, gw, ph, pw, -1).transpose(0, 1, 2, 4, 3, 5, 6)
    return x.reshape(b, t, gh * ph, gw * pw, -1)


def _check_inputs(config: DenoiserConfig, x, timestep, condition, text, frames) -> None:
    _, ph, pw = config.patch
    batch, count, height, width, channels = x.shape
    if (count, channels) != (frames.total, config.latent_channels) or height % ph or width % pw:
        raise ValueError(
            f"x: got {x.shape}, expected [b, {frames.total}, h, w, {config.latent_channels}] for "
            f"{frames} with h, w multiples of {(ph, pw)}; pass references, target and preceding "
            "frames in this order"
        )
    if timestep.shape != (batch, count):
        raise ValueError(
            f"timestep: got shape {timestep.shape}, expected {(batch, count)}: one a latent frame"
        )
    if (text is None) == bool(config.text_width):
        raise ValueError(
            f"text: got {None if text is None else text.shape} with text_width "
            f"{config.text_width}, expected [b, n, text_width], or None where that is 0"
        )
    expected = (batch, frames.remembered, height, width, config.condition_channels)
    if condition is not None and (condition.shape != expected or not config.branch_layers):
        raise ValueError(
            f"condition: got shape {condition.shape}, expected {expected}: target then preceding "
            "frames, channels as build_condition makes them, for a model with branch_layers"
        )
