"""One update: loss, gradient, AdamW, moving average; jitted once, state donated.

Conventions: the draw of step N uses `key_for(seed, N, Purpose.TRAIN_LOSS)`, so no key is carried. A
step whose loss or gradient is not finite changes nothing but `step` and reports `skipped` = 1. Read
next: `mirage_jax/train/loop.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mirage_jax.prng import Purpose, key_for
from mirage_jax.train.optimizer import learning_rate
from mirage_jax.train.stage_config import StageConfig
from mirage_jax.train.state import TrainState

LossFn = Callable[[Any, Any, Any, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]
# A jitted function (state, fixed, batch) -> (state, metrics).
StepFn = Any


def make_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    stage: StageConfig,
    seed: int,
    shardings: Any = None,
) -> StepFn:
    """Return the jitted function (state, fixed, batch) -> (state, metrics).

    The state passed in may not be used again. Nothing is differentiated with respect to `fixed`.

    Args:
        loss_fn: (params, fixed, batch, key) -> (scalar loss, dict of scalar metrics); pure.
        optimizer: from `make_optimizer`.
        stage: schedule, moving average and bounds.
        seed: of the run.
        shardings: of the state, as a `TrainState` of them, on a mesh; gradients lie as the
            parameters they belong to. The mesh is to be set (`jax.set_mesh`) when the function is
            called.
    """

    def update(
        state: TrainState, fixed: Any, batch: Any
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        key = key_for(seed, state.step, Purpose.TRAIN_LOSS)
        differentiate = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, metrics), grads = differentiate(state.params, fixed, batch, key)
        if shardings is not None:
            grads = jax.lax.with_sharding_constraint(grads, shardings.params)
        norm = optax.global_norm(grads)
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
        return TrainState(state.step + 1, *kept), metrics

    placed = None if shardings is None else (shardings, NamedSharding(shardings.step.mesh, P()))
    return jax.jit(update, donate_argnums=0, out_shardings=placed)


def _average(ema: Any, params: Any, step: jax.Array, decay: float) -> Any:
    """Move the average towards `params`.

    Early steps forget faster: min(decay, (1 + n) / (10 + n)). An average of nothing stays so.
    """
    if not jax.tree.leaves(ema):
        return ema
    done = step.astype(jnp.float32)
    weight = 1.0 - jnp.minimum(decay, (1.0 + done) / (10.0 + done))
    return jax.tree.map(lambda e, p: e + weight * (p - e), ema, params)
