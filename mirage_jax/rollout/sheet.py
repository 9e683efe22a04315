"""Contact sheets: pictures side by side with titles, as one PNG.

Frames are small, so they are enlarged without smoothing: what is seen is what was made.
Read next: `mirage_jax/rollout/outputs.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

# Inches of one picture's width, and dots per inch: 128-pixel frames are enlarged about three times.
_PANEL_INCHES, _DOTS_PER_INCH = 2.9, 140


def write_sheet(
    path: Path,
    rows: Sequence[Sequence[UInt8[np.ndarray, "H W 3"]]],
    titles: Sequence[str],
    caption: str = "",
) -> None:
    """Write rows of pictures as a PNG.

    Args:
        path: file to write.
        rows: pictures of one size; every row has one for each title.
        titles: headings of the columns.
        caption: one line below.

    Raises:
        ValueError: a row has another number of pictures than there are titles.
    """
    if not rows or any(len(row) != len(titles) for row in rows):
        raise ValueError(
            f"rows: got {[len(row) for row in rows]} pictures, expected {len(titles)} in each, one "
            "for each title"
        )
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, width = rows[0][0].shape[:2]
    panel_height = _PANEL_INCHES * height / width
    figure = Figure(
        (len(titles) * _PANEL_INCHES, len(rows) * panel_height + 0.55), dpi=_DOTS_PER_INCH
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            axes[i, j].imshow(picture, interpolation="nearest")
            axes[i, j].set_axis_off()
            if i == 0:
                axes[i, j].set_title(titles[j], fontsize=9)
    if caption:
        figure.text(0.5, 0.01, caption, ha="center", fontsize=8)
    bottom = 0.3 / figure.get_figheight() if caption else 0.0
    top = 1.0 - 0.25 / figure.get_figheight()
    figure.subplots_adjust(left=0, right=1, bottom=bottom, top=top, wspace=0.02, hspace=0.02)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
