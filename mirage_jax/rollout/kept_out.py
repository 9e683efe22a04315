"""What each write of a rollout kept out of memory, counted by reason.

Reasons are asked in the order of `WriteCounts` and each cell counts for the first that holds, but
for moving things, of which the memory itself decides (`mirage_jax/memory/moved.py`).
Read next: `mirage_jax/memory/write.py`.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mirage_jax import world_model
from mirage_jax.geometry.depth import edge_validity
from mirage_jax.memory.write import WriteReport
from mirage_jax.rollout.world import WorldSpec

Counts = Int[Any, " b"]


class WriteCounts(NamedTuple):
    """Cells of one write, by what became of them; each [b].

    Attributes:
        cells: of the frames written.
        invalid_depth: unknown depth, or depth that did not fit what memory holds.
        mask: a mask says that they move.
        sky: as far as the sky, where the world does not remember it.
        edge: depth is not continuous around them, where the memory asks for that.
        moved: they stand where another view looked through.
        seen: memory showed them already, or their voxel has a better row.
        written: rows that are now in memory.
        dropped: there was no room.
    """

    cells: Counts
    invalid_depth: Counts
    mask: Counts
    sky: Counts
    edge: Counts
    moved: Counts
    seen: Counts
    written: Counts
    dropped: Counts

    def of(self, index: int) -> dict[str, int]:
        """Return the counts of one rollout of the batch."""
        return {name: int(np.asarray(count)[index]) for name, count in self._asdict().items()}


REASONS = ("invalid_depth", "mask", "sky", "edge", "moved")


@functools.partial(jax.jit, static_argnums=0)
def count_write(
    spec: WorldSpec,
    depth: Float[Array, "b t h w"],
    keep: Bool[Array, "b t h w"],
    wanted: Bool[Array, " t"],
    report: WriteReport,
) -> WriteCounts:
    """Count the cells of a write by what became of them.

    Args:
        spec: the world, with its rules of writing.
        depth: of the cells, as it was written.
        keep: masks alone: False where something moves.
        wanted: which of the frames were written.
        report: of the memory.
    """
    known = jnp.isfinite(depth) & (depth > 0)
    left = jnp.broadcast_to(wanted[:, None, None], depth.shape)
    reasons: list[tuple[str, Any]] = [("invalid_depth", ~known), ("mask", ~keep)]
    if spec.chunk.write.sky == "unknown":
        reasons.append(("sky", world_model.sky_cells(spec, depth)))
    if spec.memory.edge_window:
        window, most = spec.memory.edge_window, spec.memory.edge_range
        reasons.append(("edge", ~edge_validity(depth, window, most)))
    cells = jnp.sum(left, axis=(1, 2, 3))
    counts = {"sky": jnp.zeros_like(cells), "edge": jnp.zeros_like(cells)}
    for name, held in reasons:
        counts[name] = jnp.sum(left & held, axis=(1, 2, 3))
        left = left & ~held
    return WriteCounts(
        cells=cells,
        moved=report.moved,
        seen=report.merged,
        written=report.written,
        dropped=report.dropped,
        **counts,
    )


def kept_out_text(counts: WriteCounts | None, index: int = 0) -> str:
    """Say which reasons kept how many cells of a write out; "" where none did."""
    found = {} if counts is None else counts.of(index)
    parts = [f"{name}:{found[name]}" for name in REASONS if found.get(name)]
    return f" kept_out={','.join(parts)}" if parts else ""
