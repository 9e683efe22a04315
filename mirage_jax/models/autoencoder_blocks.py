"""Layers of the causal video autoencoder: convolutions that look back in time, and resampling.

Conventions: channel-last videos [b, t, h, w, c]. The first frame of a clip stands alone; later
frames come in groups. Every layer that looks back asks a `Stream` for the frames before the ones
it was given, so that a clip run whole and a clip run in pieces give the same numbers: the stream
of a clip's beginning supplies zeros, a later one what the piece before left behind.

Read next: `autoencoder_stages.py` puts the layers together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from mirage_jax.distributed.constrain import divided, on_own_part
from mirage_jax.models.attention import attend
from mirage_jax.models.layers import Linear, RMSNorm

Past = tuple[jax.Array, ...]

# Norms divide by the length of the channel vector; the term only guards an all-zero one.
NORM_EPS = 1e-12
_fan_in = nnx.initializers.variance_scaling(1.0, "fan_in", "uniform")


class Stream:
    """The past frames of one piece of a clip, handed to layers in the order in which they run.

    Attributes:
      starts: True if the piece begins with the first frame of the clip.
    """

    def __init__(self, past: Past | None):
        """Continue after the piece that left `past`; None starts a clip."""
        self.starts = past is None
        self._past: Iterator[jax.Array] = iter(past or ())
        self._kept: list[jax.Array] = []

    def extend(self, x: jax.Array, frames: int) -> jax.Array:
        """Return `x` with the `frames` frames before it put in front; zeros before the clip."""
        zeros = jnp.zeros((x.shape[0], frames, *x.shape[2:]), x.dtype)
        x = jnp.concatenate([zeros if self.starts else next(self._past), x], axis=1)
        self.keep(x, frames)
        return x

    def keep(self, x: jax.Array, frames: int) -> None:
        """Leave the last `frames` frames of `x` for the next piece."""
        self._kept.append(x[:, x.shape[1] - frames :])

    def frame_by_frame(
        self, layers: Callable[[jax.Array, Stream], jax.Array], x: Float[jax.Array, "b t h w i"]
    ) -> Float[jax.Array, "b t h2 w2 o"]:
        """Run all layers that are left on one frame after the other, at a frame's activations.

        Args:
          layers: Give a frame for a frame, and are the last that ask this stream.
          x: Frames of a piece that does not start a clip.

        Returns:
          What `layers` would make of all frames at once.
        """

        def step(past: Past, frame: jax.Array) -> tuple[Past, jax.Array]:
            stream = Stream(past)
            y = layers(frame[:, None], stream)[:, 0]
            return stream.past, y

        past, y = jax.lax.scan(step, tuple(self._past), jnp.moveaxis(x, 1, 0))
        self._kept.extend(past)
        return jnp.moveaxis(y, 0, 1)

    @property
    def past(self) -> Past:
        """What the next piece needs, once all layers have run."""
        return tuple(self._kept)


class CausalConv(nnx.Module):
    """3x3x3 convolution over this frame and the two before it; the size is kept.

    Run as three 2-D convolutions, one for each time offset: XLA has no fast 3-D one on CPU.
    """

    def __init__(
        self, in_width: int, out_width: int, axis: str | None = "embed", *, rngs: nnx.Rngs
    ):
        """Make a kernel [time, height, width, in, out] whose last axis is named `axis`."""
        kernel = _fan_in(rngs.params(), (3, 3, 3, in_width, out_width), jnp.float32)
        self.kernel = nnx.Param(kernel, axes=(None, None, None, None, axis))
        self.bias = nnx.Param(jnp.zeros(out_width), axes=(axis,))

    def __call__(
        self, x: Float[jax.Array, "b t h w i"], stream: Stream
    ) -> Float[jax.Array, "b t h w o"]:
        """Return the convolved frames."""
        frames, kernel = x.shape[1], self.kernel[...].astype(x.dtype)
        x = stream.extend(x, 2)
        y = sum(_convolve(x[:, i : i + frames], kernel[i]) for i in range(3))
        return y + self.bias[...].astype(x.dtype)


class FrameConv(nnx.Module):
    """3x3 convolution of each frame by itself: same size, or half of it with `stride` 2."""

    def __init__(self, in_width: int, out_width: int, stride: int = 1, *, rngs: nnx.Rngs):
        """Make a kernel [height, width, in, out]."""
        kernel = _fan_in(rngs.params(), (3, 3, in_width, out_width), jnp.float32)
        self.kernel = nnx.Param(kernel, axes=(None, None, None, "embed"))
        self.bias = nnx.Param(jnp.zeros(out_width), axes=("embed",))
        self.stride = stride

    def __call__(self, x: Float[jax.Array, "b t h w i"]) -> Float[jax.Array, "b t h2 w2 o"]:
        """Return the convolved frames."""
        y = _convolve(x, self.kernel[...].astype(x.dtype), self.stride)
        return y + self.bias[...].astype(x.dtype)


class TimeConv(nnx.Module):
    """Convolution over three frames at each place; no padding, hence two frames fewer."""

    def __init__(self, in_width: int, out_width: int, stride: int = 1, *, rngs: nnx.Rngs):
        """Make a kernel [time, in, out]."""
        kernel = _fan_in(rngs.params(), (3, in_width, out_width), jnp.float32)
        self.kernel = nnx.Param(kernel, axes=(None, None, "embed"))
        self.bias = nnx.Param(jnp.zeros(out_width), axes=("embed",))
        self.stride = stride

    def __call__(self, x: Float[jax.Array, "b t h w i"]) -> Float[jax.Array, "b t2 h w o"]:
        """Return one frame for each `stride` input frames after the second."""
        last, kernel = x.shape[1] - 2, self.kernel[...].astype(x.dtype)
        y = sum(x[:, i : i + last : self.stride] @ kernel[i] for i in range(3))
        return y + self.bias[...].astype(x.dtype)


class ResidualBlock(nnx.Module):
    """Two causal convolutions, each after a norm and SiLU, beside a pointwise shortcut."""

    def __init__(self, in_width: int, out_width: int, *, rngs: nnx.Rngs):
        """Make the block; the shortcut has weights only where the width changes."""
        self.norm1 = RMSNorm(in_width, NORM_EPS)
        self.conv1 = CausalConv(in_width, out_width, rngs=rngs)
        self.norm2 = RMSNorm(out_width, NORM_EPS)
        self.conv2 = CausalConv(out_width, out_width, rngs=rngs)
        self.has_shortcut = in_width != out_width
        if self.has_shortcut:
            self.shortcut = Linear(in_width, out_width, (None, "embed"), rngs=rngs)

    def __call__(
        self, x: Float[jax.Array, "b t h w i"], stream: Stream
    ) -> Float[jax.Array, "b t h w o"]:
        """Return the frames with the residual added."""
        y = self.conv1(jax.nn.silu(self.norm1(x)), stream)
        y = self.conv2(jax.nn.silu(self.norm2(y)), stream)
        return y + (self.shortcut(x) if self.has_shortcut else x)


class FrameAttention(nnx.Module):
    """Single-head self-attention among the places of each frame."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        """Make one map to queries, keys and values, and one back."""
        self.norm = RMSNorm(width, NORM_EPS)
        self.qkv = Linear(width, 3 * width, ("embed", None), rngs=rngs)
        self.out = Linear(width, width, (None, "embed"), rngs=rngs)

    def __call__(self, x: Float[jax.Array, "b t h w c"]) -> Float[jax.Array, "b t h w c"]:
        """Return the frames with the attended values added."""
        b, t, h, w, c = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b * t, h * w, 1, 3 * c)
        # Left to itself, XLA brings the frames of all rows to every device. Rows that the devices
        # do not divide are whole on each of them anyway.
        alone = on_own_part(attend, "batch") if divided("batch", b) else attend
        y = alone(*jnp.split(qkv, 3, axis=-1))
        return x + self.out(y.reshape(x.shape))


class Downsample(nnx.Module):
    """Halve height and width, and with `time` also the frames after the first."""

    def __init__(self, width: int, time: bool, *, rngs: nnx.Rngs):
        """Make the convolutions; the width is kept."""
        self.space = FrameConv(width, width, stride=2, rngs=rngs)
        self.has_time = time
        if time:
            self.time = TimeConv(width, width, stride=2, rngs=rngs)

    def __call__(
        self, x: Float[jax.Array, "b t h w c"], stream: Stream
    ) -> Float[jax.Array, "b t2 h2 w2 c"]:
        """Return 1 + n frames for 1 + 2n at a clip's beginning, else n for 2n."""
        x = self.space(x)
        if not self.has_time:
            return x
        if not stream.starts:
            return self.time(stream.extend(x, 1))
        # The first frame has no past to be merged with: it passes, later ones see it.
        stream.keep(x, 1)
        first = x[:, :1]
        return jnp.concatenate([first, self.time(x)], axis=1) if x.shape[1] > 1 else first


