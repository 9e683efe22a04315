"""Causal video autoencoder of the Wan family: frames to latents and back.

Conventions: videos [b, f, H, W, 3] float in [-1, 1] with f = 1 + n * temporal stride; latents
[b, t, h, w, c] with t = 1 + n, normalised per channel to about zero mean and unit variance. The
first frame is coded alone, later ones in groups, and nothing depends on later frames. A clip may
be run whole (`encode`, `decode`) or group by group in bounded memory (`encode_streamed`,
`decode_streamed`); both give the same numbers. The posterior is not sampled: `encode` returns its
mean.

Read next: `autoencoder_blocks.py` for how the past is handed on, `convert/autoencoder.py` for
released weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from mirage_jax.models.autoencoder_blocks import Past, Stream
from mirage_jax.models.autoencoder_stages import Decoder, Encoder, StagePlan
from mirage_jax.models.layers import Linear


def _factors(time: bool | None) -> tuple[int, int]:
    """Factors of space and time of a stage; None resamples nothing."""
    return (1, 1) if time is None else (2, 2 if time else 1)


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of the autoencoder; the defaults are those of Wan2.2-TI2V-5B.

    Attributes:
      latent_channels: Channels of a latent cell.
      encoder_width: Channels of the encoder's first stage.
      decoder_width: Channels of the decoder's last stage.
      multipliers: Width of each encoder stage over `encoder_width`, finest first; the decoder
        mirrors them. All stages but the coarsest change height and width by 2.
      blocks: Residual blocks of an encoder stage; a decoder stage has one more.
      temporal_downsample: For all stages but the coarsest, whether they halve time as well.
      patch: Side of the pixel blocks that are folded into channels at the very outside.
      shortcuts: Weightless paths around stages: on for Wan2.2, off for Wan2.1.
    """

    latent_channels: int = 48
    encoder_width: int = 160
    decoder_width: int = 256
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    temporal_downsample: tuple[bool, ...] = (False, True, True)
    patch: int = 2
    shortcuts: bool = True

    def __post_init__(self) -> None:
        """Check what the fields say about each other, naming the field that is wrong."""
        for name in ("latent_channels", "encoder_width", "decoder_width", "blocks", "patch"):
            if getattr(self, name) < 1:
                raise ValueError(f"autoencoder.{name}: got {getattr(self, name)}, expected >= 1.")
        if len(self.temporal_downsample) != len(self.multipliers) - 1:
            raise ValueError(
                f"autoencoder.temporal_downsample: got {len(self.temporal_downsample)} entries, "
                f"expected {len(self.multipliers) - 1}, one for each multiplier but the last; "
                "add or remove entries."
            )
        pairs = [(plan.in_width, plan.out_width, plan) for plan in self.encoder_plans]
        pairs += [(plan.out_width, plan.in_width, plan) for plan in self.decoder_plans]
        for fine, coarse, plan in pairs:
            if plan.shortcut and fine * plan.space**2 * plan.time % coarse:
                raise ValueError(
                    f"autoencoder.multipliers: got {self.multipliers}, expected every stage's "
                    "width to divide that of the stage before times its downsampling, as "
                    "shortcuts average whole channels; use powers of two, or shortcuts=False."
                )

    @property
    def spatial_stride(self) -> int:
        """Pixels that a latent cell covers, each way."""
        return self.patch * 2 ** (len(self.multipliers) - 1)

    @property
    def temporal_stride(self) -> int:
        """Video frames that a latent frame covers, but the first, which covers one."""
        return 2 ** sum(self.temporal_downsample)

    @property
    def pixel_channels(self) -> int:
        """Channels of patched pixels."""
        return 3 * self.patch**2

    @property
    def encoder_plans(self) -> tuple[StagePlan, ...]:
        """Sizes of the encoder's stages, finest first."""
        widths = [self.encoder_width * m for m in (1, *self.multipliers)]
        down = (*self.temporal_downsample, None)
        return tuple(
            StagePlan(a, b, b, self.blocks, *_factors(time), shortcut=self.shortcuts)
            for a, b, time in zip(widths[:-1], widths[1:], down, strict=True)
        )

    @property
    def decoder_plans(self) -> tuple[StagePlan, ...]:
        """Sizes of the decoder's stages, coarsest first."""
        plans: list[StagePlan] = []
        width = self.decoder_width * self.multipliers[-1]
        up = (*self.temporal_downsample[::-1], None)
        for multiplier, time in zip(self.multipliers[::-1], up, strict=True):
            inner = self.decoder_width * multiplier
            space, frames = _factors(time)
            out = inner // 2 if space > 1 and not self.shortcuts else inner
            shortcut = self.shortcuts and space > 1
            plans.append(StagePlan(width, inner, out, self.blocks + 1, space, frames, shortcut))
            width = out
        return tuple(plans)

    def build(self, rngs: nnx.Rngs) -> Autoencoder:
        """Return the module with freshly drawn parameters."""
        return Autoencoder(self, rngs=rngs)


