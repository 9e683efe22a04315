"""Which remembered patches each pixel shows, and their colours there.

A patch of a cell is drawn in the parallelogram in which its piece of surface is seen, by the cells
around as well. At a pixel the nearest surface hides the others; of the patches left the two of
greatest weight are shown, the first listed among equals (by row, then line, then column of the
cells around): across an edge there are hardly more, and where many cover it, their mean would be a
blur.

Every pixel looks at every row around it, since a few operations in registers are cheaper than any
list: both passes over the rows are written out, each gives one array, and so becomes one loop over
pixels that keeps nothing in between. Patches are linear in tokens; geometry is constant to
differentiation.

Conventions: places and offsets in cells, x right and y down; pixels p of a cell line by line;
colours as planes [3, p]. Depth is compared as its logarithm. Read next: `patch_read.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int32

# Patches farther behind the nearest at a pixel, relative to its depth, are hidden by it.
_SHELL = 0.05

# Beside its edges a patch goes on faintly, by so much of its size: it closes the cracks between
# patches whose planes do not meet, and weighs nothing where another one is.
_REACH = 0.5
FAINT = 1e-2

# A parallelogram of less than this area, in cells, is seen from its edge or from behind.
_LEAST_AREA = 1e-3

# Cells whose patches a cell looks at, in the order of the list: all rows of those next to it, then
# of those beyond the one seen largest, if it is of more than this area and so may reach as far.
_NEAR = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
_FAR = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3) if max(abs(dy), abs(dx)) == 2]
_FAR_AREA = 2.0

# How far that is: cells around a view whose rows may show in it.
MARGIN = 2

# So that the numbers of two patches fit into 32 bits, 6 of each for the cell.
_MOST_ROWS = 2**9 - 2


class Placed(NamedTuple):
    """Up to k rows of each cell, and where they are seen.

    Attributes:
        tokens: tokens as read, 0 where there is no row. The grid may go on around the view.
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


class _Planes(NamedTuple):
    """The planes of rows [n, k + 1, h, w], as pixels ask for them; last the largest of each cell.

    Attributes:
        row: which of its cell it is.
        x: of the row's centre, from that of its cell.
        y: likewise.
        column_x: columns of its patch that one cell to the right is; by `column_y` one down.
        column_y: see `column_x`.
        line_x: lines of its patch, likewise.
        line_y: see `line_x`.
        slope_column: of log depth along its columns.
        slope_line: along its lines.
        depth: log of it at the centre.
    """

    row: Any
    x: Any
    y: Any
    column_x: Any
    column_y: Any
    line_x: Any
    line_y: Any
    slope_column: Any
    slope_line: Any
    depth: Any


# A row that is not seen lies where no pixel reaches it.
_NOWHERE = _Planes(0, 9.0, 9.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)


class _Shown(NamedTuple):
    """What each pixel shows of a patch: whose, where in it, and how much.

    Attributes:
        row: number of the row among the k * h * w of its frame.
        column: place in the patch from its middle, in patches.
        line: likewise.
        weight: see `_weight`; 0 where no patch is shown.
    """

    row: Int32[jax.Array, "n h w p"]
    column: Float[jax.Array, "n h w p"]
    line: Float[jax.Array, "n h w p"]
    weight: Float[jax.Array, "n h w p"]


def draw_patches(
    stride: int, read: Placed, patches: Float[jax.Array, "n k hm wm d"], margin: int = 0
) -> tuple[list[Float[jax.Array, "n h w p"]], Float[jax.Array, "n h w p"]]:
    """Draw what each cell sees of the patches of the cells around it, and of its own.

    Args:
        stride: pixels of a cell each way; p is its square.
        read: rows [k, n, hm, wm]; their tokens are not looked at.
        patches: of the rows, three planes of p colours each.
        margin: cells that the rows' grid has on each side beyond those drawn, up to `MARGIN`.

    Returns:
        For each colour the weighted sum of what each pixel shows, and the sum of the weights.

    Raises:
        ValueError: more rows or more margin than that.
    """
    n, k = patches.shape[:2]
    if k > _MOST_ROWS or not 0 <= margin <= MARGIN:
        raise ValueError(
            f"draw_patches: got {k} rows a cell and a margin of {margin} cells, expected at most "
            f"{_MOST_ROWS} and {MARGIN}"
        )
    planes = _planes_of(jax.lax.stop_gradient(read._replace(tokens=read.depth)))
    first, second = (
        _find(stride, planes, number, margin) for number in _choose(stride, planes, margin)
    )
    table = patches.reshape(n, -1)
    both = zip(_sample(stride, table, first), _sample(stride, table, second), strict=True)
    return [a + b for a, b in both], first.weight + second.weight


