"""Encoder and decoder of the causal video autoencoder, stage by stage.

Conventions: channel-last videos [b, t, h, w, c]. The encoder's stages halve space and, where their
`Resampling` says so, time; the decoder's undo it in mirrored order. With `shortcuts` (Wan2.2)
a stage adds a weightless path around itself; without (Wan2.1) upsampling halves the width.

Read next: `autoencoder.py`, the model and its config.
"""

import dataclasses

import jax
from flax import nnx
from jaxtyping import Float

from mirage_jax.models.autoencoder_blocks import (
    NORM_EPS,
    CausalConv,
    Downsample,
    FrameAttention,
    ResidualBlock,
    Stream,
    Upsample,
    average_down,
    duplicate_up,
)
from mirage_jax.models.layers import RMSNorm


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """Sizes of one stage.

    Attributes:
      in_width: Channels that come in.
      width: Channels of its residual blocks.
      out_width: Channels that go out.
      blocks: Number of residual blocks.
      space: Factor by which height and width change, 1 or 2.
      time: Factor by which the frames after the first change, 1 or 2.
      shortcut: Whether a weightless path goes around the stage.
    """

    in_width: int
    width: int
    out_width: int
    blocks: int
    space: int
    time: int
    shortcut: bool


class DownStage(nnx.Module):
    """Residual blocks, then downsampling, beside a path that averages."""

    def __init__(self, plan: StagePlan, *, rngs: nnx.Rngs):
        """Make the layers of `plan`."""
        self.plan = plan
        self.blocks = _residual_blocks(plan, rngs)
        if plan.space > 1:
            self.resample = Downsample(plan.width, plan.time > 1, rngs=rngs)

    def __call__(self, x: jax.Array, stream: Stream) -> jax.Array:
        """Return the stage's output for a piece of a clip."""
        plan, y = self.plan, x
        for block in self.blocks:
            y = block(y, stream)
        if plan.space > 1:
            y = self.resample(y, stream)
        if plan.shortcut:
            y += average_down(
                x, plan.out_width, time=plan.time, space=plan.space, starts=stream.starts
            )
        return y


class UpStage(nnx.Module):
    """Residual blocks, then upsampling, beside a path that repeats."""

    def __init__(self, plan: StagePlan, *, rngs: nnx.Rngs):
        """Make the layers of `plan`."""
        self.plan = plan
        self.blocks = _residual_blocks(plan, rngs)
        if plan.space > 1:
            self.resample = Upsample(plan.width, plan.out_width, plan.time > 1, rngs=rngs)

    def __call__(self, x: jax.Array, stream: Stream) -> jax.Array:
        """Return the stage's output for a piece of a clip."""
        plan, y = self.plan, x
        for block in self.blocks:
            y = block(y, stream)
        if plan.space > 1:
            y = self.resample(y, stream)
        if plan.shortcut:
            y += duplicate_up(
                x, plan.out_width, time=plan.time, space=plan.space, starts=stream.starts
            )
        return y


class Middle(nnx.Module):
    """Residual block, attention within each frame, residual block."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        """Make the three layers, all of one width."""
        self.first = ResidualBlock(width, width, rngs=rngs)
        self.attention = FrameAttention(width, rngs=rngs)
        self.last = ResidualBlock(width, width, rngs=rngs)

    def __call__(self, x: jax.Array, stream: Stream) -> jax.Array:
        """Return the frames, size unchanged."""
        return self.last(self.attention(self.first(x, stream)), stream)


class Encoder(nnx.Module):
    """From patched pixels to the moments of the latents."""

    def __init__(
        self, in_width: int, plans: tuple[StagePlan, ...], out_width: int, *, rngs: nnx.Rngs
    ):
        """Make an encoder with one stage a plan."""
        self.conv_in = CausalConv(in_width, plans[0].in_width, rngs=rngs)
        self.stages = nnx.List([DownStage(plan, rngs=rngs) for plan in plans])
        self.middle = Middle(plans[-1].out_width, rngs=rngs)
        self.norm_out = RMSNorm(plans[-1].out_width, NORM_EPS)
        self.conv_out = CausalConv(plans[-1].out_width, out_width, None, rngs=rngs)

    def __call__(
        self, x: Float[jax.Array, "b f H W i"], stream: Stream
    ) -> Float[jax.Array, "b t h w o"]:
        """Return the moments of a piece of a clip."""
        x = self.conv_in(x, stream)
        for stage in self.stages:
            x = stage(x, stream)
        x = self.middle(x, stream)
        return self.conv_out(jax.nn.silu(self.norm_out(x)), stream)


class Decoder(nnx.Module):
    """From latents to patched pixels."""

    def __init__(
        self, in_width: int, plans: tuple[StagePlan, ...], out_width: int, *, rngs: nnx.Rngs
    ):
        """Make a decoder with one stage a plan."""
        self.conv_in = CausalConv(in_width, plans[0].in_width, rngs=rngs)
        self.middle = Middle(plans[0].in_width, rngs=rngs)
        self.stages = nnx.List([UpStage(plan, rngs=rngs) for plan in plans])
        self.same_frames = max((i + 1 for i, plan in enumerate(plans) if plan.time > 1), default=0)
        self.norm_out = RMSNorm(plans[-1].out_width, NORM_EPS)
        self.conv_out = CausalConv(plans[-1].out_width, out_width, None, rngs=rngs)

    def __call__(
        self, x: Float[jax.Array, "b t h w i"], stream: Stream
    ) -> Float[jax.Array, "b f H W o"]:
        """Return the patched pixels of a piece of a clip.

        The stages after the last that makes frames are the largest by far: in a piece that does not
        start a clip they run frame by frame.
        """
        x = self.middle(self.conv_in(x, stream), stream)
        for stage in self.stages[: self.same_frames]:
            x = stage(x, stream)
        if stream.starts or x.shape[1] == 1:
            return self._finish(x, stream)
        return stream.frame_by_frame(self._finish, x)

    def _finish(self, x: jax.Array, stream: Stream) -> jax.Array:
        """Run the stages that make no further frames, and what follows."""
        for stage in self.stages[self.same_frames :]:
            x = stage(x, stream)
        return self.conv_out(jax.nn.silu(self.norm_out(x)), stream)


def _residual_blocks(plan: StagePlan, rngs: nnx.Rngs) -> nnx.List:
    widths = [plan.in_width] + [plan.width] * plan.blocks
    pairs = zip(widths[:-1], widths[1:], strict=True)
    return nnx.List([ResidualBlock(a, b, rngs=rngs) for a, b in pairs])
