"""Principal components of video patches.

The start of the codec's linear path, and the baseline it must beat.

First frames and later groups each get their own orthonormal basis. The group basis is then rotated
(orthogonal Procrustes) so that a cell's channels mean nearly the same in both: a token written to
memory from the first frame is read back into the place of a later one. Rotation changes no
reconstruction. Next: `models/codec.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from mirage_jax.models.codec import CodecConfig, to_patches


def fit(config: CodecConfig, params: Mapping, clips: UInt8[np.ndarray, "n f H W 3"]) -> dict:
    """Return `params` with the linear path set to the principal components of `clips`.

    Args:
      config: sizes; `clips` must hold 1 + n * temporal_stride frames.
      params: parameters of the codec as `functional.init` made them; all others are kept.
      clips: frames to learn from; a few hundred short clips are plenty.

    Returns:
      New parameters; the latents of `clips` have mean 0 and standard deviation 1 in every channel.

    Raises:
      ValueError: if there are fewer patches than latent channels.
    """
    c = config.latent_channels
    video = jnp.asarray(clips, jnp.float32) / 127.5 - 1.0
    first, later = to_patches(config, video)
    last_frames = video[:, config.temporal_stride :: config.temporal_stride]
    last, _ = to_patches(config, last_frames.reshape(-1, 1, *video.shape[2:]))
    images, groups, lasts = (
        np.asarray(x, np.float64).reshape(-1, x.shape[-1]) for x in (first, later, last)
    )
    if len(images) < c:
        raise ValueError(
            f"clips: got {len(images)} first-frame patches, expected at least {c}; give more clips."
        )
    image_basis, image_mean = principal_basis(np.concatenate([images, lasts]), c)
    group_basis, group_mean = principal_basis(groups, c)
    # The rotation that brings a group's channels nearest to those of its last frame coded as an
    # image.
    u, _, vt = np.linalg.svd(
        ((groups - group_mean) @ group_basis).T @ ((lasts - image_mean) @ image_basis)
    )
    group_basis = group_basis @ (u @ vt)
    z = np.concatenate([(images - image_mean) @ image_basis, (groups - group_mean) @ group_basis])
    linear = {
        "analysis": {
            "image": {"kernel": image_basis, "bias": -image_mean @ image_basis},
            "group": {"kernel": group_basis, "bias": -group_mean @ group_basis},
        },
        "synthesis": {
            "image": {"kernel": image_basis.T, "bias": image_mean},
            "group": {"kernel": group_basis.T, "bias": group_mean},
        },
        "latent_mean": z.mean(0),
        "latent_std": np.maximum(z.std(0), 1e-6),
    }
    return {**params, **jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), linear)}


def principal_basis(patches: Float[np.ndarray, "n p"], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the `count` directions of largest variance [p, count] and the mean [p].

    The largest variance comes first.
    """
    mean = patches.mean(0)
    _, vectors = np.linalg.eigh((patches - mean).T @ (patches - mean))
    return vectors[:, ::-1][:, :count], mean


def channel_weights(params: Mapping) -> Float[jax.Array, " c"]:
    """Return what a squared error in each latent channel costs in pixels; mean 1.

    Measured through the linear path.
    """
    gain = jnp.sum(jnp.square(params["synthesis"]["group"]["kernel"]), axis=1)
    weight = jnp.square(params["latent_std"]) * gain
    return weight / jnp.mean(weight)