class Upsample(nnx.Module):
    """Double height and width, and with `time` also the frames after the first."""

    def __init__(self, in_width: int, out_width: int, time: bool, *, rngs: nnx.Rngs):
        """Make the convolutions."""
        self.space = FrameConv(in_width, out_width, rngs=rngs)
        self.has_time = time
        if time:
            self.time = TimeConv(in_width, 2 * in_width, rngs=rngs)

    def __call__(
        self, x: Float[jax.Array, "b t h w i"], stream: Stream
    ) -> Float[jax.Array, "b t2 h2 w2 o"]:
        """Return 1 + 2n frames for 1 + n at a clip's beginning, else 2n for n."""
        if self.has_time:
            # The first frame passes, and later ones do not see it.
            alone = 1 if stream.starts else 0
            first, later = x[:, :alone], stream.extend(x[:, alone:], 2)
            if later.shape[1] > 2:
                first = jnp.concatenate([first, self._doubled(later)], axis=1)
            x = first
        return self.space(x.repeat(2, axis=2).repeat(2, axis=3))

    def _doubled(self, x: jax.Array) -> jax.Array:
        """Make two frames of each: the halves of the doubled channels take turns."""
        y = self.time(x)
        b, t, h, w, c = y.shape
        y = jnp.moveaxis(y.reshape(b, t, h, w, 2, c // 2), 4, 2)
        return y.reshape(b, 2 * t, h, w, c // 2)


def average_down(
    x: Float[jax.Array, "b t h w i"], out_width: int, *, time: int, space: int, starts: bool
) -> Float[jax.Array, "b t2 h2 w2 o"]:
    """Shrink without weights: fold blocks of places into channels, average groups of channels.

    Args:
      x: Frames; h and w are multiples of `space`.
      out_width: Channels o; i * time * space * space is a multiple of it.
      time: Frames that become one. At a clip's beginning the first frame is joined with zeros.
      space: Places that become one, each way.
      starts: True at a clip's beginning.

    Returns:
      The shrunk frames.
    """
    if starts:
        x = jnp.pad(x, ((0, 0), (time - 1, 0), (0, 0), (0, 0), (0, 0)))
    b, t, h, w, c = x.shape
    x = x.reshape(b, t // time, time, h // space, space, w // space, space, c)
    x = x.transpose(0, 1, 3, 5, 7, 2, 4, 6)
    return x.reshape(b, t // time, h // space, w // space, out_width, -1).mean(axis=-1)


def duplicate_up(
    x: Float[jax.Array, "b t h w i"], out_width: int, *, time: int, space: int, starts: bool
) -> Float[jax.Array, "b t2 h2 w2 o"]:
    """Grow without weights: repeat channels, unfold them into blocks of places.

    Args:
      x: Frames.
      out_width: Channels o; o * time * space * space is a multiple of i.
      time: Frames that each one becomes; at a clip's beginning the first becomes one only.
      space: Places that each one becomes, each way.
      starts: True at a clip's beginning.

    Returns:
      The grown frames.
    """
    b, t, h, w, c = x.shape
    x = x.repeat(out_width * time * space * space // c, axis=-1)
    x = x.reshape(b, t, h, w, out_width, time, space, space)
    x = x.transpose(0, 1, 5, 2, 6, 3, 7, 4)
    x = x.reshape(b, t * time, h * space, w * space, out_width)
    return x[:, time - 1 :] if starts else x


def _convolve(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Convolve every frame; a stride of 2 pads only below and to the right, as the release does."""
    b, t, h, w, c = x.shape
    pad = (1, 1) if stride == 1 else (0, 1)
    y = jax.lax.conv_general_dilated(
        x.reshape(b * t, h, w, c),
        kernel,
        (stride, stride),
        (pad, pad),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.reshape(b, t, *y.shape[1:])
