"""What the stages share that train on windows of clips: which clips a step sees, and its batch.

Read next: `draw.py`, and `train/depth_stage.py` for the smallest of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mirage_jax.data.captions import ClipTexts
from mirage_jax.data.mixture import ClipOrder
from mirage_jax.train.feed import Batch, Rows
from mirage_jax.train.latents import LatentSource
from mirage_jax.train.windows.draw import draw_batch


class WindowStage:
    """Draws the batches of a stage.

    Attributes:
        stage: settings of the stage; `batch` and `windows` are used.
        order: in which clips are drawn; None: those of one source.
    """

    stage: Any
    order: ClipOrder | None = None
    _world: Any
    _latents: LatentSource
    _texts: ClipTexts | None = None
    _seed: int

    def clips(self, step: int) -> np.ndarray:
        """Return the index of each row's clip among the training clips [b]."""
        order = self.order or ClipOrder((self._latents.clips,))
        return order.indices(self._seed, step, self.stage.batch)

    def batch(self, step: int, rows: Rows = None) -> Batch:
        """Return the host arrays of `step`, all rows or those named."""
        return draw_batch(
            self._latents,
            self.stage.windows,
            self._world.chunk,
            self._texts,
            seed=self._seed,
            step=step,
            clips=self.clips(step),
            rows=rows,
        )
