"""The training loop of every stage.

Restore, then feed -> step -> log -> validate -> checkpoint until done.

Order matters in two places. A checkpoint is written before the next step runs, since the step
donates the state's buffers. Validation comes after the checkpoint, so a kill during validation
costs nothing. SIGTERM or Ctrl-C asks for one checkpoint and a clean return; a second Ctrl-C
interrupts at once. Read next: `mirage_jax/train/step.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import optax
import tqdm

from mirage_jax.config import to_dict
from mirage_jax.distributed.mesh import MeshConfig, describe, make_mesh
from mirage_jax.models.functional import count_params
from mirage_jax.train.checkpoint import Checkpoints, check_config
from mirage_jax.train.feed import prefetch
from mirage_jax.train.metrics import Means, MetricWriter
from mirage_jax.train.objective import Objective
from mirage_jax.train.optimizer import make_optimizer
from mirage_jax.train.placement import Placement, abstract_state, drawn, placed_like
from mirage_jax.train.state import TrainState, new_state
from mirage_jax.train.step import make_step
from mirage_jax.train.tuning import digest


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How a run is carried out; nothing here changes what is computed at a step.

    Attributes:
        workdir: folder of the world's training; the stage gets a folder in it.
        minutes: stop after so much wall time, 0 for no limit.
        mesh: how the run is divided among devices.
        weights: folder that given weights came from, noted beside the checkpoints.
        report: called with each line of text meant for the user.
    """

    workdir: Path
    minutes: float = 0.0
    mesh: MeshConfig = MeshConfig()
    weights: Path | None = None
    report: Callable[[str], None] = lambda line: None


def train(objective: Objective, seed: int, options: RunOptions) -> TrainState:
    """Train one stage to its last step, resuming from the newest checkpoint of the workdir.

    Args:
        objective: the stage.
        seed: of the run's draws.
        options: folder, limits and reporting.

    Returns:
        The final state; what it exports has been written into the workdir.

    Raises:
        ValueError: if the workdir holds a checkpoint of another model.
        FloatingPointError: if no update of a whole log interval was finite.
    """
    stage, directory = objective.stage, options.workdir / objective.name
    mesh = make_mesh(options.mesh)
    placement = Placement(mesh, options.mesh.whole_below)
    params, fixed = _parameters(objective, placement)
    _check_run(directory / "config.json", objective, fixed, seed, options)
    checkpoints = Checkpoints(directory / "checkpoints")
    state, optimizer = _start(objective, params, checkpoints, placement)
    del params
    start = int(state.step)
    options.report(
        f"stage={objective.name} device={jax.devices()[0].platform} "
        f"mesh={describe(mesh)} "
        f"parameters={count_params(state.params):,} fixed={count_params(fixed):,} "
        f"step={start} of {stage.steps} folder={directory}"
    )
    for line in placement.report(state):
        options.report(line)
    writer = MetricWriter(directory, start, options.report)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    step_fn = make_step(objective.loss, optimizer, stage, seed, shardings, shared=objective.shared)
    deadline = time.monotonic() + 60.0 * options.minutes if options.minutes else float("inf")
    means, since = Means(), time.monotonic()
    previous: dict[str, jax.Array] = {}
    try:
        with (
            _stop_requests() as stopped,
            contextlib.closing(prefetch(_placed(objective, placement), start, stage.steps)) as fed,
        ):
            for step, batch in enumerate(_with_bar(fed, start, stage.steps), start + 1):
                with jax.set_mesh(mesh):
                    state, metrics = step_fn(state, fixed, batch)
                # The host runs one step ahead and no more, so that a request to stop is soon met.
                jax.block_until_ready(previous)
                previous = metrics
                means.add(metrics)
                if step % stage.log_steps == 0 or step == stage.steps:
                    values = means.take()
                    _check_progress(values, step)
                    now = time.monotonic()
                    values["steps_per_second"] = min(stage.log_steps, step - start) / (now - since)
                    since = now
                    writer.write(step, values, "train")
                stopping = bool(stopped) or time.monotonic() > deadline
                if stopping or step % stage.checkpoint_steps == 0 or step == stage.steps:
                    checkpoints.save(state)
                if step % stage.validate_steps == 0 or step == stage.steps:
                    scores = objective.validate(state.exported, fixed, step, directory / "pictures")
                    writer.write(step, scores, "val")
                    since = time.monotonic()
                if stopping:
                    break
        for path in objective.export(state.exported, fixed, int(state.step), options.workdir):
            options.report(
                f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB) step={int(state.step)}"
            )
    finally:
        writer.close()
        checkpoints.close()
    return state


def _check_run(
    path: Path, objective: Objective, fixed: Any, seed: int, options: RunOptions
) -> None:
    """Note what is trained, and on which fixed parameters; refuse to go on with others."""
    model = objective.model | ({"fixed": digest(fixed)} if fixed else {})
    if objective.stage.optimizer != "adamw":  # its state is of another kind
        model = model | {"optimizer": objective.stage.optimizer}
    settings = {"seed": seed, "stage": to_dict(objective.stage), "weights": options.weights}
    check_config(path, model, settings)


def _parameters(objective: Objective, placement: Placement) -> tuple[Any, Any]:
    """Return the parameters before step 0 and those held fixed, where they belong."""
    axes = objective.axes()
    if objective.draws:
        shapes = jax.eval_shape(objective.init)
        places = tuple(placement.parameters(*pair) for pair in zip(axes, shapes, strict=True))
        return drawn(lambda: tuple(objective.init()), places)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        params = tuple(objective.init())
    places = tuple(placement.parameters(*pair) for pair in zip(axes, params, strict=True))
    return placement.put(params, places)


def _start(
    objective: Objective, params: Any, checkpoints: Checkpoints, placement: Placement
) -> tuple[TrainState, optax.GradientTransformation]:
    """Return the newest checkpointed state, or the one of step 0, and the optimizer."""
    stage = objective.stage
    optimizer = make_optimizer(stage, params)
    average = stage.ema_decay > 0
    shapes = abstract_state(params, optimizer, average=average)
    shardings = placement.state(objective.axes()[0], shapes)
    if checkpoints.latest_step() is not None:
        return checkpoints.restore(placed_like(shapes, shardings)), optimizer
    begin = jax.jit(lambda p: new_state(p, optimizer, average=average), out_shardings=shardings)
    return begin(params), optimizer


def _placed(objective: Objective, placement: Placement) -> Callable[[int], Any]:
    """Return the function that makes the batch of a step and places it."""

    def batch_at(step: int) -> Any:
        arrays = objective.batch(step)
        rows = objective.stage.batch
        return placement.put(arrays, placement.batch(arrays, rows, objective.shared))

    return batch_at


def _check_progress(values: dict[str, float], step: int) -> None:
    if values["skipped"] == 1.0:
        raise FloatingPointError(
            f"training: no update up to step {step} was finite since the last log line; "
            "lower the learning rate or look for bad values in the data"
        )


def _with_bar(batches: Iterator[Any], start: int, steps: int) -> Iterator[Any]:
    """Show a progress bar on a terminal; pass through otherwise."""
    return iter(
        tqdm.tqdm(
            batches, initial=start, total=steps, disable=not sys.stderr.isatty(), smoothing=0.05
        )
    )


@contextlib.contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collect the first SIGTERM or Ctrl-C in a list instead of dying.

    Outside the main thread nothing is caught.
    """
    received: list[int] = []

    def handle(number: int, frame: Any) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        old = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
