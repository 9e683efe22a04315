"""The memory under the release's conventions against what the release wrote and read.

Cells are compared exactly, but for those that float32 may decide either way: a row projects within
1e-4 of the cell's edge, or the two nearest rows of the cell are equally far to within 1e-5.
"""

from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from mirage_jax.geometry.camera import Camera, rescale_intrinsics
from mirage_jax.geometry.depth import resize_depth, resize_mask
from mirage_jax.memory import read, state, write
from tests.golden.case import Line, relative_error
from tests.golden.release_files import arrays, grid_cameras
from tests.memory.slow_memory import slow_cells

POSITION_LIMIT = 1e-4
_DEPTH_TIE = 1e-5
# Float32 cannot decide more cells than this; if it seems to, the comparison would prove nothing.
_MOST_UNSURE = 0.1

_read = jax.jit(read.read, static_argnums=(2, 3))
_write = jax.jit(write.write, static_argnums=2)
_unproject_rows = jax.jit(write.unproject_rows, static_argnums=4)


def memory(directory: Path) -> Iterator[Line]:
    """Compare rows, and the reads before and after an update; bad depths and a mask included."""
    stored, clip = arrays(directory, "memory.npz"), arrays(directory, "geometry.npz")
    latents = stored["latents"].transpose(1, 2, 3, 0)
    hw = latents.shape[1:3]
    depth = clip["depths"][stored["idx"]].astype(np.float32)
    depth[0] = stored["depth0"]
    keep = np.ones(depth.shape, bool)
    # Other than in geometry.npz, the mask of this file is True where content is left out.
    keep[0] = ~stored["mask0"]
    camera = grid_cameras(directory, stored["idx"], hw)
    config = state.release_config(capacity=len(stored["points1"]), channels=latents.shape[-1])
    rows = _unproject_rows(
        latents, resize_depth(depth, hw), resize_mask(keep, hw), camera, config, 0
    )
    first = len(stored["points0"])
    errors = {
        "intrinsics": relative_error(camera.intrinsics[0], stored["K_latent"]),
        "first rows": relative_error(rows.positions[:first], stored["points0"]),
        "all rows": relative_error(rows.positions, stored["points1"]),
    }
    same = {
        "valid rows": np.array_equal(rows.keep, stored["valid1"])
        and np.array_equal(rows.keep[:first], stored["valid0"]),
        "tokens": np.array_equal(rows.tokens, stored["features1"]),
    }
    views = grid_cameras(directory, stored["views"], hw)
    memory = state.empty(config)
    for name, part in (("init", slice(None, first)), ("updated", slice(first, None))):
        memory, _ = _write(memory, jax.tree.map(lambda leaf, part=part: leaf[part], rows), config)
        tokens = stored[f"read_{name}"].transpose(0, 2, 3, 1)
        agrees = _read_agrees(memory, views, config, tokens, stored[f"readmask_{name}"])
        same[f"read {name}"] = agrees
    yield _line("memory", errors, same)


def memory_dense(directory: Path) -> Iterator[Line]:
    """Compare reads of full-size grids after several writes."""
    stored = arrays(directory, "memory_dense.npz")
    latents = stored["latents"].astype(np.float32).transpose(0, 2, 3, 1)
    hw = latents.shape[1:3]
    matrix = rescale_intrinsics(stored["K"], stored["depths"].shape[1:], hw)

    def cameras(frames):
        return Camera(stored["poses"][frames], np.tile(matrix, (len(frames), 1, 1)))

    depth = resize_depth(stored["depths"].astype(np.float32), hw)
    config = state.release_config(depth.size, latents.shape[-1])
    rows = _unproject_rows(
        latents, depth, np.ones(depth.shape, bool), cameras(stored["write_idx"]), config, 0
    )
    memory, _ = _write(state.empty(config), rows, config)
    tokens = stored["read"].astype(np.float32).transpose(0, 2, 3, 1)
    same = {
        "rows": int(memory.count) == int(stored["n_points"]),
        "read": _read_agrees(memory, cameras(stored["views"]), config, tokens, stored["mask"]),
    }
    yield _line("memory_dense", {}, same)


def _read_agrees(memory, cameras, config, tokens, visibility) -> bool:
    """Tell whether a read equals the stored one in every cell that float32 decides."""
    hw = visibility.shape[1:]
    found = _read(memory, cameras, hw, config)
    sure = ~np.stack([_unsure_cells(memory, cameras, i, hw) for i in range(len(visibility))])
    return bool(
        (~sure).mean() < _MOST_UNSURE
        and np.array_equal(np.asarray(found.visibility)[sure], visibility[sure])
        and np.array_equal(np.asarray(found.tokens)[sure], tokens[sure])
    )


def _unsure_cells(memory, cameras, frame: int, hw) -> np.ndarray:
    """Return True for the cells where float32 may choose another row than exact arithmetic."""
    cell, depth, unsure = slow_cells(memory, cameras, frame, hw, half_cell=False)
    order = np.lexsort((depth, cell))
    cell, depth = cell[order], depth[order]
    starts = np.flatnonzero(np.diff(cell, prepend=-2) != 0)
    second = np.minimum(starts + 1, len(cell) - 1)
    tie = (cell[second] == cell[starts]) & (second > starts)
    tie &= depth[second] - depth[starts] <= _DEPTH_TIE * np.abs(depth[starts])
    tied = cell[starts][tie]
    unsure.reshape(-1)[tied[tied >= 0]] = True
    return unsure


def _line(name: str, errors: dict[str, float], same: dict[str, bool]) -> Line:
    """Return one line: the worst error of positions, and the parts that are not equal."""
    differ = [part for part, equal in same.items() if not equal]
    differ += [part for part, error in errors.items() if error > POSITION_LIMIT]
    error = max(errors.values(), default=0.0)
    return Line(name, error, not differ, f"differs: {', '.join(differ)}" if differ else "")
