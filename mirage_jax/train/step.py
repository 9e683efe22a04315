"""One update: losses of the rows, gradient, optimizer, moving average; jitted once, state donated.

With `accumulate=n` the rows of a batch are taken in n micro-batches, one after the other, and their
gradients summed in float32: the same update up to rounding in a fraction of the memory.

Conventions: the draw of row r of step N uses `key_for(seed, N, Purpose.TRAIN_LOSS)` folded with r,
so no key is carried, and a row's draw does not depend on the micro-batch it comes in. A step whose
loss or gradient is not finite changes nothing but `step` and reports `skipped` = 1. Read next:
`mirage_jax/train/loop.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mirage_jax.distributed.constrain import constrain
from mirage_jax.prng import Purpose, key_for
from mirage_jax.train.optimizer import learning_rate
from mirage_jax.train.stage_config import StageConfig
from mirage_jax.train.state import TrainState

LossFn = Callable[[Any, Any, Any, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]
# A jitted function (state, fixed, batch) -> (state, metrics).
StepFn = Any
# On CPUs LLVM's costly passes lengthen compiling, and hardly speed up a step: its products are
# calls into libraries.
_OPTIONS = {"cpu": {"xla_backend_optimization_level": 1}}
# Among the metrics, which are scalars otherwise: the loss of each row of the batch.
ROW_LOSSES = "row_losses"


def make_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    stage: StageConfig,
    seed: int,
    shardings: Any = None,
    *,
    shared: Iterable[str] = (),
) -> StepFn:
    """Return the jitted function (state, fixed, batch) -> (state, metrics).

    The state passed in may not be used again. Nothing is differentiated with respect to `fixed`.
    Metrics are scalars, but for `ROW_LOSSES` [b].

    Args:
        loss_fn: (params, fixed, batch, keys [b]) -> (losses [b], dict of scalar metrics); pure.
        optimizer: from `make_optimizer`.
        stage: rows, micro-batches, schedule, moving average and bounds.
        seed: of the run.
        shardings: of the state, as a `TrainState` of them, on a mesh; gradients lie as the
            parameters they belong to. The mesh is to be set (`jax.set_mesh`) when the function is
            called.
        shared: names of arrays of a batch that have no rows.
    """
    gradients = _gradients(loss_fn, stage, None if shardings is None else shardings.params, shared)

    def update(
        state: TrainState, fixed: Any, batch: Any
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        rows = jnp.arange(stage.batch)
        key = key_for(seed, state.step, Purpose.TRAIN_LOSS)
        keys = constrain(jax.vmap(lambda row: jax.random.fold_in(key, row))(rows), "batch")
        grads, losses, metrics = gradients(state.params, fixed, batch, keys)
        loss, norm = jnp.mean(losses), optax.global_norm(grads)
        rate = learning_rate(stage, state.step)
        direction, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = jax.tree.map(lambda p, u: (p - rate * u).astype(p.dtype), state.params, direction)
        ema = _average(state.ema, params, state.step, stage.ema_decay)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        kept = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            (params, opt_state, ema),
            (state.params, state.opt_state, state.ema),
        )
        metrics = dict(
            metrics, loss=loss, grad_norm=norm, rate=rate, skipped=1.0 - finite.astype(jnp.float32)
        )
        return TrainState(state.step + 1, *kept), metrics | {ROW_LOSSES: losses}

    placed, platform = None, jax.default_backend()
    if shardings is not None:
        mesh = shardings.step.mesh
        placed, platform = (shardings, NamedSharding(mesh, P())), mesh.devices.flat[0].platform
    options = _OPTIONS.get(platform)
    return jax.jit(update, donate_argnums=0, out_shardings=placed, compiler_options=options)


def _gradients(
    loss_fn: LossFn, stage: StageConfig, shardings: Any, shared: Iterable[str]
) -> Callable[..., tuple[Any, jax.Array, dict[str, jax.Array]]]:
    """Return (params, fixed, batch, keys) -> (gradients of the mean loss, losses [b], metrics)."""
    count = stage.accumulate

    def mean_loss(params: Any, *arguments: Any) -> Any:
        losses, metrics = loss_fn(params, *arguments)
        return jnp.mean(losses), (losses, metrics)

    def micro_batch(params: Any, *arguments: Any) -> Any:
        grads, aux = jax.grad(mean_loss, has_aux=True)(params, *arguments)
        if shardings is not None:
            grads = jax.lax.with_sharding_constraint(grads, shardings)
        return grads, *aux

    def accumulated(params: Any, fixed: Any, batch: Any, keys: jax.Array) -> Any:
        same = {name: batch[name] for name in shared if name in batch}
        rows = {name: array for name, array in batch.items() if name not in same}
        rows, keys = jax.tree.map(lambda x: _split_rows(x, count), (rows, keys))

        def body(total: Any, one: Any) -> Any:
            grads, losses, metrics = micro_batch(params, fixed, one[0] | same, one[1])
            total = jax.tree.map(lambda t, g: t + g.astype(jnp.float32) / count, total, grads)
            return total, (losses, metrics)

        zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
        if shardings is not None:
            zeros = jax.lax.with_sharding_constraint(zeros, shardings)
        grads, (losses, metrics) = jax.lax.scan(body, zeros, (rows, keys))
        return grads, losses.T.reshape(-1), jax.tree.map(jnp.nanmean, metrics)

    return accumulated if count > 1 else micro_batch


def _split_rows(array: jax.Array, count: int) -> jax.Array:
    """Turn rows [b, ...] into micro-batches [count, b / count, ...]: number i has rows i::count.

    Strided, so that each device keeps the rows it has, and so that rows of one kind at the front
    of the batch are at the front of each micro-batch.
    """
    split = array.reshape(-1, count, *array.shape[1:]).swapaxes(0, 1)
    names = (None, "batch", *(None for _ in array.shape[1:]))
    return constrain(split, *names, what="a micro-batch; accumulate")


def _average(ema: Any, params: Any, step: jax.Array, decay: float) -> Any:
    """Move the average towards `params`.

    Early steps forget faster: min(decay, (1 + n) / (10 + n)). An average of nothing stays so.
    """
    if not jax.tree.leaves(ema):
        return ema
    done = step.astype(jnp.float32)
    weight = 1.0 - jnp.minimum(decay, (1.0 + done) / (10.0 + done))
    return jax.tree.map(lambda e, p: e + weight * (p - e), ema, params)
