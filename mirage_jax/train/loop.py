"""The training loop of every stage.

Restore, then feed -> step -> log -> checkpoint -> validate until done, the same in each process of
the run; the first of them alone writes logs, pictures and weights.

A checkpoint is copied to the host before the next step runs, since the step donates the state's
buffers, and written while training goes on. Validation comes after it, so a kill during validation
costs nothing. On a request to stop the run saves once and returns why. Nothing in the loop waits
for the device but for the step before; `jax.transfer_guard` sees to it. Read next:
`mirage_jax/train/step.py`, `mirage_jax/train/stopping.py`, `mirage_jax/train/resume.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax
import tqdm
from jax.sharding import Mesh

from mirage_jax.config import to_dict
from mirage_jax.distributed import processes
from mirage_jax.distributed.mesh import MeshConfig, describe, make_mesh
from mirage_jax.models.functional import count_params
from mirage_jax.train.checkpoint import Checkpoints, Keep
from mirage_jax.train.feed import feed
from mirage_jax.train.objective import Objective
from mirage_jax.train.optimizer import make_optimizer
from mirage_jax.train.placement import Placement, abstract_state, drawn, placed_like
from mirage_jax.train.resume import check_config, saved_state
from mirage_jax.train.state import TrainState, new_state
from mirage_jax.train.step import make_step
from mirage_jax.train.stopping import Reason, StopRequests
from mirage_jax.train.tuning import digest
from mirage_jax.train.watch import Watch, WatchOptions


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How a run is carried out; nothing here changes what is computed at a step.

    Attributes:
        workdir: folder of the world's training; the stage gets a folder in it. All processes of
            a run share it.
        minutes: stop after so much wall time, 0 for no limit.
        mesh: how the run is divided among devices.
        weights: folder that given weights came from, noted beside the checkpoints.
        resume: "auto", "never" or a path, see `mirage_jax/train/resume.py`.
        report: called with each line of text meant for the user, in the first process only.
        watch: what to watch beside what is always watched.
    """

    workdir: Path
    minutes: float = 0.0
    mesh: MeshConfig = MeshConfig()
    weights: Path | None = None
    resume: str = "auto"
    report: Callable[[str], None] = lambda line: None
    watch: WatchOptions = WatchOptions()


class Result(NamedTuple):
    """How a run ended: its state, which is saved, and why it stopped."""

    state: TrainState
    reason: Reason


def train(objective: Objective, seed: int, options: RunOptions) -> Result:
    """Train one stage to its last step, or until it is to stop.

    Args:
        objective: the stage.
        seed: of the run's draws.
        options: folder, limits and reporting.

    Returns:
        The final state; what it exports has been written into the workdir, unless the machine is
        wanted back (`Reason.PREEMPTED`): then the checkpoint is all there was time for.

    Raises:
        ValueError: if the workdir holds a checkpoint of another model.
        SaveError: if a checkpoint could not be written.
        NonFiniteError: if too many updates in a row were not finite.
    """
    if not processes.is_first():
        options = dataclasses.replace(options, report=lambda line: None)
    stage, directory = objective.stage, options.workdir / objective.name
    watch = Watch(objective, directory, options.watch, options.report, writes=processes.is_first())
    mesh = make_mesh(options.mesh)
    placement = Placement(mesh, options.mesh.whole_below)
    params, fixed = _parameters(objective, placement)
    _check_run(directory / "config.json", objective, fixed, seed, options)
    keep = Keep(stage.keep_last, stage.keep_every)
    with contextlib.closing(
        Checkpoints(directory / "checkpoints", keep, options.report)
    ) as checkpoints:
        state, optimizer = _start(objective, params, checkpoints, placement, options.resume)
        del params
        options.report(
            f"stage={objective.name} device={jax.devices()[0].platform} "
            f"mesh={describe(mesh)} processes={processes.count()} "
            f"parameters={count_params(state.params):,} fixed={count_params(fixed):,} "
            f"step={int(state.step)} of {stage.steps} folder={directory}"
        )
        for line in placement.report(state):
            options.report(line)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
        step_fn = make_step(
            objective.loss, optimizer, stage, seed, shardings, shared=objective.shared
        )
        with watch.running(int(state.step)):
            run = _Run(objective, mesh, placement, step_fn, checkpoints, options, watch)
            result = run.go_on(state, fixed)
    if result.reason != Reason.PREEMPTED:
        _export(objective, result.state, fixed, options)
    watch.close()
    return result


