"""Plans of a rollout's chunk: every program that a chunk runs is in them."""

import dataclasses
import json
from pathlib import Path

import jax
import pytest
from click.testing import CliRunner
from simulated_devices import outcome_of

from mirage_jax.cli.main import cli
from mirage_jax.distributed.targets import parse_target
from mirage_jax.models import functional
from mirage_jax.models.autoencoder import AutoencoderConfig
from mirage_jax.plan import decoding, make, meshes
from mirage_jax.train import config as config_lib

ROOT = Path(__file__).parents[2]
_PROGRAM = Path(__file__).with_name("rollout_plan_program.py")


def world(name):
    return config_lib.load(str(ROOT / "configs" / name))


@pytest.mark.multi_device
@pytest.mark.xdist_group("rollout_plan")
def test_a_chunk_compiled_for_eight_devices_holds_what_it_is_made_of():
    one, many = outcome_of(_PROGRAM)
    assert (one["batch"], many["batch"]) == (1, 4)
    for plan in (one, many):
        assert plan["compiled"]
        assert plan["fits"]
        assert plan["bytes_per_device"] == sum(plan["bytes"].values())
        assert plan["bytes"]["temporary"] > 0
        assert plan["step_seconds_bound"] == max(plan["seconds"].values()) > 0
        assert 0 < plan["mfu_bound"] <= 1
    # Four times the rollouts are four times the work; weights are divided, memories are one each.
    assert many["operations"]["model"] == pytest.approx(4 * one["operations"]["model"])
    assert many["bytes"]["denoiser parameters"] < one["bytes"]["denoiser parameters"] / 3
    assert many["bytes"]["latent memory"] == one["bytes"]["latent memory"]
    assert many["bytes"]["decoder"] == one["bytes"]["decoder"]
    assert many["bytes"]["codec parameters"] == one["bytes"]["codec parameters"]
    assert set(one["temporaries"]) == {"the start", "a chunk's latents", "decoding"}
    assert one["bytes"]["temporary"] == max(one["temporaries"].values())
    assert one["collectives"] == {}
    # Two devices of a row exchange heads; weights are gathered at every solver step.
    assert many["collectives"]["all-to-all"]["sent"] > 0
    assert many["collectives"]["all-gather"]["sent"] > many["bytes"]["denoiser parameters"]


def test_the_autoencoder_decodes_a_chunk_latent_by_latent_without_the_one_it_has_already():
    small = AutoencoderConfig(encoder_width=8, decoder_width=8, blocks=1)
    config = dataclasses.replace(world("wan5b.py:release"), codec=small)
    carried = decoding.decoding(_decoded(config, "carried"), 2)
    assert carried.times == config.chunk.latent_frames - 1
    frames, _ = jax.eval_shape(carried.program, carried.params, *carried.arrays)
    height, width = config.data.height, config.data.width
    assert frames.shape == (2, config.chunk.temporal_stride, height, width, 3)
    # What is carried on is what was carried in, or a chunk would not compile once.
    _, past = jax.eval_shape(carried.program, carried.params, *carried.arrays)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), past) == jax.tree.map(
        lambda x: (x.shape, x.dtype), carried.arrays[1]
    )


def _decoded(config, how):
    return dataclasses.replace(config, chunk=dataclasses.replace(config.chunk, decode=how))


def test_operations_of_decoding_are_at_least_those_of_its_products():
    config = world("procedural.py")
    counted = decoding.operations(config)
    kernels = functional.flatten(functional.abstract_params(config.codec)["decoder"])
    cells = config.chunk.latent_frames * config.grid_hw[0] * config.grid_hw[1]
    # Every kernel is applied in every cell at least once.
    least = sum(2 * cells * leaf.size for name, leaf in kernels.items() if leaf.ndim > 1)
    assert least < counted < 400 * least


def test_a_rollout_divides_its_weights_as_little_as_fits():
    config, target = world("wan5b.py:release"), parse_target("v5p:4x4x4")
    sizes = meshes.rollout_mesh(config, target.devices, target.chip.memory)
    assert sizes == {"data": 64, "fsdp": 1, "context": 1, "tensor": 1}
    tight = sum(meshes.rollout_bytes(config, sizes).values()) - 1
    other = meshes.rollout_mesh(config, target.devices, tight)
    assert other == {"data": 32, "fsdp": 2, "context": 1, "tensor": 1}
    assert sum(meshes.rollout_bytes(config, other).values()) <= tight
    assert make.plan_rollout(config, target, None).batch == 64


def test_rollouts_that_do_not_fit_name_the_mesh_that_does():
    config, target = world("wan5b.py:release"), parse_target("v6e:2x2")
    given = {"data": 4, "fsdp": 1, "context": 1, "tensor": 1}
    plan = make.plan_rollout(config, target, None, given)
    assert not plan.fits
    assert plan.hint == "fsdp=4"
    assert make.plan_rollout(config, target, None, given | {"data": 1, "fsdp": 4}).fits
    assert meshes.nearest_for_rollouts(config, 4, 1e6) == ""


def test_the_command_plans_the_rollout_alone_and_ends_with_its_json():
    command = ["plan", "--config", str(ROOT / "configs/procedural.py"), "--rollout"]
    command += ["--target", "v5e:2x2", "--mesh", "fsdp=2,context=2", "--no-compile", "--json"]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    values = json.loads(done.output.splitlines()[-1])
    assert values["what"] == "boxes_tiny: a chunk of each of 2 rollouts"
    assert values["also"] == []
    assert values["mesh"] == {"data": 1, "fsdp": 2, "context": 2, "tensor": 1}
    for name in ("fits", "bytes_per_device", "step_seconds_bound", "mfu_bound", "collectives"):
        assert name in values
