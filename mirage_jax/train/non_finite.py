"""Updates whose loss or gradient is not finite: counted, and fatal when they do not end.

The step leaves parameters and moments alone in such an update (`step.py`). A single one is the
data's or the noise's affair; many in a row are a run that is lost, and it stops with the updates,
the rows of their batches and the clips that these came from, so that someone can look at them.

Read next: `mirage_jax/train/watch.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mirage_jax.atomic import write_text
from mirage_jax.train.step import ROW_LOSSES


class NonFiniteError(FloatingPointError):
    """Too many updates in a row were not finite."""


class NonFinite:
    """Follows the updates of a run.

    Attributes:
        count: updates of this run that changed nothing.
    """

    def __init__(self, most: int, clips: Callable[[int], np.ndarray], path: Path | None) -> None:
        """Begin with none.

        Args:
            most: so many in a row end the run.
            clips: (step counted from 0) -> index of each row's clip in the source.
            path: JSON file for what ended the run; None writes none.
        """
        self.count = 0
        self._most, self._clips, self._path = most, clips, path
        self._row: list[dict[str, Any]] = []

    def follow(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Look at update `step`, counted from 1.

        Raises:
            NonFiniteError: if it is the last of too many.
        """
        if not jax.device_get(metrics["skipped"]):
            self._row = []
            return
        self.count += 1
        losses = jax.device_get(metrics[ROW_LOSSES])
        bad = np.flatnonzero(~np.isfinite(losses))
        # With finite losses it is the gradient, which no row can be blamed for.
        rows = bad if bad.size else np.arange(losses.size)
        self._row.append(
            {
                "update": step,
                "what": "loss" if bad.size else "gradient",
                "rows": rows.tolist(),
                "clips": np.asarray(self._clips(step - 1))[rows].tolist(),
            }
        )
        if len(self._row) >= self._most:
            self._give_up()

    def _give_up(self) -> None:
        first, last = self._row[0]["update"], self._row[-1]["update"]
        clips = sorted({clip for update in self._row for clip in update["clips"]})
        what = " and ".join(sorted({update["what"] for update in self._row}))
        where, count = "", len(self._row)
        if self._path is not None:
            content = {"first_update": first, "last_update": last, "updates": self._row}
            write_text(self._path, json.dumps(content, indent=1) + "\n")
            where = f"; rows and clips of each update are in {self._path}"
        shown = ", ".join(map(str, clips[:12])) + (", ..." if len(clips) > 12 else "")
        raise NonFiniteError(
            f"training: the {what} of updates {first} to {last}, {count} in a row, was not "
            f"finite, expected fewer than max_skipped={self._most}; training clips of these rows: "
            f"{shown}{where}; look at them, lower the learning rate, or raise max_skipped"
        )
