"""Which rows of a cell compete to be shown, and how much their view differs from the camera's.

A row competes when it lies on the surface, within a relative shell behind the nearest row of its
cell, or when it was seen from this very place: nothing can hide it from there. Its rank is how
much the view it was seen from differs: angle between the directions, log of the ratio of the
depths, and weighted distance from the cell's centre, in whole steps so that float noise does not
decide. Or its rank is its depth alone: then the rows of a surface come nearest first.

Read next: `reference.py`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float32, Int32

from mirage_jax.geometry.camera import Camera, camera_center
from mirage_jax.ops.rasterize_points.pages import EMPTY, CellGrid, WorkList
from mirage_jax.ops.rasterize_points.project import Projected, camera_numbers
from mirage_jax.ops.rasterize_points.work_list import cull_boxes, sort_pages

# Views that differ by less than this (radians plus log scale) are equal.
VIEW_RESOLUTION = 1e-3
# Ranks beyond this are equal: whole numbers up to here are exact in float32.
_HIGHEST_RANK = 2.0**24


# Arc sine less its argument, by powers of the square (Cephes, single precision).
_SERIES = (4.2163199048e-2, 2.4181311049e-2, 4.5470025998e-2, 7.4953002686e-2, 1.6666752422e-1)


@dataclasses.dataclass(frozen=True)
class ViewRule:
    """What counts as the same surface and as a similar view.

    Attributes:
        shell: Rows up to this relative depth behind the nearest are on its surface.
        same_place: Rows seen from within this fraction of their depth of the camera always compete.
        offset_weight: What a shift of one cell adds to the difference of two views, in radians.
        by: Rank rows by how much their "view" differs, or by "depth": then only the shell decides
            who competes, wherever rows were seen from.
    """

    shell: float = 0.05
    same_place: float = 0.01
    offset_weight: float = 0.05
    by: Literal["view", "depth"] = "view"


class SeenFrom(NamedTuple):
    """Where the rows of n pages were seen from.

    Attributes:
        origin: Camera centre of each row when it was written, world; x, y, z as in `Pages`.
        depth: z-depth that the row was seen at, scene units.
        bounds: Corners around the origins of each page, (+inf, -inf) for a page without rows.
        farthest: Greatest depth of each page, 0 for a page without rows.
    """

    origin: Float32[jax.Array, "n 3 P"]
    depth: Float32[jax.Array, "n P"]
    bounds: Float32[jax.Array, "n 2 3"]
    farthest: Float32[jax.Array, " n"]


class Chosen(NamedTuple):
    """The row shown in each cell, and what it won by: the least rank, then the least order.

    Attributes:
        rank: How much its view differs, see `rank_rows`, or the bits of its depth; `NEVER` where
            no row competes.
        order: Order of the row; `EMPTY` where there is none.
        row: page * P + slot; -1 where there is none.
    """

    rank: Int32[jax.Array, "t h w"]
    order: Int32[jax.Array, "t h w"]
    row: Int32[jax.Array, "t h w"]


class Surface(NamedTuple):
    """What rows compete for.

    Attributes:
        depth: Depth of the nearest row of each cell, inf where none.
        after: What was chosen before: only rows whose (rank, order, row) is greater compete. A
            cell whose rank here is `NEVER` has none left. None where nothing was chosen.
    """

    depth: Float32[jax.Array, "t h w"]
    after: Chosen | None = None


class ViewedRows(NamedTuple):
    """Rows with where they were seen from and where they are seen now; fields of any one shape."""

    points: Any
    origin: Any
    depth: Any
    seen: Projected


def seen_from(
    origin: Float32[jax.Array, "n 3 P"],
    depth: Float32[jax.Array, "n P"],
    order: Int32[jax.Array, "n P"],
) -> SeenFrom:
    """Return the views of the rows with the summaries of each page computed from them.

    Rows whose origin is not finite share no place with any camera, and are left out.
    """
    used = (order != EMPTY) & jnp.all(jnp.isfinite(origin), axis=1)
    low = jnp.min(jnp.where(used[:, None], origin, jnp.inf), axis=-1)
    high = jnp.max(jnp.where(used[:, None], origin, -jnp.inf), axis=-1)
    # Not `used` alone: a depth that is no number would be the greatest of its page.
    farthest = jnp.max(jnp.where(used & (depth > 0), depth, 0.0), axis=-1, initial=0.0)
    return SeenFrom(origin, depth, jnp.stack([low, high], axis=1), farthest)


def list_candidates(
    bounds: Float32[jax.Array, "n 2 3"],
    views: SeenFrom,
    camera: Camera,
    grid: CellGrid,
    rule: ViewRule,
) -> WorkList:
    """List the pages whose rows may compete; those seen from the camera's place come first.

    Args:
        bounds: Corners of the pages' positions, as in `Pages`.
        views: Where the pages were seen from.
        camera: t cameras with the intrinsics of the grid.
        grid: Cells.
        rule: What counts as the same place.
    """
    visible, near = cull_boxes(bounds, camera_numbers(camera), grid)
    center = camera_center(camera)[:, None]
    nearest = jnp.clip(center, views.bounds[None, :, 0], views.bounds[None, :, 1])
    moved = jnp.sqrt(jnp.sum((nearest - center) ** 2, axis=-1))
    # A little more than the rule's own distance: rounding must not lose a page.
    same_place = moved <= 1.0001 * rule.same_place * views.farthest
    return sort_pages(visible, jnp.where(same_place, 0.0, near))


def rank_by(rows: ViewedRows, numbers: Any, grid: CellGrid, rule: ViewRule) -> tuple[Any, Any]:
    """Return the ranks of rows, and which of them compete whatever their depth; see `ViewRule`."""
    if rule.by == "view":
        return rank_rows(rows, numbers, grid, rule)
    depth = rows.seen.depth
    # Positive IEEE floats order like their bits. The barrier keeps compilers from computing them
    # twice: with other rounding a row could come after itself.
    bits = jax.lax.optimization_barrier(jax.lax.bitcast_convert_type(depth, jnp.int32))
    return bits, jnp.zeros(depth.shape, bool)


def rank_rows(rows: ViewedRows, numbers: Any, grid: CellGrid, rule: ViewRule) -> tuple[Any, Any]:
    """Return how much the views of rows differ from the camera's, and who shares its place.

    Args:
        rows: Rows; fields of any shape.
        numbers: The camera, see `project.camera_numbers`.
        grid: Cells.
        rule: Weights.

    Returns:
        rank: int32 from 1, lower is more similar.
        same_place: True for the rows that were seen from where the camera is.
    """
    then = [p - o for p, o in zip(rows.points, rows.origin, strict=True)]
    now = [p - numbers[9 + axis] for axis, p in enumerate(rows.points)]
    moved = _length([o - numbers[9 + axis] for axis, o in enumerate(rows.origin)])
    seen = rows.seen
    difference = angle_between(then, now) + jnp.abs(log_ratio(rows.depth, seen.depth))
    beside, below = seen.u - seen.column - grid.center, seen.v - seen.line - grid.center
    difference += _product(rule.offset_weight, _length((beside, below)))
    rank = 1 + jnp.floor(difference / VIEW_RESOLUTION + 0.5)
    # Rows without a finite difference rank last; the comparison is False for NaN.
    rank = jnp.where(rank < _HIGHEST_RANK, rank, _HIGHEST_RANK).astype(jnp.int32)
    # An origin that is not finite is no place, whatever the depth.
    return rank, (moved <= rule.same_place * rows.depth) & (moved < jnp.inf)


def angle_between(first: Any, second: Any) -> Any:
    """Return the angle in radians between vectors given as x, y and z, each of any shape.

    From the chord, which is accurate near 0, where the arc cosine of the directions is not.
    """
    half_chord = _length([a - b for a, b in zip(_unit(first), _unit(second), strict=True)]) / 2
    return 2 * _arcsine(jnp.minimum(half_chord, 1.0))


def log_ratio(seen: Any, now: Any) -> Any:
    """Return log(seen / now) of two depths, and 0 where either is not positive."""
    usable = (seen > 0) & (now > 0)
    return jnp.log(jnp.where(usable, seen, 1.0)) - jnp.log(jnp.where(usable, now, 1.0))


def limit_of(surface: Float32[jax.Array, "*cells"], rule: ViewRule) -> Int32[jax.Array, "*cells"]:
    """Return the bits of the greatest depth on the surface of each cell, -1 where there is none."""
    bits = jax.lax.bitcast_convert_type((1 + rule.shell) * surface, jnp.int32)
    return jnp.where(jnp.isfinite(surface), bits, -1)


def contest_of(grid: CellGrid, rule: ViewRule) -> Callable[..., tuple[Any, Any]]:
    """Return what rows compete by in the kernels, whose tables are origin and seen depth."""

    def contest(seen: Projected, points: Any, others: Any, numbers: Any, bits: Any) -> Any:
        if rule.by == "depth":
            return bits, bits
        origin, (depth,) = others
        rank, same_place = rank_rows(ViewedRows(points, origin, depth, seen), numbers, grid, rule)
        # Rows seen from this place are within any limit.
        return rank, jnp.where(same_place, 0, bits)

    return contest


def _arcsine(sine: Any) -> Any:
    """Return the angle of a sine in [0, 1], to float32: kernels have no arc sine of their own."""
    large = sine > 0.5
    square = jnp.where(large, (1 - sine) / 2, sine * sine)
    root = jnp.where(large, jnp.sqrt(square), sine)
    series = jnp.full_like(square, _SERIES[0])
    for coefficient in _SERIES[1:]:
        series = _product(series, square) + coefficient
    angle = root + _product(root * square, series)
    return jnp.where(large, jnp.pi / 2 - 2 * angle, angle)


def _unit(vector: Any) -> list[Any]:
    """Return the vector at length 1; zero stays zero."""
    length = jnp.maximum(_length(vector), 1e-20)
    return [part / length for part in vector]


def _length(vector: Any) -> Any:
    """Return the length of a vector given by its components."""
    return jnp.sqrt(functools.reduce(lambda a, b: a + b, (_product(c, c) for c in vector)))


def _product(a: Any, b: Any) -> Any:
    """Return a product that is not negative, rounded before anything is added to it.

    Compilers merge a product with the sum it goes into where they see both; then rounding, and at a
    step's border the rank, would depend on the program. They do not look through a maximum.
    """
    return jnp.maximum(a * b, 0.0)
