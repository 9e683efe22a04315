"""Updates by every optimizer, whole and in micro-batches, on eight devices and on one, as JSON.

A program of its own, since devices are counted when JAX starts; `test_updates_on_meshes.py` runs it
with eight of them. The model is a stack of residual layers: small, but with everything that an
update meets, stacked matrices and vectors, an embedding, draws of its own, an array without rows.
"""

import json
import re
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mirage_jax.distributed.axes import left_whole
from mirage_jax.distributed.mesh import MeshConfig, make_mesh
from mirage_jax.train.checkpoint import Checkpoints
from mirage_jax.train.optimizer import make_optimizer
from mirage_jax.train.placement import Placement, abstract_state, placed_like
from mirage_jax.train.stage_config import StageConfig
from mirage_jax.train.state import new_state
from mirage_jax.train.step import make_step

LAYERS, WIDTH, HIDDEN, ROWS, STEPS = 3, 128, 256, 16, 4
MESHES = {
    "one": {},
    "data=2 fsdp=4": {"data": 2, "fsdp": 4},
    "fsdp=2 context=2 tensor=2": {"fsdp": 2, "context": 2, "tensor": 2},
}
# Optimizer, mesh, micro-batches.
RUNS = [("adamw", mesh, count) for mesh in MESHES for count in (1, 2)]
RUNS += [
    run
    for name in ("muon", "adafactor")
    for run in ((name, "one", 1), (name, "fsdp=2 context=2 tensor=2", 2))
]
AXES = {
    "denoiser": {
        "blocks": {
            "up": {"kernel": ("layers", "embed", "mlp"), "bias": ("layers", "mlp")},
            "down": {"kernel": ("layers", "mlp", "embed"), "bias": ("layers", "embed")},
            "square": {"kernel": ("layers", "embed", None)},
        },
        "embedding": {"kernel": (None, "embed")},
    }
}


def parameters():
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape) / 20, jnp.float32)

    blocks = {
        "up": {"kernel": normal(LAYERS, WIDTH, HIDDEN), "bias": normal(LAYERS, HIDDEN)},
        "down": {"kernel": normal(LAYERS, HIDDEN, WIDTH), "bias": normal(LAYERS, WIDTH)},
        "square": {"kernel": normal(LAYERS, WIDTH, WIDTH)},
    }
    return {"denoiser": {"blocks": blocks, "embedding": {"kernel": normal(24, WIDTH)}}}


def loss(params, fixed, batch, keys):
    del fixed
    draws = jax.vmap(lambda key: jax.random.normal(key, batch["x"].shape[1:]))(keys)
    x = (batch["x"] + batch["scale"] * draws) @ params["denoiser"]["embedding"]["kernel"]

    def layer(x, one):
        hidden = jax.nn.relu(x @ one["up"]["kernel"] + one["up"]["bias"])
        x = x + hidden @ one["down"]["kernel"] + one["down"]["bias"]
        return x + jnp.tanh(x) @ one["square"]["kernel"], None

    x, _ = jax.lax.scan(layer, x, params["denoiser"]["blocks"])
    return jnp.mean(jnp.square(x - 1.0), axis=1), {"size": jnp.mean(jnp.abs(x))}


def batch_of(step):
    x = np.random.default_rng(step + 1).normal(size=(ROWS, 24)).astype(np.float32)
    return {"x": x, "scale": np.linspace(0.1, 0.2, 24, dtype=np.float32)}


def run(name, sizes, accumulate, folder):
    """Return the last state and facts about it and about the compiled step."""
    stage = StageConfig(
        steps=STEPS,
        batch=ROWS,
        accumulate=accumulate,
        optimizer=name,
        learning_rate=3e-3,
        weight_decay=0.1,
        frozen=("denoiser/blocks/down/bias",),
    )
    placement = Placement(make_mesh(MeshConfig(**sizes)))
    params = parameters()
    optimizer = make_optimizer(stage, params)
    shapes = abstract_state(params, optimizer, average=True)
    shardings = placement.state(AXES, shapes)
    begin = jax.jit(lambda p: new_state(p, optimizer), out_shardings=shardings)
    state = begin(params)
    step = make_step(loss, optimizer, stage, 0, shardings, shared=["scale"])
    losses = []
    with jax.set_mesh(placement.mesh):

        def fed(index):
            arrays = batch_of(index)
            return placement.put(arrays, placement.batch(arrays, ROWS, ["scale"]))

        compiled = step.lower(state, {}, fed(0)).compile()
        for index in range(STEPS):
            state, metrics = compiled(state, {}, fed(index))
            losses.append(np.asarray(metrics["row_losses"]).tolist())
    facts = {
        "losses": losses,
        "kept": shardings == jax.tree.map(lambda leaf: leaf.sharding, state),
        "whole": left_whole(shapes.opt_state, shardings.opt_state, at_least=1024),
        "collectives": collectives(compiled.as_text()),
        "restored": restored(state, shapes, folder) if accumulate > 1 else None,
    }
    return state, facts


def restored(state, shapes, folder):
    """Save a state and read it on four devices: do all of its arrays come back, divided?"""
    checkpoints = Checkpoints(folder)
    checkpoints.save(state)
    placement = Placement(make_mesh(MeshConfig(fsdp=2, tensor=2)))
    shardings = placement.state(AXES, shapes)
    again = checkpoints.restore(placed_like(shapes, shardings))
    checkpoints.close()
    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True)
    same = all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)
    return same and shardings == jax.tree.map(lambda leaf: leaf.sharding, again)


def collectives(text):
    """Count collectives by kind in a compiled step."""
    names = ("all-gather", "all-reduce", "all-to-all", "reduce-scatter", "collective-permute")
    return {name: len(re.findall(rf" {name}(?:-start)?\(", text)) for name in names}


def main():
    """Run everything and print the outcome."""
    begin = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(parameters())])
    result = {}
    for name, mesh, accumulate in RUNS:
        with tempfile.TemporaryDirectory() as folder:
            state, facts = run(name, MESHES[mesh], accumulate, Path(folder))
        end = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.params)])
        if mesh == "one" and accumulate == 1:
            truth = end
        facts["apart"] = float(np.linalg.norm(end - truth) / np.linalg.norm(truth - begin))
        result[f"{name}, {mesh}, {accumulate}"] = facts
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
