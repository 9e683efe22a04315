"""Optimizers by name, a bound on the global gradient norm, and a schedule with warm-up and cosine.

`adamw`; `muon`: the matrices of stacked blocks are moved by their orthogonalised momentum, layer by
layer, all else by AdamW; `adafactor`: second moments as the product of a row and a column for each
layer's matrix, no first moment. All give updates of similar size, so that a learning rate and a
weight decay keep their meaning. Parameters may be frozen by name.

Conventions: the learning rate is a function of the step alone and is applied in `step.py`, so the
transformation here returns a direction without a scale. Arrays in a dict named "blocks" whose keys
are no numbers are stacked: their first axis counts layers, and each layer is treated on its own.
Weight decay acts on arrays of two or more axes beside that one (not on gains and biases). Frozen
parameters have no moments and get an update of exactly zero. Read next: `mirage_jax/train/step.py`.
"""

from __future__ import annotations

import fnmatch
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from mirage_jax.train.stage_config import StageConfig


def parameter_names(params: Any) -> list[str]:
    """Return the name of each leaf, its keys joined by '/', in the order of `jax.tree.leaves`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return ["/".join(_keys(path)) for path, _ in leaves]


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
        stage: optimizer, betas, weight decay, clip_norm and frozen patterns are read from it.
        params: the parameter tree or its abstract twin; only names and shapes are used.

    Raises:
        ValueError: if a pattern of `frozen` matches nothing, or if there is nothing for Muon.
    """
    move = {"adamw": _adamw, "muon": _muon, "adafactor": _adafactor}[stage.optimizer]
    if stage.optimizer == "muon" and not any(jax.tree.leaves(_matrices(params))):
        raise ValueError(
            "optimizer: got 'muon' for parameters without matrices of stacked blocks, expected "
            "those of a denoiser; use 'adamw' for this stage"
        )
    train = optax.chain(
        optax.clip_by_global_norm(stage.clip_norm),
        move(stage),
        optax.add_decayed_weights(
            stage.weight_decay, mask=lambda p: jax.tree.map(lambda n: n >= 2, layer_axes(p))
        ),
    )
    if not stage.frozen:
        return train
    labels = jax.tree.map(lambda f: "frozen" if f else "train", frozen_mask(params, stage.frozen))
    return optax.multi_transform({"train": train, "frozen": optax.set_to_zero()}, labels)


def _adamw(stage: StageConfig) -> optax.GradientTransformation:
    return optax.scale_by_adam(b1=stage.beta1, b2=stage.beta2, eps=1e-8)


def _muon(stage: StageConfig) -> optax.GradientTransformation:
    """Orthogonalise the momentum of each layer's matrices; AdamW for the rest.

    Scaled to the root mean square of a typical update of AdamW, 0.2 (arXiv 2502.16982).
    """
    matrix = optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)
    matrices = optax.chain(
        optax.contrib.scale_by_muon(
            weight_dimension_numbers=lambda tree: jax.tree.map(lambda _: matrix, tree)
        ),
        optax.stateless(
            lambda updates, _: jax.tree.map(lambda u: 0.2 * max(u.shape[1:]) ** 0.5 * u, updates)
        ),
    )

    def labels(params: Any) -> Any:
        return jax.tree.map(lambda found: "muon" if found else "adamw", _matrices(params))

    return optax.partition({"muon": matrices, "adamw": _adamw(stage)}, labels)


def _adafactor(stage: StageConfig) -> optax.GradientTransformation:
    """Divide by the root of factored second moments, then bound each layer's update.

    A layer's update, and that of an array that is not stacked, has a root mean square of at most 1.
    """
    del stage  # its second moments forget by a power of the step, and there is no first one

    def bound(updates: Any, params: Any) -> Any:
        del params
        return jax.tree.map(_bounded, updates, layer_axes(updates))

    return optax.chain(
        optax.scale_by_factored_rms(min_dim_size_to_factor=128), optax.stateless(bound)
    )


def _bounded(update: jax.Array, layer_axes: int) -> jax.Array:
    axes = tuple(range(update.ndim - layer_axes, update.ndim))
    size = jnp.sqrt(jnp.mean(jnp.square(update), axis=axes, keepdims=True))
    return update / jnp.maximum(size, 1.0)


def layer_axes(params: Any) -> Any:
    """Return a tree with the number of axes that each leaf has in one layer."""

    def one(path: tuple[Any, ...], leaf: Any) -> int:
        keys = _keys(path)
        after = keys[keys.index("blocks") + 1] if "blocks" in keys[:-1] else "0"
        return leaf.ndim - (not after.isdigit())

    return jax.tree_util.tree_map_with_path(one, params)


def _matrices(params: Any) -> Any:
    """Return a tree of bool, True where a leaf is a stack of matrices, one for each layer."""

    def one(path: tuple[Any, ...], leaf: Any, axes: int) -> bool:
        return axes == 2 and leaf.ndim == 3 and _keys(path)[-1] in ("kernel", "a", "b")

    return jax.tree_util.tree_map_with_path(one, params, layer_axes(params))


def _keys(path: tuple[Any, ...]) -> list[str]:
    return [str(getattr(part, "key", getattr(part, "idx", part))) for part in path]


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
