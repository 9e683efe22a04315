"""What models are told of a read: numbers that say how its rows were seen, one grid a camera.

Conventions: leading axes are free; all features are 0 in empty cells. Offsets in cells, scale as
log of depth stored over depth now, angle in radians. Read next: `mirage_jax/memory/read.py`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from mirage_jax.memory.read import MemoryRead


def read_features(found: MemoryRead) -> Float[jax.Array, "*batch h w 6"]:
    """Stack what the learned read is told of a read.

    Visibility, how its rows were seen, and log depth.
    """
    seen = found.visibility[..., None]
    log_depth = jnp.where(seen, jnp.log(jnp.where(seen, found.depth[..., None], 1.0)), 0.0)
    return jnp.concatenate([seen.astype(log_depth.dtype), read_geometry(found), log_depth], axis=-1)


def read_geometry(found: MemoryRead) -> Float[jax.Array, "*batch h w 4"]:
    """Stack how the winning rows were seen.

    Sub-cell offset (2), log scale ratio, angle in radians.
    """
    return jnp.concatenate([found.offset, found.scale[..., None], found.angle[..., None]], axis=-1)
