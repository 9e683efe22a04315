"""What a stage trains and what it holds fixed: two parameter trees that join into one.

Gradients are taken with respect to the trained tree alone, so that parameters held fixed cost no
gradient, no moments and no average: they are arguments of the step like a batch. A LoRA is trained
beside the kernels it changes (`models/adapted.py`), never merged while it is trained.

Conventions: trees hold "denoiser" and, where there is one, "learned_read"; the trained one may also
hold "lora", whose tree mirrors that of the denoiser. Read next: `mirage_jax/train/start.py` (where
given parameters come from), `mirage_jax/train/denoiser_stage.py`.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mirage_jax.distributed import processes
from mirage_jax.models import functional
from mirage_jax.models.adapted import adapted
from mirage_jax.models.functional import Params, abstract_params, flatten, unflatten
from mirage_jax.models.lora import init_lora
from mirage_jax.train.config import WorldConfig
from mirage_jax.train.stage_config import DenoiserStageConfig


class Split(NamedTuple):
    """Parameters of a stage.

    Attributes:
        trained: nested dict; what the optimizer moves and the checkpoint holds.
        fixed: nested dict of the others; {} if everything is trained.
    """

    trained: Params
    fixed: Params


def split(params: Params, stage: DenoiserStageConfig, key: jax.Array) -> Split:
    """Split parameters into what `stage` trains and what it holds fixed.

    Args:
        params: "denoiser" and others -> nested dict.
        stage: patterns of trained names, LoRA, and the type of what is fixed.
        key: of the LoRA's first factors; its second ones are zero.

    Returns:
        Trained parameters in float32, fixed ones in `stage.fixed_dtype`.

    Raises:
        ValueError: if a pattern matches no parameter.
    """
    flat = flatten(params)
    names = {path: "/".join(path) for path in flat}
    for pattern in stage.trainable:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names.values()):
            shown = ", ".join(list(names.values())[:8])
            raise ValueError(
                f"trainable: pattern {pattern!r} matches none of {len(names)} parameters, expected "
                f"at least one; names look like: {shown}"
            )
    is_trained = {
        path: any(fnmatch.fnmatchcase(name, pattern) for pattern in stage.trainable)
        for path, name in names.items()
    }
    trained = unflatten({p: x.astype(jnp.float32) for p, x in flat.items() if is_trained[p]})
    fixed = {p: x.astype(stage.fixed_dtype) for p, x in flat.items() if not is_trained[p]}
    if stage.lora is not None:
        trained["lora"] = init_lora(stage.lora, params["denoiser"], key)
    return Split(trained, unflatten(fixed))


def abstract_split(world: WorldConfig, stage: DenoiserStageConfig) -> Split:
    """Return shapes and types of what `split` gives, without allocating anything."""
    configs = {"denoiser": world.denoiser, "learned_read": world.learned_read}
    params = {name: abstract_params(c) for name, c in configs.items() if c is not None}
    return jax.eval_shape(lambda tree: split(tree, stage, jax.random.key(0)), params)


def logical_axes(world: WorldConfig, stage: DenoiserStageConfig) -> Params:
    """Return the logical axes of all parameters of a stage, a LoRA's under "lora" as well."""
    denoiser = functional.logical_axes(tuned_world(world, stage).denoiser)
    axes = {"denoiser": denoiser, "lora": denoiser}
    if world.learned_read is not None:
        axes["learned_read"] = functional.logical_axes(world.learned_read)
    return axes


def join(trained: Params, fixed: Params) -> Params:
    """Return the whole tree; the LoRA's factors lie beside the kernels of the denoiser."""
    flat = flatten(fixed)
    for path, leaf in flatten(trained).items():
        flat[("denoiser", *path[1:]) if path[0] == "lora" else path] = leaf
    return unflatten(flat)


def whole_models(trained: Params, fixed: Params) -> Params:
    """Return the whole tree of each model of which a part was trained; a LoRA stands for itself."""
    whole = join({name: tree for name, tree in trained.items() if name != "lora"}, fixed)
    return {name: trained[name] if name == "lora" else whole[name] for name in trained}


def tuned_world(world: WorldConfig, stage: DenoiserStageConfig) -> WorldConfig:
    """Return the config whose denoiser takes the tree that `join` gives."""
    if stage.lora is None:
        return world
    return dataclasses.replace(world, denoiser=adapted(world.denoiser, stage.lora))


def digest(params: Params) -> str:
    """Return a SHA-256 of names, shapes, types and values: says which weights a LoRA belongs to.

    All processes of a run must call it, as it may gather parts of arrays.
    """
    sha = hashlib.sha256()
    for path, leaf in flatten(params).items():
        array: Any = processes.to_host(leaf)
        sha.update(f"{'/'.join(path)} {array.shape} {array.dtype};".encode())
        sha.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return sha.hexdigest()
