"""Take the distortion of lenses out of a recording: pictures, depth, masks and intrinsics alike.

z-depth of a point does not depend on the lens, so depth is moved with the pixels, and its values
stay. Depth and masks are taken to lie on the bent pixels of the pictures.

Read next: ``../../geometry/lens.py``, ``layouts/`` (which recordings have a lens).
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from mirage_jax.data.ingest.recording import Picture, Recording
from mirage_jax.geometry.camera import rescale_intrinsics
from mirage_jax.geometry.lens import Lens, Straightened, straight_intrinsics, straighten

# Ways of resampling that are kept: of pictures, depth and masks, for two lenses.
_KEPT = 6


def straightened(recording: Recording, lenses: Sequence[Lens | None]) -> Recording:
    """Return a recording of pinhole cameras.

    Args:
        recording: with the intrinsics of the bent pictures.
        lenses: of each of its frames; None for those that are straight already.

    Raises:
        ValueError: coefficients that no picture of this size can have.
    """
    if not any(lenses):
        return recording
    matrices = recording.cameras.intrinsics
    if matrices is None:
        raise ValueError(f"{recording.source}: has no intrinsics. Give --intrinsics.")
    hw = recording.hw

    @functools.lru_cache(_KEPT)
    def straight_of(lens: Lens, values: tuple[float, ...]) -> np.ndarray:
        try:
            return straight_intrinsics(lens, np.reshape(values, (3, 3)), hw)
        except ValueError as error:
            raise ValueError(f"{recording.source}: {error}") from error

    @functools.lru_cache(_KEPT)
    def way(lens: Lens, values: tuple[float, ...], size: tuple[int, int]) -> Straightened:
        bent, straight = (
            rescale_intrinsics(matrix, hw, size)
            for matrix in (np.reshape(values, (3, 3)), straight_of(lens, values))
        )
        return straighten(lens, bent, straight, size)

    def picture(index: int) -> Picture:
        found, lens = recording.picture(index), lenses[index]
        if lens is None or found.rgb.shape[:2] != hw:
            return found
        values = tuple(matrices[index].ravel().tolist())
        others = [
            None if grid is None else way(lens, values, grid.shape).nearest(grid)
            for grid in found[1:]
        ]
        return Picture(way(lens, values, hw).colors(found.rgb), *others)

    straight = np.stack(
        [
            matrix if lens is None else straight_of(lens, tuple(matrix.ravel().tolist()))
            for lens, matrix in zip(lenses, matrices, strict=True)
        ]
    )
    first, at = next((lens, i) for i, lens in enumerate(lenses) if lens is not None)
    return dataclasses.replace(
        recording,
        cameras=dataclasses.replace(recording.cameras, intrinsics=straight),
        picture=picture,
        notes=(*recording.notes, _note(first, straight[at, 0, 0] / matrices[at, 0, 0])),
    )


def _note(lens: Lens, zoom: float) -> str:
    """Say what was done."""
    shown = ", ".join(f"{value:.4g}" for value in lens.coefficients)
    return (
        f"pictures, depth and masks straightened: lens {lens.model} ({shown}), focal length "
        f"times {zoom:.3f}"
    )
