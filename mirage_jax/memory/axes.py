"""How rows lie: the two steps along the cell that a row was, kept small, and seen from a camera.

A row may keep where one cell to the right and one down of its own picture lead in the world,
divided by the depth it was seen at (`geometry/cell_axes.py`): six half-precision numbers, two to a
32-bit word, laid out like positions. From another camera they say in which parallelogram its patch
is seen. All zero means that a row does not know.

Read next: `read.py`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float, UInt32

from mirage_jax.geometry.camera import Camera


def pack_axes(axes: Float[jax.Array, "*m 3 2"]) -> UInt32[jax.Array, "*m 3"]:
    """Round steps to half precision and put the two of each axis of the world into one word."""
    halves = jax.lax.bitcast_convert_type(axes.astype(jnp.float16), jnp.uint16).astype(jnp.uint32)
    return halves[..., 0] | (halves[..., 1] << 16)


def unpack_axes(words: UInt32[jax.Array, "*m 3"]) -> Float[jax.Array, "*m 3 2"]:
    """Return the steps that `pack_axes` put away, in single precision."""
    halves = jnp.stack([words & 0xFFFF, words >> 16], axis=-1).astype(jnp.uint16)
    return jax.lax.bitcast_convert_type(halves, jnp.float16).astype(jnp.float32)


def seen_axes(
    axes: Float[jax.Array, "t h w 3 2"],
    position: Float[jax.Array, "3 t h w"],
    scale: Float[jax.Array, "t h w"],
    camera: Camera,
) -> Float[jax.Array, "t h w 3 2"]:
    """Return where the steps along rows lead in the pictures of t cameras.

    Args:
        axes: Steps in the world over the depth stored; all zero where a row does not know.
        position: World points of the rows.
        scale: log of the depth stored over the depth now.
        camera: t cameras with intrinsics of the h x w grid.

    Returns:
        Columns, lines (both in cells) and log depth, for a step to the right and one down. A row
        that does not know faces the camera upright: exp(scale) cells each way.
    """
    pose, matrix = camera.cam_to_world, camera.intrinsics
    turn = pose[:, :3, :3]
    local = jnp.einsum("tab,thwac->thwbc", turn, axes, precision="highest")
    local = local * jnp.exp(scale)[..., None, None]
    offset = jnp.moveaxis(position, 0, -1) - pose[:, None, None, :3, 3]
    place = jnp.einsum("tab,thwa->thwb", turn, offset, precision="highest")
    ray = place[..., :2] / jnp.where(place[..., 2:] > 0, place[..., 2:], 1.0)
    along = local[..., :2, :] - ray[..., None] * local[..., 2:, :]
    cells = jnp.einsum("tab,thwbc->thwac", matrix[:, :2, :2], along, precision="highest")
    seen = jnp.concatenate([cells, local[..., 2:, :]], axis=-2)
    unknown = jnp.all(axes == 0, axis=(-2, -1))[..., None, None]
    return jnp.where(unknown, facing(scale), seen)


def facing(scale: Float[jax.Array, "*n h w"]) -> Float[jax.Array, "*n h w 3 2"]:
    """Return the axes of rows that face the camera upright, exp(scale) cells each way."""
    return jnp.exp(scale)[..., None, None] * jnp.eye(3, 2)
