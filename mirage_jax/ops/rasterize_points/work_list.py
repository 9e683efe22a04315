"""Which pages a camera may see, nearest first: culling by bounds, no work per row.

A page is kept when its box reaches into the view's pyramid, tested plane by plane with a relative
margin of 1e-5 that covers the rounding of the projection. The list is sorted by one 32-bit key of
depth and page number: depth gives up its low bits, rounded down, so that it stays a lower bound.

Read next: `xla.py`, which walks the list.
"""

from functools import reduce
from itertools import product

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float32, Int32

from mirage_jax.geometry.camera import Camera
from mirage_jax.ops.rasterize_points.pages import CellGrid, WorkList
from mirage_jax.ops.rasterize_points.project import camera_numbers, view_offset

_MARGIN = 1e-5
_UNSEEN = 0xFFFFFFFF
# Boxes seen steeper than this (distance over depth) may cover everything.
_STEEPEST = 1e3


def list_pages(bounds: Float32[jax.Array, "n 2 3"], camera: Camera, grid: CellGrid) -> WorkList:
    """List the pages that t cameras may see, nearest first.

    Conservative: no page with a row inside a view is left out, and `near` is never beyond a row.

    Args:
        bounds: Corners of the pages, as in `Pages`.
        camera: t cameras with the intrinsics of the grid.
        grid: Cells.

    Returns:
        A list of up to n pages a view.
    """
    return sort_pages(*cull_boxes(bounds, camera_numbers(camera), grid))


def sort_pages(visible: Bool[jax.Array, "t n"], near: Float32[jax.Array, "t n"]) -> WorkList:
    """List the visible pages by `near`, which loses a few of its low bits downwards."""
    num_pages = visible.shape[1]
    if num_pages == 0:
        empty = jnp.zeros(visible.shape, jnp.int32)
        return WorkList(empty, near, jnp.zeros(visible.shape[:1], jnp.int32))
    number_bits = max(1, (num_pages - 1).bit_length())
    depth_bits = jax.lax.bitcast_convert_type(near, jnp.uint32) >> (number_bits - 1)
    key = (depth_bits << number_bits) | jnp.arange(num_pages, dtype=jnp.uint32)
    key = jnp.sort(jnp.where(visible, key, jnp.uint32(_UNSEEN)), axis=1)
    near = jax.lax.bitcast_convert_type((key >> number_bits) << (number_bits - 1), jnp.float32)
    page = (key & jnp.uint32((1 << number_bits) - 1)).astype(jnp.int32)
    # Unused entries may hold numbers beyond the last page.
    page = jnp.minimum(page, num_pages - 1)
    return WorkList(page, near, jnp.sum(visible, axis=1, dtype=jnp.int32))


def cull_boxes(
    bounds: Float32[jax.Array, "n 2 3"], numbers: Float32[jax.Array, "t 17"], grid: CellGrid
) -> tuple[Bool[jax.Array, "t n"], Float32[jax.Array, "t n"]]:
    """Return which boxes reach into the views, and the least depth that each may hold.

    Args:
        bounds: Corners; a box whose low corner is not below its high one is not visible.
        numbers: Cameras, see `project.camera_numbers`.
        grid: Cells.
    """
    filled = jnp.all(bounds[:, 0] <= bounds[:, 1], axis=-1)
    corners = jnp.where(filled[:, None, None], bounds, 0.0)

    def one_view(numbers: jax.Array) -> tuple[jax.Array, jax.Array]:
        low = [corners[:, 0, axis] - numbers[9 + axis] for axis in range(3)]
        high = [corners[:, 1, axis] - numbers[9 + axis] for axis in range(3)]
        visible, near = filled, jnp.zeros(())
        for index, plane in enumerate(_planes(numbers, grid)):
            ends = [(plane[a] * low[a], plane[a] * high[a]) for a in range(3)]
            slack = sum(jnp.maximum(jnp.abs(a), jnp.abs(b)) for a, b in ends) * _MARGIN
            visible &= sum(jnp.maximum(a, b) for a, b in ends) + slack >= 0
            if index == 0:
                near = jnp.maximum(sum(jnp.minimum(a, b) for a, b in ends) - slack, 0.0)
        return visible, near

    return jax.vmap(one_view)(numbers)


def _planes(numbers: jax.Array, grid: CellGrid) -> list[list[jax.Array]]:
    """Return normals of ahead, left, right, top and bottom, pointing into the view."""
    right, down, ahead = ([numbers[3 * row + axis] for row in range(3)] for axis in range(3))
    low = 0.0 if grid.rounding == "floor" else -0.5
    fx, skew, cx, fy, cy = (numbers[12 + index] for index in range(5))

    def mix(a: jax.Array, b: jax.Array, c: jax.Array) -> list[jax.Array]:
        return [a * right[i] + b * down[i] + c * ahead[i] for i in range(3)]

    zero = jnp.zeros_like(fx)
    return [
        ahead,
        mix(fx, skew, cx - low),
        mix(-fx, -skew, low + grid.width - cx),
        mix(zero, fy, cy - low),
        mix(zero, -fy, low + grid.height - cy),
    ]


