"""Trains a tiny world on meshes of simulated devices and prints what came of it as JSON.

A program of its own, since devices are counted when JAX starts; `test_training_on_meshes.py` runs
it with eight of them, and, with names of meshes as arguments, as two processes of four each.
"""

import functools
import json
import re
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
from blank_latents import blank_latents

from mirage_jax.distributed import processes
from mirage_jax.distributed.mesh import MeshConfig, make_mesh
from mirage_jax.models import functional, pca
from mirage_jax.train import config as config_lib
from mirage_jax.train import loop
from mirage_jax.train.checkpoint import Checkpoints
from mirage_jax.train.codec_stage import CodecObjective
from mirage_jax.train.denoiser_stage import DenoiserObjective
from mirage_jax.train.depth_stage import DepthObjective
from mirage_jax.train.latents import CodecWeights
from mirage_jax.train.optimizer import make_optimizer
from mirage_jax.train.placement import Placement, abstract_state, placed_like
from mirage_jax.train.step import make_step
from mirage_jax.train.windows.scores import ValidationWindows

MESHES = {
    "one": {},
    "data=8": {"data": 8},
    "fsdp=8": {"fsdp": 8},
    "context=4 tensor=2": {"context": 4, "tensor": 2},
    "fsdp=2 context=2 tensor=2": {"fsdp": 2, "context": 2, "tensor": 2},
}
ACROSS = "fsdp=2 context=2 tensor=2"
# What else a mesh runs with, none of which changes what is computed.
SETTINGS = {
    "fsdp=8": {"denoiser.remat": "full"},
    "context=4 tensor=2": {"denoiser.remat": "dots", "memory.partitions": 8},
    "fsdp=2 context=2 tensor=2": {"denoiser_train.accumulate": 2},
}
STEPS = 20
VALUES = {
    "name": "meshes",
    "data": {"source": "procedural", "height": 32, "width": 32},
    "codec": {"latent_channels": 8, "width": 8, "encoder_blocks": 1, "decoder_blocks": 1},
    "depth_head": None,
    "learned_read": {"latent_channels": 8, "width": 8, "blocks": 1},
    "denoiser": {
        "latent_channels": 8,
        "out_channels": 8,
        "width": 32,
        "heads": 8,
        "layers": 2,
        "mlp_width": 64,
        "branch_layers": (0,),
        "condition_channels": 20,
        "time_frequencies": 32,
    },
    "memory": {"capacity": 512, "channels": 8},
    "chunk": {"latent_frames": 2, "preceding": 1},
    "denoiser_train": {
        "steps": STEPS,
        "batch": 16,
        "learning_rate": 3e-3,
        "warmup_steps": 2,
        "windows": {"memory_frames": 1, "first_fraction": 0.5, "memory_off": 0.0},
    },
}
# What the stages before the denoiser's need besides.
OTHER_VALUES = {
    "depth_head": {"latent_channels": 8, "width": 8, "blocks": 1},
    "codec_train": {
        "steps": 4,
        "batch": 16,
        "crop_frames": 5,
        "crop_height": 32,
        "crop_width": 32,
        "pca_clips": 8,
    },
    "depth_train": {"steps": 4, "batch": 16, "windows": {"memory_frames": 1}},
}


def random_latents(world):
    """Latents of one clip with values to learn from."""
    rng = np.random.default_rng(0)
    blank = blank_latents(world)
    drawn = {
        name: rng.normal(size=getattr(blank, name).shape).astype(np.float16)
        for name in ("video", "single", "held")
    }
    depth = rng.uniform(2.0, 6.0, blank.depth.shape).astype(np.float32)
    turned = blank.intrinsics.copy()
    turned[..., :2, 2] = world.grid_hw[0] / 2
    turned[..., [0, 1], [0, 1]] = world.grid_hw[0]
    everywhere = np.ones(blank.keep.shape, bool)
    seen = {"depth": depth, "keep": everywhere, "known": everywhere}
    return blank._replace(**drawn, **seen, intrinsics=turned)


def objective(settings):
    """Return the real objective on latents that need no codec."""
    world = config_lib.replace(config_lib.from_dict(config_lib.WorldConfig, VALUES), settings)
    nothing = ValidationWindows([], [], [], 1)
    return DenoiserObjective(world, *codec_and_latents(), nothing)


@functools.cache
def codec_and_latents():
    """Return what is the same whatever the mesh: weights of the codec, and latents."""
    world = config_lib.from_dict(config_lib.WorldConfig, VALUES)
    codec = functional.init(world.codec, 0)
    return CodecWeights(world.codec, pca_like(world, codec), ""), random_latents(world)


def other_objectives():
    """Return the objectives of the stages before the denoiser's, convolutions all of them."""
    rng = np.random.default_rng(2)
    clips = [{"rgb": rng.integers(0, 256, (9, 32, 32, 3)).astype(np.uint8)} for _ in range(3)]
    world = config_lib.from_dict(config_lib.WorldConfig, VALUES | OTHER_VALUES)
    validation = ValidationWindows([], [], [], 1)
    return {
        "codec": CodecObjective(world, clips, clips),
        "depth": DepthObjective(world, random_latents(world), validation),
    }