WAN22 = AutoencoderConfig()
WAN21 = AutoencoderConfig(
    latent_channels=16, encoder_width=96, decoder_width=96, patch=1, shortcuts=False
)


class Autoencoder(nnx.Module):
    """The autoencoder; see the module docstring."""

    def __init__(self, config: AutoencoderConfig, *, rngs: nnx.Rngs):
        """Draw parameters for `config`; latents are left as they are (mean 0, std 1)."""
        c, pixels = config.latent_channels, config.pixel_channels
        self.config = config
        self.encoder = Encoder(pixels, config.encoder_plans, 2 * c, rngs=rngs)
        self.moments_out = Linear(2 * c, 2 * c, (None, None), rngs=rngs)
        self.latents_in = Linear(c, c, (None, None), rngs=rngs)
        self.decoder = Decoder(c, config.decoder_plans, pixels, rngs=rngs)
        self.latent_mean = nnx.Param(jnp.zeros(c), axes=(None,))
        self.latent_std = nnx.Param(jnp.ones(c), axes=(None,))

    def __call__(self, video: Float[jax.Array, "b f H W 3"]) -> Float[jax.Array, "b f H W 3"]:
        """Reconstruct videos."""
        return self.decode(self.encode(video))

    def encode(self, video: Float[jax.Array, "b f H W 3"]) -> Float[jax.Array, "b t h w c"]:
        """Encode videos whole.

        Args:
          video: Pixels in [-1, 1]; f = 1 + n * temporal stride, H and W multiples of the spatial
            stride.

        Returns:
          Normalised latents, t = 1 + n.

        Raises:
          ValueError: If frame count or picture size do not fit the strides.
        """
        return self.encode_piece(video)[0]

    def decode(self, latents: Float[jax.Array, "b t h w c"]) -> Float[jax.Array, "b f H W 3"]:
        """Decode normalised latents whole.

        Args:
          latents: As `encode` returns them.

        Returns:
          Pixels, f = 1 + (t - 1) * temporal stride; they are not clipped to [-1, 1].

        Raises:
          ValueError: If the number of channels is not the model's.
        """
        return self.decode_piece(latents)[0]

    def encode_streamed(
        self, video: Float[jax.Array, "b f H W 3"]
    ) -> Float[jax.Array, "b t h w c"]:
        """Encode as `encode` does, one group of frames after the other.

        Activations are those of one group at a time; video and latents are held whole.

        Raises:
          ValueError: If frame count or picture size do not fit the strides.
        """
        _check_video(self.config, video)
        return _streamed(self.encode_piece, video, self.config.temporal_stride)

    def decode_streamed(
        self, latents: Float[jax.Array, "b t h w c"]
    ) -> Float[jax.Array, "b f H W 3"]:
        """Decode as `decode` does, one latent frame after the other.

        Activations are those of one group at a time; latents and video are held whole.

        Raises:
          ValueError: If the number of channels is not the model's.
        """
        return _streamed(self.decode_piece, latents, 1)

    def encode_piece(
        self, video: Float[jax.Array, "b f H W 3"], past: Past | None = None
    ) -> tuple[Float[jax.Array, "b t h w c"], Past]:
        """Encode the next frames of a clip.

        Args:
          video: f = 1 + n * temporal stride frames at the beginning of a clip, f = n * temporal
            stride later; n may differ from piece to piece.
          past: What the piece before left; None at the beginning.

        Returns:
          Normalised latents of these frames, and the past for the next piece: a pytree whose
          shapes do not depend on how much of the clip has gone by.

        Raises:
          ValueError: If frame count or picture size do not fit the strides.
        """
        _check_video(self.config, video, starts=past is None)
        stream = Stream(past)
        mean = self._moments(video, stream)[0]
        center, scale = (p[...].astype(mean.dtype) for p in (self.latent_mean, self.latent_std))
        return (mean - center) / scale, stream.past

    def decode_piece(
        self, latents: Float[jax.Array, "b t h w c"], past: Past | None = None
    ) -> tuple[Float[jax.Array, "b f H W 3"], Past]:
        """Decode the next latent frames of a clip.

        Args:
          latents: One latent frame or more.
          past: What the piece before left; None at the beginning.

        Returns:
          Pixels, f = t * temporal stride but fewer by temporal stride - 1 at the beginning, and
          the past for the next piece, as in `encode_piece`.

        Raises:
          ValueError: If the number of channels is not the model's.
        """
        _check_latents(self.config, latents)
        stream = Stream(past)
        center, scale = (p[...].astype(latents.dtype) for p in (self.latent_mean, self.latent_std))
        x = self.decoder(self.latents_in(latents * scale + center), stream)
        return unpatchify(x, self.config.patch), stream.past

    def moments(
        self, video: Float[jax.Array, "b f H W 3"]
    ) -> tuple[Float[jax.Array, "b t h w c"], Float[jax.Array, "b t h w c"]]:
        """Return mean and log-variance of the posterior, not normalised: what training penalises.

        Raises:
          ValueError: If frame count or picture size do not fit the strides.
        """
        _check_video(self.config, video)
        mean, log_variance = self._moments(video, Stream(None))
        return mean, log_variance

    def _moments(self, video: jax.Array, stream: Stream) -> list[jax.Array]:
        x = self.encoder(patchify(video, self.config.patch), stream)
        return jnp.split(self.moments_out(x), 2, axis=-1)


