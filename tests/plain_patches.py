"""How patches are drawn, in the plainest way that is still JAX: the truth for `draw_patches.py`.

Every listed patch is drawn for every pixel, one after the other, twice: to find the nearest
surface, then to keep the two of greatest weight that it does not hide. Listed are all rows of the
cells around, and of those two cells away the one whose parallelogram is largest, and larger than
two cells.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int32

from mirage_jax.models.draw_patches import Placed

_SHELL, _REACH, _FAINT, _LEAST_AREA, _FAR_AREA = 0.05, 0.5, 1e-2, 1e-3, 2.0
_RIM = 2


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


def draw_plainly(stride: int, read: Placed, patches: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draw what each cell sees of the patches of the cells around it, and of its own.

    A pixel shows the two patches of greatest weight among those not hidden: across an edge there
    are hardly more, and where many cover it, their mean would be a blur.

    Returns the weighted sum of their colours [n, h, w, p, 3], and of their weights.
    """
    count, steps = read.depth.shape[0], range(2 * _RIM + 1)
    read, patches = jax.tree.map(
        lambda leaf: jnp.concatenate([leaf, _largest(read, leaf)[None]]), (read, patches)
    )
    area = jnp.linalg.det(read.axes[count, ..., :2, :])
    read = read._replace(
        visibility=read.visibility.at[count].set(read.visibility[count] & (area > _FAR_AREA))
    )
    listed = [
        (k, dy, dx)
        for k in range(count + 1)
        for dy in steps
        for dx in steps
        if (max(abs(dy - _RIM), abs(dx - _RIM)) == 2) == (k == count)
    ]
    around = jnp.array(listed, jnp.int32)
    read, patches = jax.tree.map(_with_rim, (read, patches))
    *_, height, width = read.depth.shape
    corner = jnp.arange(height - 2 * _RIM)[:, None] * width + jnp.arange(width - 2 * _RIM)

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
    cells = (*read.depth.shape[1:2], height - 2 * _RIM, width - 2 * _RIM, stride**2)
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

    `read` has a rim; `place` is the candidate, then line and column, the cell's own being `_RIM`.
    """
    read = jax.tree.map(lambda leaf: _window(leaf, place), read)
    axes, (dy, dx) = read.axes, place[1:] - _RIM
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
    """Put a rim of zeros around grids [k, n, h, w, ...]."""
    return jnp.pad(grid, [(0, 0), (0, 0), (_RIM, _RIM), (_RIM, _RIM)] + [(0, 0)] * (grid.ndim - 4))


def _window(grid: jax.Array, place: jax.Array) -> jax.Array:
    """Return [n, h, w, ...] of grids with a rim: of a candidate, from a line and column on."""
    height, width = grid.shape[2] - 2 * _RIM, grid.shape[3] - 2 * _RIM
    start: list[Any] = [place[0], 0, place[1], place[2], *[0] * (grid.ndim - 4)]
    size = (1, grid.shape[1], height, width, *grid.shape[4:])
    return jax.lax.dynamic_slice(grid, start, size)[0]


def _largest(read: Placed, leaf: jax.Array) -> jax.Array:
    """Return of each cell's rows what the one seen largest has, the first among equals."""
    area = jnp.linalg.det(read.axes[..., :2, :])
    which = jnp.argmax(jnp.where(read.visibility, area, -1.0), axis=0)
    return jnp.take_along_axis(leaf, which.reshape(1, *which.shape, *[1] * (leaf.ndim - 4)), 0)[0]
