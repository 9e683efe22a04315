"""The public release's read, written from its description: what ours is timed against.

Every point is transformed and projected, rounded to its cell, points outside or behind are dropped,
the rest are sorted from far to near and their tokens assigned by index, so that the nearest is
written last. With several threads PyTorch does not promise that the last write stays; one thread
gives the right picture, two are faster and wrong in places. Both are timed.

Read next: `read_speed.py`.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

from benchmarks.memory.scenes import GRID_HW
from mirage_jax.geometry.camera import Camera, world_to_cam

# Peer read: () -> (tokens [h, w, c], mask [h, w]) as NumPy arrays or torch tensors.
Read = Callable[[], tuple]


class View(NamedTuple):
    """One camera as the release takes it: world to camera and intrinsics of the grid."""

    world_to_cam: np.ndarray
    intrinsics: np.ndarray


def view_of(camera: Camera) -> View:
    """Return the matrices of the first camera of a batch."""
    return View(np.asarray(world_to_cam(camera))[0], np.asarray(camera.intrinsics)[0])


def make_peers(positions: np.ndarray, tokens: np.ndarray, camera: Camera) -> dict[str, Read]:
    """Return the peers that this environment can run, by name.

    "1 thread" and "2 threads" are the release's steps in PyTorch, "lean" the same with one gather
    of tokens less, on two threads. Without PyTorch there is "numpy" alone.
    """
    view = view_of(camera)
    if not find_spec("torch"):
        return {"numpy": lambda: read_numpy(positions, tokens, view)}
    return _torch_peers(positions, tokens, view)


def peer_name() -> str:
    """Name the library that the peers run on."""
    if not find_spec("torch"):
        return f"numpy {np.__version__}"
    import torch  # noqa: TID251

    return f"torch {torch.__version__}"


def read_numpy(
    positions: np.ndarray, tokens: np.ndarray, view: View, dtype: type = np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """Read by sorting in NumPy; in float64 this is the oracle.

    Equal depths go to the lower row, NumPy's assignment keeping the last of equal indices.
    """
    height, width = GRID_HW
    cell, depth = project_cells(positions, view, dtype)
    kept = np.flatnonzero(cell >= 0)
    kept = kept[np.argsort(depth[kept], kind="stable")[::-1]]
    grid = np.zeros((height * width, tokens.shape[1]), tokens.dtype)
    mask = np.zeros(height * width, bool)
    grid[cell[kept]] = tokens[kept]
    mask[cell[kept]] = True
    return grid.reshape(height, width, -1), mask.reshape(height, width)


def project_cells(
    positions: np.ndarray, view: View, dtype: type = np.float64
) -> tuple[np.ndarray, np.ndarray]:
    """Return the flat cell of each point (-1: none) and its depth."""
    uv, depth = project_points(positions, view, dtype)
    corner = np.round(uv)
    inside = (depth > 0) & (corner >= 0).all(axis=1) & (corner < GRID_HW[::-1]).all(axis=1)
    cell = np.where(inside, corner[:, 1] * GRID_HW[1] + corner[:, 0], -1)
    return cell.astype(np.int64), depth


def project_points(
    positions: np.ndarray, view: View, dtype: type = np.float64
) -> tuple[np.ndarray, np.ndarray]:
    """Return (u, v) [n, 2] and depth [n] of points."""
    matrix, intrinsics = view.world_to_cam.astype(dtype), view.intrinsics.astype(dtype)
    local = positions.astype(dtype) @ matrix[:3, :3].T + matrix[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        return (local @ intrinsics.T)[:, :2] / local[:, 2:], local[:, 2]


def _torch_peers(positions: np.ndarray, tokens: np.ndarray, view: View) -> dict[str, Read]:
    import torch  # noqa: TID251

    points, features = torch.from_numpy(positions), torch.from_numpy(tokens)
    matrix, intrinsics = (torch.from_numpy(part.copy()) for part in view)
    height, width = GRID_HW

    def project() -> tuple:
        local = points @ matrix[:3, :3].T + matrix[:3, 3]
        depth = local[:, 2]
        u, v = ((local @ intrinsics.T)[:, :2] / depth[:, None]).round().long().unbind(-1)
        return u, v, depth, (depth > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)

    def release() -> tuple:
        u, v, depth, kept = project()
        u, v, depth, seen = u[kept], v[kept], depth[kept], features[kept]
        order = depth.argsort(descending=True)
        grid = torch.zeros(height, width, features.shape[1])
        mask = torch.zeros(height, width, dtype=torch.bool)
        grid[v[order], u[order]] = seen[order]
        mask[v, u] = True
        return grid, mask

    def lean() -> tuple:
        u, v, depth, kept = project()
        kept = kept.nonzero()[:, 0]
        kept = kept[depth[kept].argsort(descending=True)]
        cell = (v * width + u)[kept]
        grid = torch.zeros(height * width, features.shape[1])
        mask = torch.zeros(height * width, dtype=torch.bool)
        grid[cell], mask[cell] = features[kept], True
        return grid.reshape(height, width, -1), mask.reshape(height, width)

    def on(threads: int, read: Read) -> Read:
        def run() -> tuple:
            torch.set_num_threads(threads)
            return read()

        return run

    return {"1 thread": on(1, release), "2 threads": on(2, release), "lean": on(2, lean)}
