"""Where numbers go while training.

A log line, a JSON line, TensorBoard and, if wished, Weights & Biases, all by `MetricWriter.write`.

Conventions: one record per log step with `step` and the mean of each metric since the last record.
On resume, records after the resumed step are dropped from the file, so it reads like that of an
uninterrupted run. Weights & Biases cannot drop any: there, repeated steps show twice along its own
axis, and once along `step`.
Read next: `mirage_jax/train/watch.py`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorboardX

from mirage_jax.atomic import write_text


class MetricWriter:
    """Writes scalar metrics of one stage.

    They go to `report`, to `metrics.jsonl` and to TensorBoard event files in `directory`.
    """

    def __init__(
        self,
        directory: Path,
        start_step: int,
        report: Callable[[str], None],
        wandb_project: str = "",
    ) -> None:
        """Open the files.

        Args:
            directory: of the stage.
            start_step: updates made before; what was written after them is dropped.
            report: called with a line for each record.
            wandb_project: also log to this project of Weights & Biases; "" for none.

        Raises:
            ValueError: if that is wished and the package is missing.
        """
        self._run = _wandb_run(directory, wandb_project) if wandb_project else None
        directory.mkdir(parents=True, exist_ok=True)
        self._report = report
        path = directory / "metrics.jsonl"
        _drop_after(path, start_step)
        self._lines = path.open("a")
        self._board = tensorboardX.SummaryWriter(
            str(directory / "tensorboard"), purge_step=start_step + 1
        )

    def write(self, step: int, values: dict[str, float], prefix: str) -> None:
        """Write one record; `prefix` ("train" or "val") goes before each name."""
        record = {f"{prefix}/{name}": float(f"{value:.6g}") for name, value in values.items()}
        self._report(f"step={step} " + " ".join(f"{k}={v:.5g}" for k, v in record.items()))
        self._lines.write(json.dumps({"step": step, **record}) + "\n")
        self._lines.flush()
        for name, value in record.items():
            self._board.add_scalar(name, value, step)
        if self._run is not None:
            self._run.log({"step": step, **record})

    def close(self) -> None:
        """Flush and close the files."""
        self._lines.close()
        self._board.close()
        if self._run is not None:
            self._run.finish()


class Means:
    """Running means of metrics.

    Values may be unfinished device arrays; they are fetched only by `take`.
    """

    def __init__(self) -> None:
        self._values: list[dict[str, Any]] = []

    def add(self, metrics: dict[str, Any]) -> None:
        """Remember the scalars of one step."""
        self._values.append({name: value for name, value in metrics.items() if not value.ndim})

    def take(self) -> dict[str, float]:
        """Return the mean of each metric since the last call, and forget.

        Values that are not finite are left out.
        """
        rows = jax.device_get(self._values)
        fetched = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
        self._values = []
        return {
            n: float(v[np.isfinite(v)].mean()) if np.isfinite(v).any() else float("nan")
            for n, v in fetched.items()
        }


def _wandb_run(directory: Path, project: str) -> Any:
    """Go on with the run of this folder, or begin it; WANDB_MODE=offline keeps it on this machine.

    Runs of one folder are one run there, by an id kept in the folder.
    """
    try:
        import wandb
    except ImportError as error:
        raise ValueError(
            f"--wandb: got project {project!r}, but the package wandb is not installed; "
            'pip install "mirage-jax[wandb]"'
        ) from error
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "wandb_id"
    if not path.exists():
        write_text(path, uuid.uuid4().hex[:12])
    name = "/".join(directory.resolve().parts[-2:])
    run = wandb.init(
        project=project, name=name, id=path.read_text(), resume="allow", dir=str(directory)
    )
    run.define_metric("*", step_metric="step")
    return run


def _drop_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except json.JSONDecodeError:
            continue  # a line cut short by a kill
    write_text(path, "".join(line + "\n" for line in kept))