def pack_entries(
    bounds: Float32[jax.Array, "n 2 3"],
    numbers: Float32[jax.Array, "t 17"],
    grid: CellGrid,
    work: WorkList,
) -> list[Int32[jax.Array, "t l"]]:
    """Return what kernels want to know of the entries, four int32 fields.

    They are: page, bits of `near`, and the columns and lines of cells that the page's box may
    cover, first << 16 | last.
    """
    # Planes: an axis of 2 or 3 at the end would be padded to 128 lanes on TPUs.
    corners = [plane[work.page] for plane in bounds.reshape(-1, 6).T]
    sides = jax.vmap(footprint)(corners[:3], corners[3:], numbers)
    left, right = (jnp.clip(side, 0, grid.width - 1).astype(jnp.int32) for side in sides[:2])
    top, bottom = (jnp.clip(side, 0, grid.height - 1).astype(jnp.int32) for side in sides[2:])
    near = jax.lax.bitcast_convert_type(work.near, jnp.int32)
    return [work.page, near, left << 16 | right, top << 16 | bottom]


def footprint(
    low: list[jax.Array], high: list[jax.Array], numbers: Float32[jax.Array, " 17"]
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Return u and v ranges (left, right, top, bottom) in cells that the rows of boxes stay within.

    Wider than the box by a cell and 1 %: far more than rounding, and no matter for skipping. A box
    that comes near the camera's plane covers everything.

    Args:
        low: x, y and z of the low corners, any shape.
        high: The same of the high corners.
        numbers: The camera.
    """
    u, v, ratio = _corner_cells(low, high, numbers, apart=True)
    safe = ratio < _STEEPEST

    def widen(values: list[jax.Array], middle: jax.Array) -> tuple[jax.Array, jax.Array]:
        low, high = _least(values), _most(values)
        low, high = low - 0.01 * jnp.abs(low) - 1, high + 0.01 * jnp.abs(high) + 1
        return jnp.where(safe, low + middle, -jnp.inf), jnp.where(safe, high + middle, jnp.inf)

    return *widen(u, numbers[14]), *widen(v, numbers[16])


def box_span(
    box: Float32[jax.Array, "*k 2 3"], numbers: Float32[jax.Array, " 17"], grid: CellGrid
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Return the first and last column and line of cells that the rows of boxes may fall into.

    As `footprint`, but wider than the box by no more than rounding needs, and cut to the grid: the
    last is below the first where no row falls into a cell.

    Args:
        box: Corners; the numbers of an empty box mean nothing but lie within the grid.
        numbers: The camera.
        grid: Cells.
    """
    low, high = ([box[..., end, axis] for axis in range(3)] for end in range(2))
    u, v, ratio = _corner_cells(low, high, numbers, apart=False)
    safe = ratio < _STEEPEST
    # A position rounds relative to its distance, which may be `ratio` times its depth.
    slope = 4e-6 * jnp.where(safe, ratio, 1.0)

    def cut(
        values: list[jax.Array], focal: jax.Array, middle: jax.Array, cells: int
    ) -> list[jax.Array]:
        low, high = _least(values), _most(values)
        slack = 0.01 + 1e-5 * jnp.abs(middle)
        slack += slope * (focal + jnp.maximum(jnp.abs(low), jnp.abs(high)))
        middle += 0.5 - grid.center
        first = jnp.where(safe, jnp.floor(low + middle - slack), 0.0)
        last = jnp.where(safe, jnp.floor(high + middle + slack), cells - 1.0)
        # Clipped twice: before the conversion for what is too large, then for what is no number.
        first, last = jnp.clip(first, 0, cells), jnp.clip(last, -1, cells - 1)
        ends = first.astype(jnp.int32), last.astype(jnp.int32)
        return [jnp.clip(end, -1, cells) for end in ends]

    focal = jnp.abs(numbers[12]) + jnp.abs(numbers[13])
    columns = cut(u, focal, numbers[14], grid.width)
    lines = cut(v, jnp.abs(numbers[15]), numbers[16], grid.height)
    return columns[0], columns[1], lines[0], lines[1]


def _corner_cells(
    low: list[jax.Array], high: list[jax.Array], numbers: Float32[jax.Array, " 17"], apart: bool
) -> tuple[list[jax.Array], list[jax.Array], jax.Array]:
    """Return u and v of the eight corners, from the image's middle, and how steep a box is seen.

    Steepness is the greatest distance of a corner over the least depth; infinite for a box that
    reaches the camera's plane, whose u and v then mean nothing.

    Corners come one by one with `apart`: GPUs would write axes of them out before they reduce them.
    Else there is one array with three leading axes of two, which is faster on CPUs.
    """
    ends = list(zip(low, high, strict=True))
    if apart:
        corners = [view_offset(x, y, z, numbers) for x, y, z in product(*ends)]
    else:
        x, y, z = map(jnp.stack, ends)
        corners = [view_offset(x[:, None, None], y[:, None], z, numbers)]
    reach = _most(
        [jnp.abs(right) + jnp.abs(down) + jnp.abs(ahead) for right, down, ahead in corners]
    )
    nearest = _least([ahead for _, _, ahead in corners])
    safe = nearest * _STEEPEST > reach
    u, v = [], []
    for right, down, ahead in corners:
        depth = jnp.where(safe, ahead, 1.0)
        u.append(numbers[12] * (right / depth) + numbers[13] * (down / depth))
        v.append(numbers[15] * (down / depth))
    return u, v, jnp.where(safe, reach / jnp.where(safe, nearest, 1.0), jnp.inf)


def _least(corners: list[jax.Array]) -> jax.Array:
    """Return the least of corners, which come one by one or along three axes of one array."""
    return reduce(jnp.minimum, corners) if len(corners) > 1 else jnp.min(corners[0], (0, 1, 2))


def _most(corners: list[jax.Array]) -> jax.Array:
    """Return the greatest, likewise."""
    return reduce(jnp.maximum, corners) if len(corners) > 1 else jnp.max(corners[0], (0, 1, 2))
