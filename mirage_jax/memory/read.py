"""Read a memory from cameras: for each latent cell, the token of the row that is seen there.

Conventions: cameras carry the intrinsics of the latent grid. Cells without a row are zero in every
field, with `visibility` False and `index` -1. Nothing is blended. Gradients reach the tokens of the
winning rows only: the choice of rows and all geometry are constants to differentiation.

Read next: `fill.py` (what to put into the holes), `mirage_jax/ops/rasterize_points/api.py`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int32

from mirage_jax.geometry.camera import Camera, camera_center
from mirage_jax.geometry.projection import project
from mirage_jax.memory.state import LatentMemory, MemoryConfig, check_memory, used_rows
from mirage_jax.ops.rasterize_points import rasterize_cells

# Views that differ by less than this (radians plus log scale) are equal: float noise must not
# decide between rows, so the older one is shown.
_VIEW_RESOLUTION = 1e-3


class MemoryRead(NamedTuple):
    """What a memory shows to t cameras on an h x w grid.

    Attributes:
        tokens: Token of the winning row, in the memory's token type.
        visibility: True where a row was found.
        depth: z-depth of the winning row from the reading camera, scene units.
        index: Row of the memory, -1 where none.
        offset: (u, v) from the cell's centre to the row's projection, in cells, within +-0.5.
        scale: log of the depth the row was seen at over its depth now: positive when nearer now.
        angle: Radians between the directions the row was seen from then and now.
        age: Newest stamp in the memory minus the row's.
    """

    tokens: Float[jax.Array, "t h w c"]
    visibility: Bool[jax.Array, "t h w"]
    depth: Float[jax.Array, "t h w"]
    index: Int32[jax.Array, "t h w"]  # type: ignore[assignment]  # shadows tuple.index
    offset: Float[jax.Array, "t h w 2"]
    scale: Float[jax.Array, "t h w"]
    angle: Float[jax.Array, "t h w"]
    age: Int32[jax.Array, "t h w"]


class _Views(NamedTuple):
    """All n rows as t cameras see them; `cell` is -1 where a row falls nowhere."""

    cell: Int32[jax.Array, "t n"]
    depth: Float[jax.Array, "t n"]
    offset: Float[jax.Array, "t n 2"]


def read(
    memory: LatentMemory, camera: Camera, grid_hw: tuple[int, int], config: MemoryConfig
) -> MemoryRead:
    """Return what each camera sees of the memory (paper, memory read).

    Rows are projected to cells; with `select="nearest"` the nearest row wins its cell and equal
    depths go to the older row. With "best_view" the rows on the nearest's surface (within
    `config.shell`) and those seen from this very place compete, and the one whose view differs
    least wins: angle + |log scale| + weighted sub-cell offset, in steps of 1e-3, ties to the older.

    Args:
        memory: One memory.
        camera: t cameras with intrinsics of the h x w latent grid.
        grid_hw: (h, w).
        config: Conventions and selection; must be the memory's own.

    Returns:
        The read; see `MemoryRead` for units and for the values of empty cells.

    Raises:
        ValueError: If the memory does not fit the config or the camera is not a batch [t].
    """
    check_memory(memory, config, "read")
    memory = jax.tree.map(jnp.asarray, memory)
    if camera.cam_to_world.ndim != 3:
        raise ValueError(
            f"read: camera.cam_to_world has shape {list(camera.cam_to_world.shape)}, expected "
            "[t, 4, 4]; add a leading axis for a single camera."
        )
    frozen = jax.lax.stop_gradient(memory._replace(tokens=memory.positions))
    camera = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), camera)
    camera = jax.lax.stop_gradient(camera)
    views = _view_rows(frozen, camera, grid_hw, config)
    index = _choose_rows(frozen, views, camera, grid_hw, config)
    return _gather(memory, frozen, views, index, camera, grid_hw)


def _view_rows(
    memory: LatentMemory, camera: Camera, grid_hw: tuple[int, int], config: MemoryConfig
) -> _Views:
    """Project all rows into all cameras and find their cells."""
    height, width = grid_hw
    uv, depth = project(memory.positions, camera)
    corner = jnp.floor(uv) if config.half_cell else jnp.round(uv)
    u, v = corner[..., 0], corner[..., 1]
    # Compared as floats: a projection may be far too large for an integer.
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height) & (depth > 0) & used_rows(memory)
    cell = jnp.where(inside, v * width + u, -1.0).astype(jnp.int32)
    center = 0.5 if config.half_cell else 0.0
    return _Views(cell, depth, uv - corner - center)


def _choose_rows(
    memory: LatentMemory,
    views: _Views,
    camera: Camera,
    grid_hw: tuple[int, int],
    config: MemoryConfig,
) -> Int32[jax.Array, "t m"]:
    """Return the winning row of each cell, -1 where none."""
    num_cells = grid_hw[0] * grid_hw[1]
    rasterize = jax.vmap(lambda cell, depth: rasterize_cells(cell, depth, num_cells))
    nearest = rasterize(views.cell, views.depth)
    if config.select == "nearest":
        return nearest
    surface = jnp.where(nearest >= 0, jnp.take_along_axis(views.depth, nearest, axis=1), jnp.inf)
    surface = jnp.take_along_axis(surface, jnp.maximum(views.cell, 0), axis=1)
    center = camera_center(camera)[:, None]
    moved = jnp.linalg.norm(memory.origin - center, axis=-1)
    candidate = views.depth <= (1 + config.shell) * surface
    candidate |= moved <= config.same_place * memory.depth
    angle = _angle_between(memory.positions - memory.origin, memory.positions - center)
    difference = angle + jnp.abs(_log_ratio(memory.depth, views.depth))
    difference += config.offset_weight * jnp.linalg.norm(views.offset, axis=-1)
    # The rasterizer wants positive values; integers up to 2**24 are exact in float32.
    rank = 1 + jnp.round(difference / _VIEW_RESOLUTION)
    return rasterize(jnp.where(candidate, views.cell, -1), rank)


def _gather(
    memory: LatentMemory,
    frozen: LatentMemory,
    views: _Views,
    index: Int32[jax.Array, "t m"],
    camera: Camera,
    grid_hw: tuple[int, int],
) -> MemoryRead:
    """Collect the fields of the winning rows and lay them out as grids."""
    visible = index >= 0
    row = jnp.maximum(index, 0)

    def grid(values: jax.Array) -> jax.Array:
        mask = visible.reshape(visible.shape + (1,) * (values.ndim - 2))
        values = jnp.where(mask, values, jnp.zeros((), values.dtype))
        return values.reshape(index.shape[0], *grid_hw, *values.shape[2:])

    depth = jnp.take_along_axis(views.depth, row, axis=1)
    position, center = frozen.positions[row], camera_center(camera)[:, None]
    newest = jnp.max(jnp.where(used_rows(frozen), frozen.time, jnp.iinfo(jnp.int32).min))
    return MemoryRead(
        tokens=grid(memory.tokens[row]),
        visibility=grid(visible),
        depth=grid(depth),
        index=jnp.where(visible, index, -1).reshape(index.shape[0], *grid_hw),
        offset=grid(jnp.take_along_axis(views.offset, row[..., None], axis=1)),
        scale=grid(_log_ratio(frozen.depth[row], depth)),
        angle=grid(_angle_between(position - frozen.origin[row], position - center)),
        age=grid(newest - frozen.time[row]),
    )


def _angle_between(
    first: Float[jax.Array, "*batch 3"], second: Float[jax.Array, "*batch 3"]
) -> Float[jax.Array, "*batch"]:
    """Return the angle in radians from the chord, which is accurate near 0 where arccos is not."""
    chord = jnp.linalg.norm(_unit(first) - _unit(second), axis=-1)
    return 2 * jnp.arcsin(jnp.minimum(chord / 2, 1.0))


def _unit(vector: Float[jax.Array, "*batch 3"]) -> Float[jax.Array, "*batch 3"]:
    """Return the vector at length 1; zero stays zero."""
    return vector / jnp.maximum(jnp.linalg.norm(vector, axis=-1, keepdims=True), 1e-20)


def _log_ratio(
    seen: Float[jax.Array, "*batch"], now: Float[jax.Array, "*batch"]
) -> Float[jax.Array, "*batch"]:
    """Return log(seen / now), and 0 where either is not positive."""
    usable = (seen > 0) & (now > 0)
    return jnp.log(jnp.where(usable, seen, 1.0)) - jnp.log(jnp.where(usable, now, 1.0))