def _planes_of(read: Placed) -> _Planes:
    read = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), read)
    (xx, xy), (yx, yy) = ((read.axes[..., i, 0], read.axes[..., i, 1]) for i in (0, 1))
    area = xx * yy - xy * yx
    seen = read.visibility & (area > _LEAST_AREA)
    area = jnp.where(seen, area, 1.0)
    planes = _Planes(
        row=jnp.broadcast_to(jnp.arange(seen.shape[1])[:, None, None], seen.shape),
        x=read.offset[..., 0],
        y=read.offset[..., 1],
        column_x=yy / area,
        column_y=-xy / area,
        line_x=-yx / area,
        line_y=xx / area,
        slope_column=read.axes[..., 2, 0],
        slope_line=read.axes[..., 2, 1],
        depth=jnp.log(jnp.where(seen, read.depth, 1.0)),
    )
    far = jnp.where(seen & (area > _FAR_AREA), area, 0.0)
    largest, reaches = jnp.argmax(far, 1, keepdims=True), jnp.any(far > 0.0, 1, keepdims=True)

    def with_largest(values: jax.Array, none: float) -> jax.Array:
        last = jnp.where(reaches, jnp.take_along_axis(values, largest, axis=1), none)
        return jnp.concatenate([jnp.where(seen, values, none), last], axis=1)

    return _Planes(*map(with_largest, planes, _NOWHERE))


def _choose(stride: int, planes: _Planes, margin: int) -> tuple[jax.Array, jax.Array]:
    """Return the numbers of the patches that pixels show, best first; 0 is none."""
    nearest = jnp.full((), jnp.inf)
    for _, column, line, depth in _each(stride, planes, margin):
        inside = jnp.maximum(jnp.abs(column), jnp.abs(line)) <= 0.5
        nearest = jnp.minimum(nearest, jnp.where(inside, depth, jnp.inf))
    surface = jax.lax.optimization_barrier(nearest) + np.log1p(_SHELL).astype(np.float32)
    most = next_most = jnp.zeros_like(surface)
    first = second = jnp.zeros(surface.shape, jnp.int32)
    for number, column, line, depth in _each(stride, planes, margin):
        weight = jnp.where(depth <= surface, _weight(stride, column, line), 0.0)
        ahead, beside = weight > most, weight > next_most
        second = jnp.where(ahead, first, jnp.where(beside, number, second))
        next_most = jnp.where(ahead, most, jnp.maximum(weight, next_most))
        first, most = jnp.where(ahead, number, first), jnp.maximum(weight, most)
    # One array, or the pass would be run for each of them.
    both = jax.lax.optimization_barrier((first << 16) | second)
    return both >> 16, both & 0xFFFF


def _each(
    stride: int, planes: _Planes, margin: int
) -> Iterator[tuple[int, jax.Array, jax.Array, jax.Array]]:
    """Yield each listed patch's number, where in it pixels lie (column, line), and log depth."""
    _, k, height, width = planes.depth.shape
    rim = MARGIN - margin
    padded = [
        jnp.pad(v, [(0, 0), (0, 0), (rim, rim), (rim, rim)], constant_values=none)
        for v, none in zip(planes, _NOWHERE, strict=True)
    ]
    sizes = height - 2 * margin, width - 2 * margin
    for row in range(k):
        for dy, dx in _NEAR if row < k - 1 else _FAR:
            part = (
                slice(MARGIN + d, MARGIN + d + size)
                for d, size in zip((dy, dx), sizes, strict=True)
            )
            lines, columns = part
            plane = _Planes(*(v[:, row, lines, columns, None] for v in padded))
            column, line = _places(stride, plane, dx, dy)
            # A plane seen this steeply says no more of depth than that it is near the middle's.
            closer = jnp.clip(plane.slope_column * column + plane.slope_line * line, -0.5, 0.5)
            number = (row + 1 << 6) | (dy + MARGIN << 3) | (dx + MARGIN)
            yield number, column, line, plane.depth + closer


