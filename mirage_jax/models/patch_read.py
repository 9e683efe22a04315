"""The placed read: remembered patches drawn where the camera sees them, then made tokens again.

The codec's linear path turns a token into its patch of pixels and back, so moving a token by a
fraction of a cell, bringing it nearer, or looking at its surface from the side needs no network:
the patch is drawn in the parallelogram in which its piece of surface is seen, together with those
of the cells around; at each pixel the nearest surface hides the others; and what covers the cell
is analysed again. Linear in the tokens, no pixels of a frame, no decoder; at a patch's own place it
returns the token it was given. Pixels that nothing covers show the mean colours of the hole-filled
tokens, whose finer channels say nothing of a place that was not seen.

Conventions: tokens are those of later frames (groups); only the last frame of a patch is drawn, as
seen by a camera at rest. Places and offsets in cells, depth in scene units. Read next:
`memory/read.py` for where rows come from, `learned_read.py` for what corrects the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int32

from mirage_jax.models.codec import CodecConfig

# Patches farther behind the nearest at a pixel, relative to its depth, are hidden by it.
_SHELL = 0.05

# Beside its edges a patch goes on faintly, by so much of its size: it closes the cracks between
# patches whose planes do not meet, and weighs nothing where another one is.
_REACH = 0.5
_FAINT = 1e-2

# A parallelogram of less than this area, in cells, is seen from its edge or from behind.
_LEAST_AREA = 1e-3


class Placed(NamedTuple):
    """Up to k rows of each cell, and where they are seen.

    Attributes:
        tokens: tokens as read, 0 where there is no row.
        visibility: True where there is a row.
        offset: of the row from the cell's centre, x then y, in cells.
        axes: where one cell to the right and one down of the row's own picture lead: columns, lines
            (in cells), and log depth.
        depth: z-depth of the row from the target camera.
    """

    tokens: Float[jax.Array, "k *n h w c"]
    visibility: Bool[jax.Array, "k *n h w"]
    offset: Float[jax.Array, "k *n h w 2"]
    axes: Float[jax.Array, "k *n h w 3 2"]
    depth: Float[jax.Array, "k *n h w"]


class _Drawn(NamedTuple):
    """A patch as the pixels p of a cell beside it see it.

    Attributes:
        column: place in the patch, in its pixels from its first column; within it.
        line: likewise, from its first line.
        weight: 1 inside the patch, fading out across its edges, then faint.
        depth: of the patch's plane at each pixel; infinite where the patch does not reach it.
        front: the same, infinite outside the patch.
    """

    column: Float[jax.Array, "n h w p"]
    line: Float[jax.Array, "n h w p"]
    weight: Float[jax.Array, "n h w p"]
    depth: Float[jax.Array, "n h w p"]
    front: Float[jax.Array, "n h w p"]


class _Chosen(NamedTuple):
    """A patch that a pixel shows: its weight, its cell's number in the rimmed grids, and where."""

    weight: Float[jax.Array, "n h w p"]
    cell: Int32[jax.Array, "n h w p"]
    column: Float[jax.Array, "n h w p"]
    line: Float[jax.Array, "n h w p"]


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
        filled: the hole-filled read; its mean colours are shown where no patch covers the picture.
    """
    lead, k = filled.ndim - 2, read.depth.shape[0]
    read = jax.tree.map(lambda leaf: leaf.reshape(k, -1, *leaf.shape[lead:]), read)
    base = _mean_colours(to_patches(config, params, filled.reshape(-1, *filled.shape[-3:])))
    patches = to_patches(config, params, read.tokens)
    colour, cover = _compose(config.spatial_stride, read, patches)
    share = jnp.minimum(cover / (0.5 * _FAINT), 1.0)[..., None]
    colour = share * colour / jnp.maximum(cover, 1e-6)[..., None]
    picture = colour + (1.0 - share) * base.reshape(colour.shape)
    return _to_tokens(config, params, picture.reshape(base.shape)).reshape(filled.shape)


def _mean_colours(patches: Float[jax.Array, "n h w s s 3"]) -> Float[jax.Array, "n h w s s 3"]:
    """Return patches of one picture that passes smoothly through the mean colour of each patch."""
    n, h, w, size = patches.shape[:4]
    picture = jax.image.resize(patches.mean((-3, -2)), (n, h * size, w * size, 3), "linear")
    return picture.reshape(n, h, size, w, size, 3).swapaxes(2, 3)


def _compose(stride: int, read: Placed, patches: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draw what each cell sees of the patches of the cells around it, and of its own.

    A pixel shows the two patches of greatest weight among those not hidden: across an edge there
    are hardly more, and where many cover it, their mean would be a blur.

    Returns the weighted sum of their colours [n, h, w, p, 3], and of their weights.
    """
    candidates = range(read.depth.shape[0])
    listed = [(k, dy, dx) for k in candidates for dy in (0, 1, 2) for dx in (0, 1, 2)]
    around = jnp.array(listed, jnp.int32)
    read, patches = jax.tree.map(_with_rim, (read, patches))
    *_, height, width = read.depth.shape
    corner = jnp.arange(height - 2)[:, None] * width + jnp.arange(width - 2)

    def look(nearest: jax.Array, place: jax.Array) -> tuple[jax.Array, None]:
        return jnp.minimum(nearest, _draw(stride, read, place).front), None

    def choose(best: tuple[_Chosen, _Chosen], place: jax.Array) -> tuple[Any, None]:
        patch = _draw(stride, read, place)
        shown = (patch.depth <= (1.0 + _SHELL) * nearest) & jnp.isfinite(patch.depth)
        cell = corner + (place[0] * height + place[1]) * width + place[2]
        cell = jnp.broadcast_to(cell[..., None].astype(jnp.int32), shown.shape)
        new = _Chosen(jnp.where(shown, patch.weight, 0.0), cell, patch.column, patch.line)
        first, second = best
        ahead, beside = new.weight > first.weight, new.weight > second.weight
        second = jax.tree.map(
            lambda a, b, c: jnp.where(ahead, a, jnp.where(beside, b, c)), first, new, second
        )
        return (jax.tree.map(lambda a, b: jnp.where(ahead, a, b), new, first), second), None

    # One after the other: all at once would take as much room as the denoiser.
    cells = (*read.depth.shape[1:2], height - 2, width - 2, stride**2)
    nearest, _ = jax.lax.scan(look, jnp.full(cells, jnp.inf), around)
    nothing = jnp.zeros(cells)
    start = _Chosen(nothing, nothing.astype(jnp.int32), nothing, nothing)
    best, _ = jax.lax.scan(choose, (start, start), around)
    table = jnp.moveaxis(patches, 1, 0).reshape(cells[0], -1, 3)
    colours = [one.weight[..., None] * _sample(stride, table, one) for one in best]
    return colours[0] + colours[1], best[0].weight + best[1].weight


