"""Which rows of memory are drawn as patches where the cameras see them, and what they make.

A cell of the read shows one row. Where the camera has moved back, or a surface leans, several rows
fall into a cell, and the patches of the others are missing from the picture. So the placed read may
look at parts of cells: the memory is read once more on a grid that is finer by
`LearnedReadConfig.parts` each way and goes on around the view, and the row of every part is drawn.

Read next: `mirage_jax/models/patch_read.py` (how patches are drawn), `look.py`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mirage_jax.geometry.camera import Camera
from mirage_jax.memory import read, state
from mirage_jax.models import patch_path, patch_read
from mirage_jax.models.learned_read import exactness
from mirage_jax.world_model.parts import Params, WorldConfigLike
from mirage_jax.world_model.shares import read_all


def place(
    config: WorldConfigLike,
    params: Params,
    found: read.MemoryRead,
    filled: Any,
    features: Any,
    rows: patch_read.Placed | None = None,
) -> Float[Array, "b t h w c"]:
    """Return the read with patches placed where they are seen; exact cells keep their token.

    Args:
        config: see `WorldConfigLike`.
        params: parameters of the models; "codec" or "learned_read" is used.
        found: what memory showed.
        filled: its tokens with holes filled.
        features: from `memory.features.read_features`.
        rows: from `rows_to_place`; None draws those of `found`.
    """
    rows = rows_to_place(found) if rows is None else rows
    path = patch_path.of(config, params)
    placed = patch_read.place_patches(config.codec.spatial_stride, path, rows, filled)
    if config.learned_read is not None and config.learned_read.keeps:
        near = exactness(features, config.learned_read.keeps)[..., None]
        placed = placed + near * path.unsaid(filled)
    exact = exactness(features)[..., None]
    return exact * filled + (1.0 - exact) * placed


def rows_to_place(found: read.MemoryRead, parts: int = 1) -> patch_read.Placed:
    """Return the rows of a read [b, t, parts * h, parts * w] as parts * parts rows of each cell.

    Args:
        found: a read on a grid `parts` times as fine as that of the cells.
        parts: of a cell, each way.

    Returns:
        Rows [parts * parts, b, t, h, w, ...], offsets and axes in cells.
    """
    rows = []
    finer = np.array([1 / parts, 1 / parts, 1.0], np.float32)[:, None]
    for i, j in np.ndindex(parts, parts):
        cut = jax.tree.map(lambda leaf, i=i, j=j: leaf[:, :, i::parts, j::parts], found)
        corner = (np.array([j, i], np.float32) + 0.5) / parts - 0.5
        rows.append(
            patch_read.Placed(
                tokens=cut.tokens,
                visibility=cut.visibility,
                offset=cut.offset / parts + corner,
                axes=cut.axes * finer,
                depth=cut.depth,
            )
        )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


def read_rows(
    config: WorldConfigLike,
    memory: state.LatentMemory,
    cameras: Camera,
    found: read.MemoryRead,
) -> patch_read.Placed:
    """Return the rows to draw: of the parts of cells where the learned read looks at them.

    Then the grid goes on around the view by `patch_read.MARGIN` cells, since patches reach in.

    Args:
        config: see `WorldConfigLike`.
        memory: stacked memories [b].
        cameras: [b, n] of the first n of the frames of `found`; the others are not read again.
        found: what memory showed to all frames, one row a cell.
    """
    parts, count = config.learned_read.parts, cameras.cam_to_world.shape[1]
    if parts == 1 or not count:
        return rows_to_place(found)
    margin = patch_read.MARGIN
    height, width = (parts * (size + 2 * margin) for size in found.depth.shape[-2:])
    rules = dataclasses.replace(config.memory, close_holes=False)
    scale = np.array([parts, parts, 1.0], np.float32)[:, None]
    corner = np.zeros((3, 3), np.float32)
    corner[:2, 2] = parts * margin
    finer = cameras._replace(intrinsics=cameras.intrinsics * scale + corner)
    rows = rows_to_place(read_all(memory, finer, (height, width), rules), parts)
    others = rows_to_place(jax.tree.map(lambda leaf: leaf[:, count:], found))
    absent = [(0, parts * parts - 1), (0, 0), (0, 0), (margin, margin), (margin, margin)]
    others = jax.tree.map(lambda leaf: jnp.pad(leaf, absent + [(0, 0)] * (leaf.ndim - 5)), others)
    return jax.tree.map(lambda *pair: jnp.concatenate(pair, axis=2), rows, others)
