"""Named sizes of the points rasterizer, shared by tests and benchmarks.

Each case says how many rows a scene holds, where they lie, and which cameras look at it. Rows are
packed into pages along a Morton curve, as a memory packs what it writes. Plain NumPy.

Read next: `tests/ops/test_rasterize_points.py`.
"""

import dataclasses
from typing import Any, Literal

import numpy as np

from mirage_jax.geometry.camera import Camera
from mirage_jax.ops.rasterize_points.pages import EMPTY, CellGrid, Pages

# Depth range of the scenes, scene units.
_NEAR, _FAR = 0.2, 20.0


@dataclasses.dataclass(frozen=True)
class ArgSpec:
    """One named case.

    Attributes:
        num_rows: Rows of the scene.
        hw: Cells of the grid.
        num_views: Cameras t; the first looks straight at the scene, the others from beside it.
        layout: "volume" fills the first camera's pyramid evenly, so that near rows hide far ones;
            "surface" puts all rows on one slanted wall, so that nothing is hidden; "shell" puts
            them on a far wall with a near one that leaves a hole; "lattice" puts them on few
            distinct places, so that depths tie.
        page_rows: Rows P of a page.
        bad_fraction: Share of rows whose position is NaN or infinite.
        rounding: As in `CellGrid`.
    """

    num_rows: int
    hw: tuple[int, int] = (44, 80)
    num_views: int = 1
    layout: Literal["volume", "surface", "shell", "lattice"] = "volume"
    page_rows: int = 256
    bad_fraction: float = 0.0
    rounding: Literal["floor", "nearest_even"] = "floor"


SPECS = {
    "no_rows": ArgSpec(0, (3, 4), page_rows=8),
    "one_row": ArgSpec(1, (1, 1), page_rows=8),
    "all_bad": ArgSpec(40, (3, 4), page_rows=8, bad_fraction=1.0),
    "ties": ArgSpec(700, (5, 7), 2, "lattice", 32, 0.1),
    "tiny_train": ArgSpec(1500, (12, 16), 3, "volume", 64, 0.05),
    "release_rounding": ArgSpec(3000, (11, 20), 2, "volume", 64, 0.05, "nearest_even"),
    "wall": ArgSpec(4000, (17, 30), 2, "surface", 128),
    "hole": ArgSpec(6000, (17, 30), 3, "shell", 64),
    "large_pages": ArgSpec(1200, (5, 7), 1, "volume", 512, 0.1),
    "rows_1e4": ArgSpec(10_000),
    "rows_1e5": ArgSpec(100_000),
    "rows_1e6": ArgSpec(1_000_000),
    "rows_1e7": ArgSpec(10_000_000),
    "surface_1e6": ArgSpec(1_000_000, layout="surface"),
    "shell_1e6": ArgSpec(1_000_000, layout="shell"),
    "chunk_1e4": ArgSpec(10_000, num_views=9),
    "chunk_1e5": ArgSpec(100_000, num_views=9),
    "chunk_1e6": ArgSpec(1_000_000, num_views=9),
    "chunk_1e7": ArgSpec(10_000_000, num_views=9),
}


def make_arguments(spec: ArgSpec, seed: int = 0) -> tuple[Pages, Camera, CellGrid]:
    """Return random (pages, camera, grid) of a case as NumPy arrays, the same for the same seed."""
    rng = np.random.default_rng(seed)
    grid = CellGrid(*spec.hw, rounding=spec.rounding)
    points = _points(spec, rng)
    bad = rng.random(spec.num_rows) < spec.bad_fraction
    points[bad, rng.integers(0, 3, bad.sum())] = rng.choice([np.nan, np.inf, -np.inf], bad.sum())
    order = rng.permutation(spec.num_rows).astype(np.int32)
    return pack_pages(points, order, spec.page_rows), _cameras(spec, rng), grid


