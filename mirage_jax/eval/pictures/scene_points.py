"""Points of a scene to draw cameras over: from depth, point clouds, or a reconstruction.

Positions are scene units in the world of the cameras; colours 0..255. Read next: `camera_view.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mirage_jax.geometry.camera_files import colmap_binary, colmap_text, load_geometry
from mirage_jax.geometry.camera_files.npz import array_names, read_npy
from mirage_jax.geometry.projection import unproject

# More dots than this only make a picture slower.
MOST_POINTS = 40_000
_FRAMES_OF_A_CLIP = 6
_GREY = 140.0
_PLY_HEADER_BYTES = 1 << 16
# Farther than so many times the median is sky.
_SKY = 20.0

Points = tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]


def load_points(path: Path) -> Points:
    """Return positions and colours of the points in a file.

    Args:
        path: geometry.npz (its depth is unprojected), .ply, .npy [n, 3] or [n, 6], points3D.txt or
            points3D.bin of COLMAP, or a folder that holds one of these two.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or no points in it.
    """
    for name in ("points3D.bin", "points3D.txt"):
        if path.is_dir() and (path / name).is_file():
            path = path / name
            break
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of points. Check the path.")
    kind = path.suffix.lower()
    if kind == ".ply":
        points, colors = _from_ply(path)
    elif path.name == "points3D.bin":
        points, colors = _thinned(colmap_binary.points_binary(path))
    elif path.name == "points3D.txt":
        points, colors = _thinned(colmap_text.points_text(path))
    elif kind == ".npy":
        points, colors = _from_array(read_npy(path), path)
    elif kind == ".npz" and "depths" in array_names(path):
        points, colors = _from_geometry(path)
    else:
        raise ValueError(
            f"{path}: not a file of points: expected geometry.npz, .ply, .npy, points3D.txt or "
            "points3D.bin."
        )
    good = np.isfinite(points).all(axis=1)
    if not good.any():
        raise ValueError(f"{path}: there are no points in it.")
    chosen = np.flatnonzero(good)[:: max(1, -(-int(good.sum()) // MOST_POINTS))]
    return points[chosen].astype(np.float64), colors[chosen].astype(np.float64)


def _from_array(array: np.ndarray, path: Path) -> Points:
    if array.ndim != 2 or array.shape[1] not in (3, 6) or array.dtype.kind not in "fiu":
        raise ValueError(f"{path}: not points: got shape {array.shape}, expected [n, 3] or [n, 6].")
    colors = array[:, 3:] if array.shape[1] == 6 else np.full((len(array), 3), _GREY)
    return array[:, :3], colors


def _thinned(rows: Iterable[list[float]]) -> Points:
    """Collect every so many-th row, so that their number stays bounded."""
    kept: list[list[float]] = []
    step = 1
    for number, row in enumerate(rows):
        if number % step == 0:
            kept.append(row)
        if len(kept) > 2 * MOST_POINTS:
            kept, step = kept[::2], 2 * step
    table = np.array(kept, dtype=np.float64).reshape(-1, 6)
    return table[:, :3], table[:, 3:]


def _from_ply(path: Path) -> Points:
    from plyfile import PlyData

    _check_ply_counts(path)
    try:
        vertex = PlyData.read(str(path))["vertex"]
        points = np.stack([np.asarray(vertex[axis], np.float64) for axis in "xyz"], axis=-1)
        names = {item.name for item in vertex.properties}
        shades = [name for name in ("red", "green", "blue") if name in names]
        colors = np.full_like(points, _GREY)
        if len(shades) == 3:
            colors = np.stack([np.asarray(vertex[name], np.float64) for name in shades], axis=-1)
    except Exception as error:  # a broken file makes the parser raise many kinds
        raise ValueError(
            f"{path}: not a point cloud: got {error!r:.200}, expected a whole PLY file with x y z."
        ) from error
    return points, colors


def _check_ply_counts(path: Path) -> None:
    """Raise if a header announces more elements than the file has bytes: they are allocated."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        for line in stream.read(_PLY_HEADER_BYTES).split(b"end_header")[0].splitlines():
            words = line.split()
            if words[:1] == [b"element"] and not (
                len(words) == 3 and words[2].isdigit() and len(words[2]) < 16
                and int(words[2]) <= size
            ):  # fmt: skip
                raise ValueError(
                    f"{path}: announces more than it holds: got {line[:80]!r} in a file of "
                    f"{size:,} bytes. It may be truncated; copy it again."
                )


def _from_geometry(path: Path) -> Points:
    """Unproject some frames of a clip; sky and unknown depth are left out."""
    clip = load_geometry(path)
    frames = np.unique(np.linspace(0, len(clip.depths) - 1, _FRAMES_OF_A_CLIP).astype(int))
    step = max(1, int(np.sqrt(clip.depths[frames].size / MOST_POINTS)))
    points, colors = [], []
    for frame in frames:
        camera = type(clip.camera)(*(leaf[frame] for leaf in clip.camera))
        depth = clip.depths[frame]
        known = depth > 0
        known &= depth < _SKY * (np.median(depth[known]) if known.any() else 1.0)
        if clip.masks is not None:
            known &= clip.masks[frame]
        known[np.arange(len(known)) % step != 0] = False
        known[:, np.arange(known.shape[1]) % step != 0] = False
        points.append(unproject(depth, camera)[known])
        grey = np.full((int(known.sum()), 3), _GREY)
        pictures = () if clip.frames is None else clip.frames
        colors.append(pictures[frame][known] if len(pictures) > frame else grey)
    return np.concatenate(points), np.concatenate(colors)