@dataclasses.dataclass(frozen=True)
class _Run:
    """What the loop uses; see `train`."""

    objective: Objective
    mesh: Mesh
    placement: Placement
    step_fn: Any
    checkpoints: Checkpoints
    options: RunOptions
    watch: Watch

    def go_on(self, state: TrainState, fixed: Any) -> Result:
        """Run steps from that of `state` on."""
        stage, start, watch = self.objective.stage, int(state.step), self.watch
        stop, reason = StopRequests(self.options.minutes), None
        batches = feed(_placed(self.objective, self.placement), start, stage.steps)
        with stop.listening(), contextlib.closing(batches):
            fed = _with_bar(watch.feeding(batches), start, stage.steps)
            for step, batch in enumerate(fed, start + 1):
                with (
                    watch.updating(step),
                    jax.set_mesh(self.mesh),
                    jax.transfer_guard("disallow"),
                ):
                    if step == start + 1:
                        # Some processes compile longer; collectives do not wait for them.
                        self.step_fn.lower(state, fixed, batch).compile()
                        processes.wait_for_all("the first update")
                    state, metrics = self.step_fn(state, fixed, batch)
                # The host runs one step ahead and no more, so that a request to stop is soon met.
                watch.updated(step, metrics)
                if step % stage.log_steps == 0 or step == stage.steps:
                    watch.log(step)
                self.checkpoints.check()
                reason = stop.reason(step)
                if reason or step % stage.checkpoint_steps == 0 or step == stage.steps:
                    with watch.during("checkpoint"):
                        self.checkpoints.save(state)
                if reason == Reason.PREEMPTED:
                    break
                if step % stage.validate_steps == 0 or step == stage.steps:
                    with watch.during("validation"):
                        self._validate(state, fixed, step)
                if reason:
                    break
        return Result(state, reason or Reason.DONE)

    def _validate(self, state: TrainState, fixed: Any, step: int) -> None:
        folder = self.options.workdir / self.objective.name / "pictures"
        shown = folder if processes.is_first() else None
        processes.wait_for_all("validation")
        scores = self.objective.validate(state.exported, fixed, step, shown)
        self.watch.write(step, scores, "val")


def _export(objective: Objective, state: TrainState, fixed: Any, options: RunOptions) -> None:
    """Gather the weights; the first process writes them, the others wait for it."""
    step = int(state.step)
    exported, fixed = processes.to_host(state.exported), processes.to_host(fixed)
    if processes.is_first():
        for path in objective.export(exported, fixed, step, options.workdir):
            size = path.stat().st_size / 1e6
            options.report(f"wrote {path} ({size:.1f} MB) step={step}")
    processes.wait_for_all("weights written")


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
    if processes.count() > 1:
        processes.require_same(
            digest({"trained": params[0], "fixed": params[1]}), "the parameters at step 0"
        )
    places = tuple(placement.parameters(*pair) for pair in zip(axes, params, strict=True))
    return placement.put(params, places)


def _start(
    objective: Objective,
    params: Any,
    checkpoints: Checkpoints,
    placement: Placement,
    resume: str = "auto",
) -> tuple[TrainState, optax.GradientTransformation]:
    """Return the state to go on from, saved or of step 0, and the optimizer."""
    stage = objective.stage
    optimizer = make_optimizer(stage, params)
    average = stage.ema_decay > 0
    shapes = abstract_state(params, optimizer, average=average)
    shardings = placement.state(objective.axes()[0], shapes)
    saved = saved_state(checkpoints, resume, placed_like(shapes, shardings))
    if saved is not None:
        return saved, optimizer
    begin = jax.jit(lambda p: new_state(p, optimizer, average=average), out_shardings=shardings)
    return begin(params), optimizer


def _placed(objective: Objective, placement: Placement) -> Callable[[int], Any]:
    """Return the function that makes the batch of a step and places it."""
    rows = objective.stage.batch
    own = placement.own_rows(rows)

    def batch_at(step: int) -> Any:
        return placement.put_batch(objective.batch(step, own), rows, objective.shared)

    return batch_at


def _with_bar(batches: Iterator[Any], start: int, steps: int) -> Iterator[Any]:
    """Show a progress bar on a terminal; pass through otherwise."""
    return iter(
        tqdm.tqdm(
            batches, initial=start, total=steps, disable=not sys.stderr.isatty(), smoothing=0.05
        )
    )