def pack_pages(points: Any, order: Any, page_rows: int) -> Pages:
    """Sort n rows along a Morton curve and cut them into pages with bounds.

    Args:
        points: [n, 3] world points; those that are not finite go to the end.
        order: [n] int32.
        page_rows: Rows P of a page.
    """
    finite = np.isfinite(points).all(axis=1)
    along = np.lexsort((np.arange(len(points)), _morton(points, finite)))
    num_pages = -(-len(points) // page_rows)
    table = np.full((num_pages * page_rows, 3), np.float32(np.nan), np.float32)
    orders: Any = np.full(num_pages * page_rows, EMPTY, np.int32)
    table[: len(points)], orders[: len(points)] = points[along], order[along]
    paged = table.reshape(num_pages, page_rows, 3)
    usable = np.isfinite(paged).all(axis=-1, keepdims=True)
    low = np.where(usable, paged, np.inf).min(axis=1, initial=np.inf)
    high = np.where(usable, paged, -np.inf).max(axis=1, initial=-np.inf)
    positions: Any = np.ascontiguousarray(paged.transpose(0, 2, 1))
    bounds: Any = np.stack([low, high], axis=1)
    return Pages(positions, orders.reshape(num_pages, page_rows), bounds)


def _morton(points: np.ndarray, finite: np.ndarray) -> np.ndarray:
    """Return the place of each point on a Morton curve of 1024 steps a side; bad points last."""
    safe = np.where(finite[:, None], points, 0.0)
    low, high = (f(safe, axis=0, initial=0.0) for f in (np.min, np.max))
    step = ((safe - low) / np.maximum(np.max(high - low), 1e-9) * 1023).astype(np.int64)
    key = np.zeros(len(points), np.int64)
    for bit in range(10):
        for axis in range(3):
            key |= ((step[:, axis] >> bit) & 1) << (3 * bit + axis)
    return np.where(finite, key, np.int64(1) << 40)


def _points(spec: ArgSpec, rng: np.random.Generator) -> np.ndarray:
    """Return [n, 3] points in front of the first camera, which stands at the origin."""
    n, (height, width) = spec.num_rows, spec.hw
    focal = 0.6 * width
    u = rng.uniform(0, width, n)
    v = rng.uniform(0, height, n)
    if spec.layout == "volume":
        depth = np.cbrt(rng.uniform(_NEAR**3, _FAR**3, n))
    elif spec.layout == "surface":
        depth = 6.0 + 4.0 * u / width
    elif spec.layout == "shell":
        hole = np.hypot(u - width / 2, v - height / 2) < height / 4
        depth = np.where(hole | (rng.random(n) < 0.5), 15.0 + rng.random(n), 3.0 + rng.random(n))
    else:
        depth = rng.choice([1.0, 2.0, 4.0], n)
        u, v = np.floor(u) + 0.5, np.floor(v) + 0.5
    x, y = (u - width / 2) / focal * depth, (v - height / 2) / focal * depth
    return np.stack([x, y, depth], axis=1).astype(np.float32)


def _cameras(spec: ArgSpec, rng: np.random.Generator) -> Camera:
    """Return t cameras, the first at the origin, the others a little aside and turned."""
    height, width = spec.hw
    to_world = np.tile(np.eye(4, dtype=np.float32), (spec.num_views, 1, 1))
    for view in range(1, spec.num_views):
        turn = rng.uniform(-0.4, 0.4)
        to_world[view, :3, 3] = rng.uniform(-0.5, 0.5, 3)
        to_world[view, 0, [0, 2]] = np.cos(turn), np.sin(turn)
        to_world[view, 2, [0, 2]] = -np.sin(turn), np.cos(turn)
    lens = [[0.6 * width, 0, width / 2], [0, 0.6 * width, height / 2], [0, 0, 1]]
    return Camera(to_world, np.tile(np.asarray(lens, np.float32), (spec.num_views, 1, 1)))