def _sample(
    stride: int, table: Float[jax.Array, "n m 3"], chosen: _Chosen
) -> Float[jax.Array, "n h w p 3"]:
    """Return the colours of patches at places in them, bilinear; `table` lists all their pixels."""
    column, line = jnp.floor(chosen.column), jnp.floor(chosen.line)
    right, down = chosen.column - column, chosen.line - line
    colour = jnp.zeros(())
    for y, share_y in ((line, 1.0 - down), (line + 1, down)):
        for x, share_x in ((column, 1.0 - right), (column + 1, right)):
            # The last line and column are their own neighbours, of share 0.
            y, x = (jnp.minimum(v, stride - 1).astype(jnp.int32) for v in (y, x))
            pixel = ((chosen.cell * stride + y) * stride + x).reshape(len(table), -1, 1)
            found = jnp.take_along_axis(table, pixel, axis=1).reshape(*column.shape, 3)
            colour = colour + (share_y * share_x)[..., None] * found
    return colour


def _draw(stride: int, read: Placed, place: jax.Array) -> _Drawn:
    """Return how each cell sees a patch of the cell at `place` around it, as a plane.

    `read` has a rim of one cell; `place` is the candidate, then line and column counted from 0,
    the cell's own being 1.
    """
    read = jax.tree.map(lambda leaf: _window(leaf, place), read)
    axes, (dy, dx) = read.axes, place[1:] - 1
    pixel = (jnp.arange(stride) + 0.5) / stride - 0.5
    right = jnp.tile(pixel, stride) - dx - read.offset[..., :1]
    down = jnp.repeat(pixel, stride) - dy - read.offset[..., 1:]
    (xx, xy), (yx, yy) = (jnp.moveaxis(axes[..., i, :, None], -2, 0) for i in (0, 1))
    area = xx * yy - xy * yx
    seen = read.visibility[..., None] & (area > _LEAST_AREA)
    area = jnp.where(seen, area, 1.0)
    column, line = (yy * right - xy * down) / area, (xx * down - yx * right) / area
    closer = axes[..., 2, :1] * column + axes[..., 2, 1:] * line
    away = jnp.maximum(jnp.abs(column), jnp.abs(line))
    fades = [jnp.clip((0.5 - jnp.abs(v)) * stride + 0.5, 0.0, 1.0) for v in (column, line)]
    faint = _FAINT * jnp.clip(1.0 - (away - 0.5) / _REACH, 0.0, 1.0)
    # A plane seen this steeply says no more of depth than that it is near the middle's.
    depth = read.depth[..., None] * jnp.exp(jnp.clip(closer, -0.5, 0.5))
    # Beyond its edges a patch goes on as it ends.
    column, line = (jnp.clip((v + 0.5) * stride - 0.5, 0.0, stride - 1.0) for v in (column, line))
    return _Drawn(
        column=column,
        line=line,
        weight=fades[0] * fades[1] + faint,
        depth=jnp.where(seen & (away < 0.5 + _REACH), depth, jnp.inf),
        front=jnp.where(seen & (away <= 0.5), depth, jnp.inf),
    )


def _with_rim(grid: jax.Array) -> jax.Array:
    """Put a rim of zeros, one cell wide, around grids [k, n, h, w, ...]."""
    return jnp.pad(grid, [(0, 0), (0, 0), (1, 1), (1, 1)] + [(0, 0)] * (grid.ndim - 4))


def _window(grid: jax.Array, place: jax.Array) -> jax.Array:
    """Return [n, h, w, ...] of grids with a rim: of a candidate, from a line and column on."""
    height, width = grid.shape[2] - 2, grid.shape[3] - 2
    start: list[Any] = [place[0], 0, place[1], place[2], *[0] * (grid.ndim - 4)]
    size = (1, grid.shape[1], height, width, *grid.shape[4:])
    return jax.lax.dynamic_slice(grid, start, size)[0]


def to_patches(config: CodecConfig, params: Mapping[str, Any], tokens) -> jax.Array:
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
