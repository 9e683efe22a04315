"""The configs of a world made of released weights, where no config file says them.

Conventions: sizes are those of the weights; everything else is as the public release runs them.

Read next: `world.py`; `configs/wan5b.py`, which says the same and more for the released sizes.
"""

from __future__ import annotations

import dataclasses

from mirage_jax.diffusion.config import RELEASE as RELEASE_SAMPLING
from mirage_jax.memory.state import release_config
from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.models.condition import RELEASE as RELEASE_CONDITION
from mirage_jax.models.condition import ConditionConfig
from mirage_jax.models.config import release_chunk
from mirage_jax.models.denoiser import DenoiserConfig
from mirage_jax.rollout.world import WorldSpec

# Frame sizes that the released models are run at, by the stride of their autoencoder.
_FRAMES = {16: (704, 1280), 8: (480, 832)}
_CAPACITY = 262_144


def released_spec(
    name: str,
    denoiser: DenoiserConfig,
    codec: AutoencoderConfig,
    frame_hw: tuple[int, int] | None = None,
) -> WorldSpec:
    """Return configs that run weights as the release does.

    Args:
        name: of the world.
        denoiser: sizes of its denoiser.
        codec: sizes of its autoencoder.
        frame_hw: height and width of a frame in pixels; None takes what models of this stride are
            run at.

    Raises:
        ValueError: denoiser and autoencoder do not belong together, the branch is told something
            that the release does not know, or the frame does not fit.
    """
    channels = codec.latent_channels
    if denoiser.latent_channels != channels or denoiser.out_channels != channels:
        raise ValueError(
            f"denoiser and autoencoder do not fit: {denoiser.latent_channels} channels in and "
            f"{denoiser.out_channels} out, but latents of {channels}; give the autoencoder that "
            "the denoiser was trained with"
        )
    height, width = frame_hw or _FRAMES.get(codec.spatial_stride, (codec.spatial_stride * 32,) * 2)
    return WorldSpec(
        name=name,
        height=height,
        width=width,
        codec=codec,
        depth_head=None,
        denoiser=denoiser,
        memory=release_config(_CAPACITY, channels),
        condition=_condition(denoiser, channels),
        chunk=dataclasses.replace(release_chunk(), temporal_stride=codec.temporal_stride),
        sampling=RELEASE_SAMPLING,
    )


def _condition(denoiser: DenoiserConfig, channels: int) -> ConditionConfig:
    """Tell what the branch is told by how many channels it takes beside the tokens."""
    extra = denoiser.condition_channels - channels if denoiser.branch_layers else 0
    if extra in (0, channels):
        return dataclasses.replace(RELEASE_CONDITION, score=extra)
    if extra == 1:
        return ConditionConfig(depth=False, rays=False, geometry=False)
    raise ValueError(
        f"memory branch: got {denoiser.condition_channels} condition channels, expected "
        f"{channels}, {channels + 1} (visibility) or {2 * channels} (as released); give --config"
    )