def patchify(video: Float[jax.Array, "b f H W c"], patch: int) -> Float[jax.Array, "b f h w d"]:
    """Fold blocks of pixels into channels, ordered (colour, column, row) as in the release."""
    b, f, height, width, c = video.shape
    x = video.reshape(b, f, height // patch, patch, width // patch, patch, c)
    x = x.transpose(0, 1, 2, 4, 6, 5, 3)
    return x.reshape(b, f, height // patch, width // patch, c * patch * patch)


def unpatchify(x: Float[jax.Array, "b f h w d"], patch: int) -> Float[jax.Array, "b f H W c"]:
    """Undo `patchify`."""
    b, f, h, w, d = x.shape
    x = x.reshape(b, f, h, w, d // patch**2, patch, patch).transpose(0, 1, 2, 6, 3, 5, 4)
    return x.reshape(b, f, h * patch, w * patch, d // patch**2)


def _streamed(
    piece: Callable[[jax.Array, Past | None], tuple[jax.Array, Past]], x: jax.Array, group: int
) -> jax.Array:
    """Run `piece` on the first frame, then scan it over groups of `group` frames."""
    first, past = piece(x[:, :1], None)
    if x.shape[1] == 1:
        return first
    groups = x[:, 1:].reshape(x.shape[0], -1, group, *x.shape[2:])

    def step(past: Past, frames: jax.Array) -> tuple[Past, jax.Array]:
        y, past = piece(frames, past)
        return past, y

    _, later = jax.lax.scan(step, past, jnp.moveaxis(groups, 1, 0))
    later = jnp.moveaxis(later, 0, 1)
    later = later.reshape(later.shape[0], -1, *later.shape[3:])
    return jnp.concatenate([first, later], axis=1)


def _check_video(config: AutoencoderConfig, video: jax.Array, *, starts: bool = True) -> None:
    if video.ndim != 5 or video.shape[-1] != 3:
        raise ValueError(
            f"video has the wrong shape - got {video.shape} - expected [b, f, H, W, 3] - "
            "put colour last and add the batch axis."
        )
    frames, height, width = video.shape[1:4]
    time, space, alone = config.temporal_stride, config.spatial_stride, int(starts)
    if frames < 1 or (frames - alone) % time:
        what, form = ("video", f"1 + {time}n") if starts else ("later piece of video", f"{time}n")
        raise ValueError(
            f"{what} has a frame count that does not fit - got {frames} frames - expected "
            f"{form} - cut it to {alone + max(frames - alone, 0) // time * time} frames, or repeat "
            "the last one."
        )
    if height % space or width % space:
        raise ValueError(
            f"video has a picture size that does not fit - got {height}x{width} - expected "
            f"multiples of {space} - crop or resize it."
        )


def _check_latents(config: AutoencoderConfig, latents: jax.Array) -> None:
    if latents.ndim != 5 or latents.shape[-1] != config.latent_channels or not latents.shape[1]:
        raise ValueError(
            f"latents have the wrong shape - got {latents.shape} - expected [b, t, h, w, "
            f"{config.latent_channels}] with t >= 1 - use the latents of this autoencoder."
        )
