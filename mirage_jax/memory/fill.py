"""Fill the holes of a read from the cells around them: the hole-filled read.

An honest baseline (it invents nothing) and the value the denoiser starts from. Conventions: grids
are [..., h, w, c], masks True where a value is known. Nothing is known about depth here, so a hole
may be filled across an edge.

Read next: `mirage_jax/memory/read.py`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float


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
