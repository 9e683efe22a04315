"""Depth that is known at a view, from a file, a memory or points, and a file aligned to it.

What `mirage depth align` does. Conventions: z-depth in scene units, 0 = unknown; cameras in pixels
of the depth that is aligned.
Read next: `mirage_jax/geometry/depth_alignment.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mirage_jax.eval.pictures.scene_points import load_points
from mirage_jax.geometry.camera import Camera, index_camera, rescale_intrinsics
from mirage_jax.geometry.camera_files import read_cameras, reading_of
from mirage_jax.geometry.depth import resize_surface
from mirage_jax.geometry.depth_alignment import (
    AlignmentLimits,
    DepthAlignment,
    Model,
    align_depth,
    check_alignment,
    fit_alignment,
    inverse_depth,
)
from mirage_jax.geometry.depth_files import (
    DepthMaps,
    DepthReading,
    pseudo_depth,
    read_depth,
    z_depth,
)
from mirage_jax.geometry.projection import project

# A memory is read in cells of at least this many pixels, and no more than so many across.
_CELL, _CELLS_ACROSS = 8, 80


Shape = tuple[int, int, int]


class Aligned(NamedTuple):
    """Aligned depth [f, H, W], the model that was fitted, and the fits: one, or one a frame."""

    depth: Float[np.ndarray, "f H W"]
    model: Model
    fits: tuple[DepthAlignment, ...]

    def report(self) -> dict[str, Any]:
        """Return the figures by name; of the worst fit where there are several."""
        worst = min(self.fits, key=lambda fit: float(fit.inliers))
        return {"model": self.model, "fits": len(self.fits), **worst.report()}

    def lines(self) -> list[str]:
        """Return them as lines for people."""
        found = self.report()
        how = f"depth x {found['scale']:.5g}"
        if self.model == "disparity":
            how = f"1/z = {found['slope']:.5g} x {found['offset']:+.5g}"
        several = f" (the worst of {len(self.fits)} frames)" if len(self.fits) > 1 else ""
        return [
            f"{'alignment':<12}{how}{several}",
            f"{'agreeing':<12}{found['inliers']:.1%} of {found['points']} points",
            f"{'residual':<12}{found['residual']:.2%} at these, {found['deviation']:.2%} at all "
            "(medians)",
        ]


@dataclasses.dataclass(frozen=True)
class AlignOptions:
    """How a file is aligned.

    Attributes:
        model: "scale" or "disparity"; None takes what the file needs.
        each: fit each frame alone, as depth of single pictures needs.
        limits: when a fit is refused.
    """

    model: Model | None = None
    each: bool = False
    limits: AlignmentLimits = AlignmentLimits()


def load_views(
    file: Path | None, words: tuple[str, ...], frame: str, shape: Shape
) -> Camera | None:
    """Return the cameras [f] of depth maps [f, H, W]; None without a file.

    Args:
        file: cameras of any format.
        words: how to read them.
        frame: number or name of the first one's.
        shape: of the maps.

    Raises:
        ValueError: no such frame, too few, or no intrinsics.
    """
    if file is None:
        return None
    path = read_cameras(file, reading_of(words))
    names = [Path(name).stem for name in path.names or ()]
    first = int(frame) if frame.isdecimal() and len(frame) < 9 else None
    if Path(frame).stem in names:
        first = names.index(Path(frame).stem)
    if first is None or first + shape[0] > len(path):
        raise ValueError(
            f"--frame: got {frame!r} for {shape[0]} maps, expected a number or a name among the "
            f"{len(path)} cameras of {file}; count from 0"
        )
    if path.intrinsics is None or path.hw is None:
        raise ValueError(
            f"{file}: intrinsics or image size are not known. mirage cameras convert adds them: "
            "--intrinsics or --fov with --size"
        )
    camera = index_camera(path.camera(), slice(first, first + shape[0]))
    matrix = rescale_intrinsics(np.asarray(camera.intrinsics), path.hw, (shape[1], shape[2]))
    return Camera(np.asarray(camera.cam_to_world), matrix)


def from_file(
    file: Path, reading: DepthReading, views: Camera | None, shape: Shape
) -> Float[np.ndarray, "f h w"]:
    """Return known depth in a file, one map for each that is aligned, at its own size."""
    maps = read_depth(file, reading)
    if len(maps.values) != shape[0]:
        raise ValueError(
            f"{file}: got {len(maps.values)} maps, expected {shape[0]} as --to aligns."
        )
    hw = (maps.values.shape[1], maps.values.shape[2])
    if views is not None:
        matrix = rescale_intrinsics(views.intrinsics, (shape[1], shape[2]), hw)
        return z_depth(maps, Camera(views.cam_to_world, matrix))
    _refuse_rays(maps)
    return maps.values


def from_memory(file: Path, views: Camera | None, shape: Shape) -> np.ndarray:
    """Return what a memory shows to the views [f, h, w], in cells."""
    from mirage_jax.memory import files
    from mirage_jax.memory.read import read

    views = _required(views, "--memory")
    memory, config = files.load(file)
    cell = max(_CELL, shape[2] // _CELLS_ACROSS)
    grid = (max(1, shape[1] // cell), max(1, shape[2] // cell))
    matrix = rescale_intrinsics(views.intrinsics, (shape[1], shape[2]), grid).astype(np.float32)
    found = read(memory, Camera(views.cam_to_world.astype(np.float32), matrix), grid, config)
    return np.where(np.asarray(found.visibility), np.asarray(found.depth), 0.0)


def from_points(file: Path, views: Camera | None, shape: Shape) -> np.ndarray:
    """Return the depth of points [f, H, W] at the pixels they fall on; the nearest of several."""
    views = _required(views, "--points")
    points, _ = load_points(file)
    known = np.full(shape, np.inf, np.float64)
    for index in range(shape[0]):
        uv, z = project(points, index_camera(views, index))
        column, row = np.floor(np.clip(uv, -1, 1e6)).astype(int).T
        inside = (z > 0) & (column >= 0) & (column < shape[2]) & (row >= 0) & (row < shape[1])
        np.minimum.at(known[index], (row[inside], column[inside]), z[inside])
    return np.where(np.isfinite(known), known, 0.0)


def align_maps(
    maps: DepthMaps,
    known: Float[np.ndarray, "f h w"],
    views: Camera | None,
    options: AlignOptions,
) -> Aligned:
    """Align depth maps to known depth.

    Args:
        maps: from a file.
        known: z-depth of the same views, of any size, 0 = unknown.
        views: cameras in pixels of the maps, where there are any.
        options: see there.

    Raises:
        ValueError: a fit that cannot be trusted, or a model that does not go with the maps.
    """
    model = options.model or ("disparity" if maps.kind == "disparity" else "scale")
    if maps.kind == "disparity":
        if model == "scale":
            raise ValueError(f"{maps.name}: disparity has a shift too: expected --model disparity.")
        depth = pseudo_depth(maps.values)
    elif views is not None:
        depth = z_depth(maps, views)
    else:
        _refuse_rays(maps)
        depth = maps.values
    small = depth if depth.shape == known.shape else resize_surface(depth, known.shape[1:])
    inverse, valid = inverse_depth(small), (small > 0) & (known > 0)
    groups = [[index] for index in range(len(depth))] if options.each else [slice(None)]
    aligned, fits = np.zeros(depth.shape, np.float32), []
    for group in groups:
        limits = options.limits
        found = fit_alignment(inverse[group], known[group], valid[group], model, limits.tolerance)
        name = maps.name if not options.each else f"{maps.name}: frame {group[0]}"  # type: ignore[index]
        check_alignment(found, model, name, limits)
        aligned[group] = align_depth(inverse_depth(depth[group]), found)
        fits.append(found)
    return Aligned(aligned, model, tuple(fits))


def _required(views: Camera | None, flag: str) -> Camera:
    if views is None:
        raise ValueError(f"{flag}: got no cameras, expected those of the depth; give --cameras")
    return views


def _refuse_rays(maps: DepthMaps) -> None:
    if maps.kind != "z":
        raise ValueError(
            f"{maps.name}: got {maps.kind}, which needs intrinsics to become z-depth; give "
            "--cameras"
        )


def aligned_to_file(
    file: Path, reading: DepthReading, say: Callable[[str], None]
) -> Callable[[DepthMaps, Camera], DepthMaps]:
    """Return a function that aligns maps of one camera to known depth in a file, and says how well.

    Args:
        file: known depth of the same view, which may be sparse.
        reading: of that file.
        say: receives the figures.
    """

    def align(maps: DepthMaps, camera: Camera) -> DepthMaps:
        count, height, width = maps.values.shape
        views = Camera(*(np.repeat(np.asarray(leaf)[None], count, axis=0) for leaf in camera))
        known = from_file(file, reading, views, (count, height, width))
        found = align_maps(maps, known, views, AlignOptions())
        for line in found.lines():
            say(line)
        return DepthMaps(found.depth, "z", True, maps.name, maps.notes)

    return align