def _places(stride: int, plane: _Planes, dx: Any, dy: Any) -> tuple[jax.Array, jax.Array]:
    """Return where in the patch of the cell at (dx, dy) pixels lie, from its middle."""
    pixel = ((np.arange(stride) + 0.5) / stride - 0.5).astype(np.float32)
    right = np.tile(pixel, stride) - (dx + plane.x)
    down = np.repeat(pixel, stride) - (dy + plane.y)
    column = plane.column_x * right + plane.column_y * down
    return column, plane.line_x * right + plane.line_y * down


def _weight(stride: int, column: jax.Array, line: jax.Array) -> jax.Array:
    """Return 1 inside a patch, fading out across its edges, then faint; 0 beyond its reach."""
    column, line = jnp.abs(column), jnp.abs(line)
    away = jnp.maximum(column, line)
    fades = [jnp.clip((0.5 - v) * stride + 0.5, 0.0, 1.0) for v in (column, line)]
    return fades[0] * fades[1] + FAINT * jnp.clip(1.0 - (away - 0.5) / _REACH, 0.0, 1.0)


def _find(stride: int, planes: _Planes, number: jax.Array, margin: int) -> _Shown:
    """Return where the patches of these numbers are seen."""
    n, _, height, width = planes.depth.shape
    found = number > 0
    row, dy, dx = (number >> 6) - 1, (number >> 3 & 7) - MARGIN, (number & 7) - MARGIN
    row, dy, dx = (jnp.where(found, v, 0) for v in (row, dy, dx))
    line, column = (jnp.arange(margin, size - margin) for size in (height, width))
    cell = (line[:, None] * width + column)[..., None] + dy * width + dx
    cell, place = jax.lax.optimization_barrier((cell, row * (height * width) + cell))
    own = planes._replace(slope_column=None, slope_line=None, depth=None)
    own = jax.tree.map(lambda v: _take(v.reshape(n, -1), place), own)
    own = jax.lax.optimization_barrier(own)
    column, line = _places(stride, own, dx, dy)
    weight = jnp.where(found, _weight(stride, column, line), 0.0)
    return _Shown(own.row * (height * width) + cell, column, line, weight)


def _sample(
    stride: int, table: Float[jax.Array, "n d"], shown: _Shown
) -> list[Float[jax.Array, "n h w p"]]:
    """Return the weighted colours of patches at places in them, bilinear, one plane each."""
    # Beyond its edges a patch goes on as it ends.
    column, line = (
        jnp.clip((v + 0.5) * stride - 0.5, 0.0, stride - 1.0) for v in (shown.column, shown.line)
    )
    # The last column is not the left one of any pair.
    left, top = (jnp.minimum(jnp.floor(v), max(stride - 2.0, 0.0)) for v in (column, line))
    right, down = column - left, line - top
    pixel = shown.row * (3 * stride**2) + (top * stride + left).astype(jnp.int32)
    shares = [shown.weight * y * x for y in (1.0 - down, down) for x in (1.0 - right, right)]
    pixel, shares = jax.lax.optimization_barrier((pixel, shares))
    corners = list(zip((0, 1, stride, stride + 1), shares, strict=True))
    return [
        sum(share * _take(table, pixel + plane * stride**2 + corner) for corner, share in corners)
        for plane in range(3)
    ]


def _take(table: Float[jax.Array, "n m"], index: Int32[jax.Array, "n h w p"]) -> jax.Array:
    """Return elements of each frame's own table."""
    take = lambda one, at: one.at[at].get(mode="promise_in_bounds")  # noqa: E731
    return jax.vmap(take)(table, index)
