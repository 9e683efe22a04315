"""Whether two reads show the same points, off the cases that rounding or equal depth decide.

A cell is a *tie* when the two winners' depths agree to 1e-5, and on an *edge* when a winner
projects within 1e-3 of a cell's border, where float32 may put it into either cell. Everything else
that differs is *wrong*.
"""

from typing import NamedTuple

import numpy as np

from benchmarks.memory.peers import View, project_points

_TIE, _EDGE = 1e-5, 1e-3


class Difference(NamedTuple):
    """Cells of 44x80 that differ, by cause."""

    ties: int
    edges: int
    wrong: int


def winners(tokens: object, mask: object) -> np.ndarray:
    """Return the number of the point that each cell shows, -1 for none: [cells]."""
    tokens, mask = np.asarray(tokens).reshape(-1, np.shape(tokens)[-1]), np.asarray(mask)
    return np.where(mask.reshape(-1), tokens[:, 0].astype(np.int64), -1)


def compare(first: np.ndarray, second: np.ndarray, positions: np.ndarray, view: View) -> Difference:
    """Classify the cells in which two reads show different points.

    Args:
        first: winners [cells] of one read, see `winners`.
        second: of the other.
        positions: [n, 3] of all points, world.
        view: the camera.
    """
    differs = np.flatnonzero(first != second)
    pair = np.stack([first[differs], second[differs]])
    uv, depth = project_points(positions[np.maximum(pair, 0).reshape(-1)], view)
    depth = np.where(pair >= 0, depth.reshape(2, -1), np.inf)
    border = np.abs(np.abs(uv - np.round(uv)) - 0.5).min(axis=1).reshape(2, -1)
    edge = ((border < _EDGE) & (pair >= 0)).any(axis=0)
    with np.errstate(invalid="ignore"):
        tie = np.abs(depth[0] - depth[1]) <= _TIE * depth[0]
    return Difference(
        ties=int((tie & ~edge).sum()), edges=int(edge.sum()), wrong=int((~tie & ~edge).sum())
    )
