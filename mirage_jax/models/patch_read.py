"""The placed read: remembered patches drawn where the camera sees them, then made tokens again.

A linear map turns a token into its patch of pixels and back, so moving a token by a
fraction of a cell, bringing it nearer, or looking at its surface from the side needs no network:
the patch is drawn in the parallelogram in which its piece of surface is seen, together with those
of the cells around; at each pixel the nearest surface hides the others; and what covers the cell
is analysed again. Linear in the tokens, no pixels of a frame, no decoder; at a patch's own place it
returns the token it was given. Pixels that nothing covers show the mean colours of the hole-filled
tokens, whose finer channels say nothing of a place that was not seen.

Conventions: tokens are those of later frames (groups); only the last frame of a patch is drawn, as
seen by a camera at rest. Inside, a patch is three planes of colours. Read next: `patch_path.py` for
the maps, `draw_patches.py` for how patches are drawn, `memory/read.py` for where rows come from,
`learned_read.py` for what corrects the result.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Float

from mirage_jax.models.draw_patches import FAINT, MARGIN, Placed, draw_patches
from mirage_jax.models.patch_path import PatchPath

__all__ = ["MARGIN", "Placed", "place_patches", "to_patches"]


def place_patches(
    side: int,
    path: PatchPath,
    read: Placed,
    filled: Float[jax.Array, "*n h w c"],
) -> Float[jax.Array, "*n h w c"]:
    """Return the tokens of the pictures that the placed patches make.

    Args:
        side: pixels of a patch, each way.
        path: linear maps between tokens and patches.
        read: what memory showed, on the cells of `filled` or on up to `MARGIN` more on each side.
            Gradients reach its tokens; its geometry is constant to them.
        filled: the hole-filled read; its mean colours are shown where no patch covers the picture.
    """
    lead, k = filled.ndim - 2, read.depth.shape[0]
    read = jax.tree.map(lambda leaf: leaf.reshape(k, -1, *leaf.shape[lead:]), read)
    base = _mean_colours(side, path, filled.reshape(-1, *filled.shape[-3:]))
    patches = path.to_planes(jnp.moveaxis(read.tokens, 0, 1))
    margin = (read.depth.shape[-1] - filled.shape[-2]) // 2
    colours, cover = draw_patches(side, read, patches, margin)
    share = jnp.minimum(cover / (0.5 * FAINT), 1.0)
    shown, left = share / jnp.maximum(cover, 1e-6), 1.0 - share
    picture = [shown * one + left * base[..., i] for i, one in enumerate(colours)]
    # Colour by colour, as joining them would copy the picture.
    kernels = jnp.split(path.tokens, 3)
    tokens = sum(plane @ kernel for plane, kernel in zip(picture, kernels, strict=True))
    return (tokens + path.tokens_bias).reshape(filled.shape)


def _mean_colours(side: int, path: PatchPath, tokens) -> jax.Array:
    """Return one picture [n, h, w, p, 3], smooth between the mean colours of the patches."""
    (n, h, w), s = tokens.shape[:3], side
    means = path.to_planes(tokens).reshape(n, h, w, 3, -1).mean(-1)
    picture = jax.image.resize(means, (n, h * s, w * s, 3), "linear")
    return picture.reshape(n, h, s, w, s, 3).swapaxes(2, 3).reshape(n, h, w, s * s, 3)


def to_patches(side: int, path: PatchPath, tokens) -> jax.Array:
    """Return the last frame of the patches that tokens stand for, [n, h, w, s, s, 3]."""
    planes = path.to_planes(tokens).reshape(*tokens.shape[:-1], 3, side, side)
    return jnp.moveaxis(planes, -3, -1)
