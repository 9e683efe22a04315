"""The placed read: remembered patches put where the camera sees them, then made tokens again.

The codec's linear path turns a token into its patch of pixels and back, so moving a token by a
fraction of a cell, or bringing it nearer, needs no network: the patch is drawn at the projected
place and size, its neighbours beside it, and what covers the cell is analysed again. Linear in the
tokens, no pixels of a frame, no decoder; at a patch's own place it returns the token it was given.
Cells that nothing covers keep the hole-filled token.

Conventions: tokens are those of later frames (groups); only the last frame of a patch is drawn, as
seen by a camera at rest. Offsets in cells, scales as log of depth stored over depth now. Read next:
`memory/read.py` for where rows come from, `learned_read.py` for what corrects the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mirage_jax.models.codec import CodecConfig

# Exponent of the preference for nearer patches where several cover a pixel.
_NEARER = 8.0


class Placed(NamedTuple):
    """Rows that won their cells, and where they are seen.

    Attributes:
        tokens: tokens as read, 0 in empty cells.
        visibility: True where a row was found.
        offset: of the row from the cell's centre, x then y, in cells.
        scale: log of how much larger the row's surface appears than when it was stored.
        depth: z-depth of the row from the target camera.
    """

    tokens: Float[jax.Array, "*n h w c"]
    visibility: Bool[jax.Array, "*n h w"]
    offset: Float[jax.Array, "*n h w 2"]
    scale: Float[jax.Array, "*n h w"]
    depth: Float[jax.Array, "*n h w"]


def place_patches(
    config: CodecConfig,
    params: Mapping[str, Any],
    read: Placed,
    filled: Float[jax.Array, "*n h w c"],
) -> Float[jax.Array, "*n h w c"]:
    """Return the tokens of the pictures that the placed patches make.

    Args:
        config: of the codec.
        params: of the codec; only the linear path is used.
        read: what memory showed.
        filled: the hole-filled read, kept where no patch covers the cell.
    """
    lead = filled.shape[:-3]
    read = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[len(lead) :]), read)
    base = _to_patches(config, params, filled.reshape(-1, *filled.shape[-3:]))
    patches = _to_patches(config, params, read.tokens)
    colour = jnp.zeros_like(base)
    cover = jnp.zeros(base.shape[:-1])
    nearest = _nearest_depth(read)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            patch, offset, scale, depth, seen = (
                _shift(leaf, dy, dx)
                for leaf in (patches, read.offset, read.scale, read.depth, read.visibility)
            )
            rows = _sampling(config.spatial_stride, dy + offset[..., 1], scale)
            columns = _sampling(config.spatial_stride, dx + offset[..., 0], scale)
            ratio = nearest / jnp.where(seen, depth, 1.0)
            weight = jnp.where(seen, ratio**_NEARER, 0.0)[..., None, None]
            drawn = jnp.einsum("...ia,...jb,...abk->...ijk", rows, columns, patch)
            colour = colour + weight[..., None] * drawn
            cover = cover + weight * rows.sum(-1)[..., :, None] * columns.sum(-1)[..., None, :]
    share = jnp.minimum(cover, 1.0)[..., None]
    picture = share * colour / jnp.maximum(cover, 1e-6)[..., None] + (1.0 - share) * base
    return _to_tokens(config, params, picture).reshape(filled.shape)


def _sampling(
    stride: int, centre: Float[jax.Array, "n h w"], scale: Float[jax.Array, "n h w"]
) -> Float[jax.Array, "n h w i a"]:
    """Return the bilinear weights of a patch's pixels a for a cell's pixels i, along one axis."""
    pixel = (jnp.arange(stride) + 0.5) / stride - 0.5
    source = (pixel - centre[..., None]) * jnp.exp(-scale)[..., None]
    source = (source + 0.5) * stride - 0.5
    return jnp.maximum(1.0 - jnp.abs(source[..., None] - jnp.arange(stride)), 0.0)


def _nearest_depth(read: Placed) -> Float[jax.Array, "n h w"]:
    """Return the smallest depth among the rows of a cell and its neighbours, 1 where none is."""
    depth = jnp.where(read.visibility, read.depth, jnp.inf)
    depth = jax.lax.reduce_window(depth, jnp.inf, jax.lax.min, (1, 3, 3), (1, 1, 1), "SAME")
    return jnp.where(jnp.isfinite(depth), depth, 1.0)


def _shift(grid: jax.Array, dy: int, dx: int) -> jax.Array:
    """Bring to each cell [n, h, w, ...] its neighbour at (dy, dx); zeros come in at the border."""
    height, width = grid.shape[1:3]
    pad = [(0, 0), (1, 1), (1, 1)] + [(0, 0)] * (grid.ndim - 3)
    return jnp.pad(grid, pad)[:, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]


def _to_patches(config: CodecConfig, params: Mapping[str, Any], tokens) -> jax.Array:
    """Return the last frame of the patches that tokens stand for, [n, h, w, s, s, 3]."""
    latents = tokens * params["latent_std"] + params["latent_mean"]
    linear = params["synthesis"]["group"]
    last = config.image_patch
    patch = latents @ linear["kernel"][:, -last:] + linear["bias"][-last:]
    return patch.reshape(*tokens.shape[:-1], config.spatial_stride, config.spatial_stride, 3)


def _to_tokens(config: CodecConfig, params: Mapping[str, Any], picture) -> jax.Array:
    """Return the tokens [n, h, w, c] of patches that stand still."""
    frame = picture.reshape(*picture.shape[:3], config.image_patch)
    group = jnp.concatenate([frame] * config.temporal_stride, axis=-1)
    linear = params["analysis"]["group"]
    latents = group @ linear["kernel"] + linear["bias"]
    return (latents - params["latent_mean"]) / params["latent_std"]
