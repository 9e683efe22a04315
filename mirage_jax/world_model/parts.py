"""What a config must offer, and the codec: videos to latents and back.

Read next: `look.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import jax.numpy as jnp
from jaxtyping import Array, Float

from mirage_jax.memory import state
from mirage_jax.models import condition as condition_lib
from mirage_jax.models import functional
from mirage_jax.models.config import ChunkConfig

Params = Mapping[str, Any]

# Latent frames of a camera at rest until its latents settle.
HELD_LATENTS = 2

# Sky is remembered as a surface this far away, in scene units: it then turns with the camera but
# never moves past it.
FAR = 1000.0


class WorldConfigLike(Protocol):
    """What these functions need of a config.

    The training config and a loaded world both have it.
    """

    @property
    def codec(self) -> Any:
        """The codec."""
        ...

    @property
    def depth_head(self) -> Any:
        """The latent depth head; None where depth is given from outside."""
        ...

    @property
    def denoiser(self) -> Any:
        """The denoiser."""
        ...

    @property
    def learned_read(self) -> Any:
        """The learned read; None where the raw read is used."""
        ...

    @property
    def condition(self) -> condition_lib.ConditionConfig:
        """What the memory branch is shown."""
        ...

    @property
    def memory(self) -> state.MemoryConfig:
        """Size and rules of the memory."""
        ...

    @property
    def chunk(self) -> ChunkConfig:
        """The shape of one chunk."""
        ...


def encode(
    config: WorldConfigLike, params: Params, video: Float[Array, "b f H W 3"]
) -> Float[Array, "b t h w c"]:
    """Encode a video in [-1, 1] to normalised latents."""
    return functional.apply(config.codec, params["codec"], video, method="encode_streamed")


def encode_held(
    config: WorldConfigLike, params: Params, picture: Float[Array, "b H W 3"]
) -> Float[Array, "b h w c"]:
    """Encode pictures in [-1, 1] as the last latent frame of a camera at rest.

    Memory is asked for tokens of later frames, so a start picture is stored as one of them, not as
    the first latent frame, which the codec makes of one frame alone.
    """
    frames = 1 + HELD_LATENTS * config.chunk.temporal_stride
    return encode(config, params, jnp.repeat(picture[:, None], frames, axis=1))[:, -1]


def decode(
    config: WorldConfigLike, params: Params, latents: Float[Array, "b t h w c"]
) -> Float[Array, "b f H W 3"]:
    """Decode normalised latents to a video in [-1, 1]; causal in time."""
    return functional.apply(config.codec, params["codec"], latents, method="decode_streamed")


def white_score(
    config: WorldConfigLike, params: Params, frames: int, grid_hw: tuple[int, int]
) -> Float[Array, "t h w c"]:
    """Return the score channels of the released weights: the latents of a white clip.

    The codec is causal, so the score of fewer frames is the beginning of that of more.

    Args:
        config: see `WorldConfigLike`.
        params: parameters of the models; only "codec" is used.
        frames: latent frames, target and preceding ones together.
        grid_hw: (h, w) of the latent grid.
    """
    stride = config.codec.spatial_stride
    length = 1 + (frames - 1) * config.chunk.temporal_stride
    white = jnp.ones((1, length, grid_hw[0] * stride, grid_hw[1] * stride, 3))
    return encode(config, params, white)[0]
