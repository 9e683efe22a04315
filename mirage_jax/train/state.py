"""The train state: everything a checkpoint holds, and nothing else.

Conventions: no random keys and no data position live here; both are functions of (seed, step). A
checkpoint named N holds the state whose `step` is N, that is, the state after N updates. Read next:
`mirage_jax/train/step.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class TrainState(NamedTuple):
    """State of one stage of training.

    Attributes:
        step: [] int32, updates done (skipped ones included).
        params: nested dict of arrays.
        opt_state: the optimizer's moments.
        ema: exponential moving average of `params`, same tree; {} where none is kept.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    ema: Any

    @property
    def exported(self) -> Any:
        """The parameters to judge and export: their average, where one is kept."""
        return self.ema if jax.tree.leaves(self.ema) else self.params


def new_state(
    params: Any, optimizer: optax.GradientTransformation, *, average: bool = True
) -> TrainState:
    """Return the state at step 0.

    `ema`, kept if `average`, starts as a copy of `params` with buffers of its own, since the step
    donates both.
    """
    params = jax.tree.map(jnp.array, params)
    ema = jax.tree.map(jnp.array, params) if average else {}
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), ema)