def pca_like(world, codec):
    """Give the codec the linear path that channel weights are read from."""
    crops = np.random.default_rng(1).integers(0, 256, (8, 9, 32, 32, 3)).astype(np.uint8)
    return pca.fit(world.codec, codec, crops)


def start(stage, sizes):
    """Return mesh, placement, state, step and the parameters held fixed."""
    mesh = make_mesh(MeshConfig(**sizes))
    placement = Placement(mesh)
    params, fixed = loop._parameters(stage, placement)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder))
        state, optimizer = loop._start(stage, params, checkpoints, placement)
        checkpoints.close()
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    step = make_step(stage.loss, optimizer, stage.stage, 0, shardings)
    return mesh, placement, state, fixed, step


def run(stage, sizes, steps=STEPS):
    """Return the last state, and the losses and facts about where things lay."""
    mesh, placement, state, fixed, step = start(stage, sizes)
    feed, losses, norms = loop._placed(stage, placement), [], []
    before = jax.tree.map(lambda leaf: leaf.sharding, state)
    with jax.set_mesh(mesh):
        # Compiled ahead, the step refuses a state that lies elsewhere than the first one did.
        compiled = step.lower(state, fixed, feed(0)).compile()
        for index in range(steps):
            state, metrics = compiled(state, fixed, feed(index))
            losses.append(float(metrics["loss"]))
            norms.append(float(metrics["grad_norm"]))
    facts = {
        "losses": losses,
        "norms": norms,
        "kept": before == jax.tree.map(lambda leaf: leaf.sharding, state),
        "share": share(state.params),
        "collectives": collectives(compiled.as_text()),
    }
    return state, facts


def share(params):
    """Return the part of the largest array that a device holds."""
    largest = max(jax.tree.leaves(params), key=lambda leaf: leaf.size)
    return largest.addressable_shards[0].data.size / largest.size


def collectives(text):
    """Count collectives by kind in a compiled step."""
    names = ("all-gather", "all-reduce", "all-to-all", "reduce-scatter", "collective-permute")
    return {name: len(re.findall(rf" {name}(?:-start)?\(", text)) for name in names}


def vector(state):
    """Return all parameters as one vector."""
    leaves = jax.tree.leaves(processes.to_host(state.params))
    return np.concatenate([np.ravel(leaf) for leaf in leaves])


def restored(stage, state):
    """Save a state of eight devices, read it on four, save that, read it on one: same bits?"""
    whole = jax.tree.map(np.asarray, state)
    found = {}
    for sizes, name in (({"fsdp": 2, "tensor": 2}, "four"), ({}, "one")):
        with tempfile.TemporaryDirectory() as folder:
            checkpoints = Checkpoints(Path(folder))
            checkpoints.save(state)
            optimizer = make_optimizer(stage.stage, state.params)
            shapes = abstract_state(state.params, optimizer, average=True)
            shardings = Placement(make_mesh(MeshConfig(**sizes))).state(stage.axes()[0], shapes)
            state = checkpoints.restore(placed_like(shapes, shardings))
            checkpoints.close()
        pairs = zip(jax.tree.leaves(whole), jax.tree.leaves(state), strict=True)
        placed = shardings == jax.tree.map(lambda leaf: leaf.sharding, state)
        found[name] = placed and all(np.array_equal(a, np.asarray(b)) for a, b in pairs)
    return found


def several(names):
    """Run meshes of which each process has a part; the first one prints the outcome."""
    processes.start()
    result = {}
    for name in names:
        stage = objective(SETTINGS.get(name, {}))
        state, facts = run(stage, MESHES[name])
        placement = Placement(make_mesh(MeshConfig(**MESHES[name])))
        placed, whole = loop._placed(stage, placement)(STEPS), stage.batch(STEPS)
        facts["batch"] = all(
            np.array_equal(processes.to_host(placed[key]), whole[key]) for key in whole
        )
        rows = np.zeros((processes.count(), stage.stage.batch), int)
        rows[processes.index(), placement.own_rows(stage.stage.batch)] = 1
        facts["rows"] = [[processes.largest(mine) for mine in process] for process in rows]
        facts["end"] = vector(state).tolist()
        result[name] = facts
    if processes.is_first():
        sys.stdout.write(json.dumps(result) + "\n")


def main():
    """Run all meshes and print the outcome."""
    if sys.argv[1:]:
        several(sys.argv[1:])
        return
    stages = {name: objective(SETTINGS.get(name, {})) for name in MESHES}
    begin = vector(start(stages["one"], {})[2])
    outcome = {name: run(stages[name], sizes) for name, sizes in MESHES.items()}
    result = {name: facts for name, (_, facts) in outcome.items()}
    end = vector(outcome["one"][0])
    for state, facts in outcome.values():
        facts["apart"] = float(np.linalg.norm(vector(state) - end) / np.linalg.norm(end - begin))
    result["one"] |= {"begin": begin.tolist(), "end": end.tolist()}
    for name, stage in other_objectives().items():
        result[name] = [run(stage, MESHES[mesh], 4)[1] for mesh in ("one", ACROSS)]
    result["restored"] = restored(stages["one"], outcome[ACROSS][0])
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
