"""AdamW with warm-up, cosine decay and a bound on the global gradient norm.

Parameters may be frozen by name.

Conventions: the learning rate is a function of the step alone and is applied in `step.py`, so the
transformation here returns a direction without a scale. Weight decay acts on arrays of two or more
axes only (not on gains and biases). Frozen parameters have no moments and get an update of exactly
zero. Read next: `mirage_jax/train/step.py`.
"""

from __future__ import annotations

import fnmatch
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mirage_jax.train.stage_config import StageConfig


def parameter_names(params: Any) -> list[str]:
    """Return the name of each leaf, its keys joined by '/', in the order of `jax.tree.leaves`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return [
        "/".join(str(getattr(k, "key", getattr(k, "idx", k))) for k in path) for path, _ in leaves
    ]


def frozen_mask(params: Any, patterns: tuple[str, ...]) -> Any:
    """Return a tree of bool, True where the leaf's name matches one of the shell-style `patterns`.

    Raises:
        ValueError: if a pattern matches no parameter.
    """
    names = parameter_names(params)
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            shown = ", ".join(names[:8])
            raise ValueError(
                f"frozen: pattern {pattern!r} matches none of {len(names)} parameters, expected at "
                "least one; "
                f"names look like: {shown}"
            )
    mask = [any(fnmatch.fnmatchcase(name, p) for p in patterns) for name in names]
    return jax.tree.unflatten(jax.tree.structure(params), mask)


def make_optimizer(stage: StageConfig, params: Any) -> optax.GradientTransformation:
    """Build the transformation from gradients to a descent direction.

    The result is to be scaled by `-learning_rate(stage, step)`.

    Args:
        stage: betas, weight decay, clip_norm and frozen patterns are read from it.
        params: the parameter tree or its abstract twin; only names and shapes are used.
    """
    train = optax.chain(
        optax.clip_by_global_norm(stage.clip_norm),
        optax.scale_by_adam(b1=stage.beta1, b2=stage.beta2, eps=1e-8),
        optax.add_decayed_weights(
            stage.weight_decay, mask=lambda p: jax.tree.map(lambda x: x.ndim >= 2, p)
        ),
    )
    if not stage.frozen:
        return train
    labels = jax.tree.map(lambda f: "frozen" if f else "train", frozen_mask(params, stage.frozen))
    return optax.multi_transform({"train": train, "frozen": optax.set_to_zero()}, labels)


def learning_rate(stage: StageConfig, step: jax.Array) -> jax.Array:
    """Return the learning rate at `step` [].

    Linear warm-up, then half a cosine down to `final_fraction` of the peak.
    """
    done = step.astype(jnp.float32)
    warm = (done + 1.0) / max(stage.warmup_steps, 1)
    span = max(stage.steps - stage.warmup_steps, 1)
    phase = jnp.clip((done - stage.warmup_steps) / span, 0.0, 1.0)
    cosine = 0.5 * (1.0 + jnp.cos(math.pi * phase))
    decay = stage.final_fraction + (1.0 - stage.final_fraction) * cosine
    return stage.learning_rate * jnp.minimum(warm, decay)
