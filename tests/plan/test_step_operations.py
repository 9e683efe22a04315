"""Utilisation is measured by a count from the config; here beside that of the compiler."""

import jax
import numpy as np
import pytest
from blank_latents import blank_latents

from mirage_jax.distributed.mesh import make_mesh
from mirage_jax.models import functional
from mirage_jax.plan import operations, steps
from mirage_jax.train import config as config_lib
from mirage_jax.train.denoiser_stage import DenoiserObjective
from mirage_jax.train.latents import CodecWeights
from mirage_jax.train.optimizer import make_optimizer
from mirage_jax.train.placement import abstract_state
from mirage_jax.train.step import make_step
from mirage_jax.train.tuning import abstract_split
from mirage_jax.train.windows.scores import ValidationWindows

VALUES = {
    "name": "counted",
    "data": {"source": "procedural", "height": 64, "width": 96},
    "codec": {"latent_channels": 8, "width": 8, "encoder_blocks": 1, "decoder_blocks": 1},
    "depth_head": None,
    "learned_read": None,
    "denoiser": {
        "latent_channels": 8,
        "out_channels": 8,
        "width": 128,
        "heads": 2,
        "layers": 2,
        "mlp_width": 512,
        "branch_layers": (0,),
        "condition_channels": 20,
        "attention": "library",
        "unroll": 2,  # a compiler counts the body of a loop once
    },
    "memory": {"capacity": 64, "channels": 8},
    "chunk": {"latent_frames": 2, "preceding": 1},
    "denoiser_train": {
        "batch": 8,
        "ema_decay": 0.0,
        "windows": {"memory_frames": 1, "first_fraction": 0.5, "memory_off": 0.0},
    },
}


def counts(remat):
    """Return what the config says and what the compiler counts of a whole update."""
    world = config_lib.from_dict(config_lib.WorldConfig, VALUES)
    world = config_lib.replace(world, {"denoiser.remat": remat})
    codec = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype), functional.abstract_params(world.codec)
    )
    nothing = ValidationWindows([], [], [], 1)
    objective = DenoiserObjective(
        world, CodecWeights(world.codec, codec, ""), blank_latents(world), nothing
    )
    stage, (trained, fixed) = objective.stage, abstract_split(world, objective.stage)
    optimizer = make_optimizer(stage, trained)
    step = make_step(objective.loss, optimizer, stage, 0)
    state = abstract_state(trained, optimizer, average=False)
    lowered = step.lower(state, fixed, objective.batch(0))
    return operations.training_step(world, stage), lowered.cost_analysis()["flops"]


@pytest.mark.parametrize("remat", ["none", "full"])
def test_operations_of_an_update_are_those_that_the_compiler_counts(remat):
    counted, compiled = counts(remat)
    # The compiler also counts softmax, norms, activations, the memory and the optimizer: 2 % here,
    # less at any useful size. Nothing that the count has is missing there, hence at most 1.
    assert 0.95 < counted.executed / compiled <= 1.0
    if remat == "none":
        assert counted.model == counted.executed
    assert counted.tokens == 24 * (4 * 2 + 4 * 3)  # 24 a frame, first chunks and later ones


def test_an_update_is_compiled_from_shapes_alone_without_a_clip_or_a_parameter():
    world = config_lib.from_dict(config_lib.WorldConfig, VALUES)
    compiled = steps.compile_training(world, "denoiser", make_mesh(world.mesh, jax.devices()[:1]))
    held = jax.tree.leaves(functional.abstract_params(world.denoiser))
    assert compiled.held["parameters trained"] == sum(4 * leaf.size for leaf in held)
