"""Reference frames of a chunk: past latent frames that see the same place, shown to the denoiser.

They are chosen on the host from the memory's rows and the cameras (`memory/overlap.py`), so a
rollout needs to keep nothing for them but its latents. Rollouts that run side by side may have
different numbers of them; those with equal numbers are sampled together.
Read next: `mirage_jax/rollout/loop.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mirage_jax import world_model
from mirage_jax.geometry.camera import Camera
from mirage_jax.memory.overlap import best_views, view_overlaps
from mirage_jax.memory.rows import positions_in_order
from mirage_jax.memory.state import LatentMemory
from mirage_jax.rollout.chunk import References
from mirage_jax.rollout.world import WorldSpec

Sample = Callable[[world_model.ChunkInputs, Any], Any]


def choose_references(
    spec: WorldSpec, memory: LatentMemory, history: Camera, targets: Camera
) -> References:
    """Choose the past latent frames to show to a chunk.

    Args:
        spec: `chunk.references` says how many, and what counts as overlap.
        memory: stacked memories [b] before the chunk.
        history: [b, m] cameras of all latent frames so far, intrinsics in cells.
        targets: [b, T] cameras of the chunk's latent frames, likewise.

    Returns:
        For each rollout the chosen latent frames, best first.
    """
    config = spec.chunk.references
    chosen = []
    for row in range(len(memory.order)):
        one = memory._replace(order=memory.order[row], positions=memory.positions[row])
        overlaps = view_overlaps(
            positions_in_order(one),
            Camera(*(leaf[row] for leaf in history)),
            Camera(*(leaf[row] for leaf in targets)),
            spec.grid_hw,
            config.voxel_size,
        )
        chosen.append(best_views(overlaps, config.most, config.threshold))
    return tuple(chosen)


def sample_with_references(
    sample: Sample,
    inputs: world_model.ChunkInputs,
    noise: Float[Array, "b t h w c"],
    latents: Float[np.ndarray, "b l h w c"],
    references: References,
) -> Float[Array, "b t h w c"]:
    """Sample the latents of a chunk, rollouts with equally many references together.

    Args:
        sample: (inputs, noise) -> latents.
        inputs: of the whole batch, without references.
        noise: of the whole batch.
        latents: all latent frames so far.
        references: from `choose_references`.
    """
    counts = np.array([len(frames) for frames in references])
    if not counts.any():
        return sample(inputs, noise)
    parts, order = [], []
    for count in np.unique(counts):
        rows = np.flatnonzero(counts == count)
        some = jax.tree.map(lambda leaf, rows=rows: leaf[rows], inputs)
        if count:
            shown = np.stack([latents[row, list(references[row])] for row in rows])
            some = some._replace(references=jnp.asarray(shown))
        parts.append(sample(some, noise[rows]))
        order.append(rows)
    return jnp.concatenate(parts)[np.argsort(np.concatenate(order))]
