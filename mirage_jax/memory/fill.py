"""Fill the holes of a read from the cells around them: the hole-filled read.

`fill_holes` fills everything: an honest baseline (it invents nothing) and the value the denoiser
starts from; it knows nothing of depth, so it fills across edges. `close_holes` closes only the gaps
between rows of one surface, which open where a camera comes nearer than the rows were seen from.

Conventions: grids are [..., h, w, c], masks True where a value is known.

Read next: `mirage_jax/memory/read.py`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

# Known neighbours that make a hole a gap in a surface, not the surface's outer edge.
_FEWEST_NEIGHBOURS = 3


def fill_holes(
    tokens: Float[jax.Array, "*batch h w c"], visibility: Bool[jax.Array, "*batch h w"]
) -> Float[jax.Array, "*batch h w c"]:
    """Keep the known cells and give each hole a smooth average of the nearest known ones.

    Push-pull: halve the grid, averaging known cells, until one cell is left; then go back up,
    taking the bilinearly enlarged coarser level wherever the finer one knows nothing.

    Args:
        tokens: Read tokens; the values in holes are ignored, non-finite ones included.
        visibility: True where a token is known.

    Returns:
        Tokens of the same shape and type: known cells bit-exact, holes filled; all zero where a
        grid has no known cell.
    """
    known = visibility[..., None]
    values = jnp.where(known, tokens, jnp.zeros((), tokens.dtype)).astype(jnp.float32)
    return jnp.where(known, tokens, _fill(values, known).astype(tokens.dtype))


def close_holes(
    tokens: Float[jax.Array, "*batch h w c"],
    depth: Float[jax.Array, "*batch h w"],
    visibility: Bool[jax.Array, "*batch h w"],
    shell: float,
) -> tuple[
    Float[jax.Array, "*batch h w c"], Float[jax.Array, "*batch h w"], Bool[jax.Array, "*batch h w"]
]:
    """Give holes whose known neighbours lie on one surface the mean of those neighbours.

    A hole is closed if three or more of the eight cells around it are known and their depths lie
    within `shell` of each other, relative. Nothing is filled across a depth edge, and no cell that
    is known changes.

    Args:
        tokens: Read tokens, 0 in holes.
        depth: z-depth of the cells, scene units, 0 in holes.
        visibility: True where a row was found.
        shell: Largest relative range of depths on one surface.

    Returns:
        Tokens and depth with the closed holes, and True for the cells that were closed.
    """
    known = visibility[..., None]
    values = jnp.where(known, tokens, jnp.zeros((), tokens.dtype)).astype(jnp.float32)
    count, near, far, total, depths = (jnp.asarray(start) for start in (0, jnp.inf, 0.0, 0.0, 0.0))
    for down in range(3):
        for right in range(3):
            seen = _shift(visibility, down, right)
            away = _shift(jnp.where(visibility, depth, 0.0), down, right)
            count = count + seen
            near = jnp.minimum(near, jnp.where(seen, away, jnp.inf))
            far = jnp.maximum(far, away)
            depths = depths + away
            total = total + _shift(values, down, right, trailing=1)
    closed = ~visibility & (count >= _FEWEST_NEIGHBOURS) & (far <= (1 + shell) * near)
    share = jnp.where(closed, 1.0 / jnp.maximum(count, 1), 0.0)
    mean = (total * share[..., None]).astype(tokens.dtype)
    tokens = jnp.where(closed[..., None], mean, tokens)
    return tokens, jnp.where(closed, depths * share, depth), closed


def _shift(grid: jax.Array, down: int, right: int, trailing: int = 0) -> jax.Array:
    """Return what stands one cell off (0, 1 or 2 from the window's corner), 0 past the edge."""
    leading = grid.ndim - 2 - trailing
    pad = [(0, 0)] * leading + [(1, 1), (1, 1)] + [(0, 0)] * trailing
    height, width = grid.shape[leading : leading + 2]
    rows, columns = slice(down, down + height), slice(right, right + width)
    window = (slice(None),) * leading + (rows, columns)
    return jnp.pad(grid, pad)[window]


def _fill(
    values: Float[jax.Array, "*batch h w c"], known: Bool[jax.Array, "*batch h w 1"]
) -> Float[jax.Array, "*batch h w c"]:
    """Fill one level from the next coarser one, recursively; unknown values come in as zero."""
    height, width = values.shape[-3:-1]
    if height == 1 and width == 1:
        return values
    weight = _sum_quads(known.astype(values.dtype))
    coarse = _fill(_sum_quads(values) / jnp.maximum(weight, 1.0), weight > 0)
    finer = (*values.shape[:-3], 2 * coarse.shape[-3], 2 * coarse.shape[-2], values.shape[-1])
    enlarged = jax.image.resize(coarse, finer, "linear")[..., :height, :width, :]
    return jnp.where(known, values, enlarged)


def _sum_quads(grid: Float[jax.Array, "*batch h w k"]) -> Float[jax.Array, "*batch i j k"]:
    """Return the sum of each 2x2 block; an odd grid is padded with zeros first."""
    height, width, channels = grid.shape[-3:]
    pad = [(0, 0)] * (grid.ndim - 3) + [(0, height % 2), (0, width % 2), (0, 0)]
    grid = jnp.pad(grid, pad)
    half = (grid.shape[-3] // 2, grid.shape[-2] // 2)
    blocks = grid.reshape(*grid.shape[:-3], half[0], 2, half[1], 2, channels)
    return blocks.sum((-4, -2))
