"""Which cells of a write stand where something else was seen, and are kept out of memory.

A moving thing that is remembered comes back as a ghost. Two witnesses tell, without any model of
what moves: the other frames of the same write (see `geometry/free_space.py`), and the memory
itself, where a row was seen from close to the ray on which the new cell lies: then it was seen
*through* the place of the new cell. Mere disagreement with the memory is no proof: a wall that
comes into view hides rows behind it.

Conventions: depth is z-depth on the latent grid; 0, negative and non-finite are unknown.

Read next: `write.py`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.free_space import views_through
from mirage_jax.geometry.projection import camera_rays, unproject
from mirage_jax.memory.config import MemoryConfig
from mirage_jax.memory.read import MemoryRead

# A ray passes a cell's place within this many cells of its centre.
_NEAR_RAY = 1.0


def moved_between(
    depth: Float[jax.Array, "t h w"], camera: Camera, config: MemoryConfig
) -> Bool[jax.Array, "t h w"]:
    """Return True for cells whose place another of the frames looked through.

    Args:
        depth: z-depth of the cells, scene units.
        camera: t cameras with intrinsics of the h x w grid.
        config: `moved_margin` and `moved_views`.
    """
    points = unproject(depth, camera, config.half_cell).reshape(-1, 3)
    count = views_through(points, camera, depth, config.moved_margin)
    return (count >= config.moved_views).reshape(depth.shape) & _known(depth)


def moved_since(
    found: MemoryRead,
    depth: Float[jax.Array, "t h w"],
    camera: Camera,
    config: MemoryConfig,
) -> Bool[jax.Array, "t h w"]:
    """Return True for cells through whose place the memory's rows were seen.

    The row in a cell lies behind the cell's new depth d, at depth p. Where it was seen from, its
    ray passed the new place at a distance of about (p - d) * angle; that is to be within a cell.

    Args:
        found: What the memory shows to the cameras.
        depth: z-depth of the cells that might be written, scene units.
        camera: t cameras with intrinsics of the h x w grid.
        config: `moved_margin`.
    """
    ray = camera_rays(camera, (depth.shape[-2], depth.shape[-1]), config.half_cell)
    stretch = jnp.sqrt(jnp.sum(jnp.square(ray), axis=-1))
    behind = (found.depth - depth) * stretch
    focal = camera.intrinsics[..., 0, 0][..., None, None]
    passed = behind * jnp.sin(found.angle) <= _NEAR_RAY * depth / focal
    # The place lies between the row and where it was seen from.
    from_before = found.depth * jnp.exp(found.scale) * stretch >= behind
    farther = found.depth > depth * (1 + config.moved_margin)
    return found.visibility & farther & passed & from_before & _known(depth)


def _known(depth: Float[jax.Array, "t h w"]) -> Bool[jax.Array, "t h w"]:
    return jnp.isfinite(depth) & (depth > 0)
