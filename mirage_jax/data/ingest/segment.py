"""What a segmentation model says of the pictures of a recording, beside what its own masks say.

The model is a function that is given: this package runs none. Where it sees sky, depth becomes
"far"; where something moves, the clip says so.

Read next: ``recording.py``, ``cut.py`` (where sky becomes depth), ``prepare.py``.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, UInt8

from mirage_jax.data.ingest.recording import Picture, Recording

# Pictures [f, H, W, 3] -> where something moves and where sky is, each [f, H, W].
Segmenter = Callable[
    [UInt8[np.ndarray, "f H W 3"]],
    tuple[Bool[np.ndarray, "f H W"], Bool[np.ndarray, "f H W"]],
]


def segmented(recording: Recording, segment: Segmenter) -> Recording:
    """Return a recording whose pictures say what moves, as its masks or the model tell."""

    def picture(index: int) -> Picture:
        found = recording.picture(index)
        moving, sky = (mask[0] for mask in segment(found.rgb[None]))
        return found._replace(moving=_either(found.moving, moving), sky=_either(found.sky, sky))

    return dataclasses.replace(recording, picture=picture)


def _either(
    own: Bool[np.ndarray, "h w"] | None, seen: Bool[np.ndarray, "H W"]
) -> Bool[np.ndarray, "H W"]:
    """Join a mask of any size of the picture with one of its own size."""
    if own is None:
        return seen
    if own.shape != seen.shape:
        rows, columns = (
            ((np.arange(n) + 0.5) * m / n).astype(int)
            for n, m in zip(seen.shape, own.shape, strict=True)
        )
        own = own[np.ix_(rows, columns)]
    return own | seen
