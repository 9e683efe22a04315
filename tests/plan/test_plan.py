"""Plans: what is counted from configs and read off programs, against what it stands for."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blank_latents import blank_latents
from click.testing import CliRunner

from mirage_jax.cli.main import cli
from mirage_jax.distributed.collectives import read_collectives
from mirage_jax.distributed.mesh import parse_mesh
from mirage_jax.distributed.targets import parse_target
from mirage_jax.models import functional
from mirage_jax.models.denoiser import DenoiserConfig, FrameLayout
from mirage_jax.plan import meshes, operations
from mirage_jax.plan.steps import batch_shapes
from mirage_jax.train import config as config_lib
from mirage_jax.train.windows.draw import draw_batch

ROOT = Path(__file__).parents[2]

PROGRAM = """HloModule jit_f

%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %add = f32[] add(%a, %b)
}

%body (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %g = bf16[64,128]{1,0} all-gather(%x), replica_groups=[16,4]<=[64], dimensions={0}
  %s = (bf16[2,128]{1,0}, bf16[8,128]{1,0}) all-gather-start(%y), replica_groups={{0,1,2,3}}
  %m = f32[6]{0} reduce-scatter(%z), replica_groups=mesh['data'=2,'fsdp'=32] {'fsdp':(1)4}
  %d = bf16[8,128]{1,0} all-gather-done(%s)
  %p = ((bf16[12,8]{1,0}), (bf16[3,8]{1,0})) reduce-scatter-start(%y), replica_groups={{0,1,2,3}}
}

%condition (p: (s32[], f32[8,4])) -> pred[] {
  %n = s32[]{:T(128)} constant(30)
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (p: f32[8,4]) -> f32[8,4] {
  %w = (s32[], f32[8,4]) while(%t), condition=%condition, body=%body, LOOP
  %r = f32[16]{0} all-reduce(%q), replica_groups={}, to_apply=%sum
  %c = (f32[4]{0}, f32[4]{0}) all-to-all(%a, %b), replica_groups={{0,1},{2,3}}
}
"""


@pytest.mark.parametrize("loop", ["", 'backend_config={"known_trip_count":{"n":"30"}}'])
def test_collectives_in_a_loop_count_as_often_as_it_runs(loop):
    found = read_collectives(PROGRAM.replace("LOOP", loop), devices=64)
    gather = found["all-gather"]
    assert gather.count == 60
    assert gather.bytes == 30 * (64 * 128 + 8 * 128) * 2
    assert gather.sent == gather.bytes * 3 / 4
    assert found["all-reduce"].sent == 2 * 16 * 4 * 63 / 64
    assert found["all-to-all"].sent == 32 / 2
    assert found["reduce-scatter"].sent == 30 * (6 * 4 + 3 * 8 * 2) * 3
    assert set(found) == {"all-gather", "all-reduce", "all-to-all", "reduce-scatter"}


CHAIN = """HloModule jit_f

%start (p: bf16[8,128]) -> (bf16[8,128], bf16[64,128]) {
  %a = bf16[64,128]{1,0} all-gather(%p), replica_groups=[1,8]<=[8], frontend_attributes={chain_id="7"}
}

%go_on (p: bf16[8,128], x: bf16[64,128]) -> (f32[16,16], bf16[64,128]) {
  %m = f32[16,16]{1,0} dot(%u, %v)
  %b = bf16[64,128]{1,0} all-gather(%p), replica_groups=[1,8]<=[8], frontend_attributes={chain_id="7"}
}

%done (p: bf16[8,128], x: bf16[64,128]) -> bf16[64,128] {
  %c = bf16[64,128]{1,0} all-gather(%p), replica_groups=[1,8]<=[8], frontend_attributes={chain_id="7"}
}

ENTRY %main (p: bf16[8,128]) -> bf16[64,128] {
  %async-collective-start.1 = (bf16[8,128], bf16[64,128]) fusion(%p), kind=kCustom, calls=%start
  %fusion.3 = (f32[16,16], bf16[64,128]) fusion(%s, %t), kind=kCustom, calls=%go_on
  %async-collective-done.1 = bf16[64,128]{1,0} fusion(%s, %u), kind=kCustom, calls=%done
  %d = bf16[16,128]{1,0} all-gather(%q), replica_groups=[2,4]<=[8], dimensions={0}
}
"""  # noqa: E501


def test_a_collective_that_overlaps_other_work_counts_once():
    gather = read_collectives(CHAIN, devices=8)["all-gather"]
    assert gather.count == 2
    assert gather.sent == (64 * 128 * 7 / 8 + 16 * 128 * 3 / 4) * 2


def world(name="procedural.py"):
    return config_lib.load(str(ROOT / "configs" / name))


@pytest.mark.parametrize("name", ["procedural.py", "doom.py:tiny"])
def test_planned_batches_have_the_shapes_of_drawn_ones(name):
    config = world(name)
    stage = config.denoiser_train
    drawn = draw_batch(
        blank_latents(config),
        stage.windows,
        config.chunk,
        seed=0,
        step=0,
        clips=np.zeros(stage.batch, int),
    )
    planned = batch_shapes(config, "denoiser")
    assert {k: (v.shape, v.dtype) for k, v in planned.items()} == {
        k: (v.shape, v.dtype) for k, v in drawn.items()
    }


def test_counted_operations_are_those_of_the_compiler():
    config = DenoiserConfig(
        latent_channels=8,
        out_channels=8,
        width=64,
        layers=2,
        mlp_width=192,
        branch_layers=(0,),
        condition_channels=12,
        time_frequencies=32,
        attention="library",
        unroll=2,  # a compiler counts the body of a loop once
    )
    frames = FrameLayout(target=2, preceding=1)

    def apply(params, x, timestep, condition):
        return functional.apply(config, params, x, timestep, condition, None, frames)

    shapes = [(1, 3, 8, 12, 8), (1, 3), (1, 3, 8, 12, 12)]
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    lowered = jax.jit(apply).lower(functional.abstract_params(config), *arguments)
    counted = operations.forward_pass(config, frame_tokens=24, frames=3, references=0)
    # The compiler also counts norms, activations and softmax.
    assert 0.8 < counted.total / lowered.cost_analysis()["flops"] <= 1.0


def test_a_stage_that_trains_less_costs_less_backwards():
    config = world("wan5b.py:release")
    count = {
        name: operations.training_step(config, config.denoiser_stage(name)).model
        for name in ("branch", "lora", "full")
    }
    assert count["lora"] < count["branch"] < count["full"]
    # All products forwards once, backwards twice.
    assert count["full"] / count["lora"] < 1.5


def test_meshes_divide_rows_heads_and_tokens_and_the_least_divided_sequence_comes_first():
    config = config_lib.replace(world("wan5b.py:release"), {"full_train.batch": 64})
    found = list(meshes.candidates(config, "full", 64))
    assert found[0] == {"data": 1, "fsdp": 16, "context": 4, "tensor": 1}
    for mesh in found:
        assert np.prod(list(mesh.values())) == 64
        # First chunks are a quarter of the batch.
        assert 16 % (mesh["data"] * mesh["fsdp"]) == 0
        assert 24 % (mesh["context"] * mesh["tensor"]) == 0
    with pytest.raises(ValueError, match="64 devices divide a batch of 4 .*give a larger --batch"):
        meshes.mesh_for(world("wan5b.py:release"), "full", 64, 1e12)


def test_weights_are_divided_among_no_more_devices_however_many_there_are():
    for devices in (64, 256, 4096):
        config = config_lib.replace(world("wan5b.py:paper"), {"full_train.batch": devices})
        found = meshes.mesh_for(config, "full", devices, 95e9)
        assert found == {"data": devices // 64, "fsdp": 16, "context": 4, "tensor": 1}
    # Where that does not fit they are, thinly.
    shares = [m["fsdp"] * m["context"] for m in meshes.candidates(config, "full", 4096)]
    assert max(shares) == 1024
    assert shares.index(1024) > shares.index(64)


def test_targets_are_read_or_refused():
    assert parse_target("v5p:4x4x4").devices == 64
    assert parse_target("tpu7x:4x4x4").devices == 128
    for wrong in ("v5p", "v9:4x4", "v5p:4x", "v5p:0x4"):
        with pytest.raises(ValueError, match=f"--target: got '{wrong}', expected kind:shape"):
            parse_target(wrong)


def test_the_command_estimates_without_compiling_and_ends_with_one_json_object():
    command = ["plan", "--config", str(ROOT / "configs/wan5b.py:release"), "--stage", "full"]
    command += ["--target", "v5e:2x2", "--batch", "4", "--no-compile", "--json"]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    values = json.loads(done.output.splitlines()[-1])
    assert not values["fits"]  # 30 GB of state a device
    assert values["bytes_per_device"] > 2**34
    assert 0 < values["mfu_bound"] < 1
    assert values["step_seconds_bound"] > 0
    assert values["collectives"] == {}
    assert "does NOT fit its 15.75 GiB" in done.output
    assert values["nearest_mesh_that_fits"] in done.output


def test_what_does_not_fit_names_the_nearest_mesh_that_does():
    config = config_lib.replace(world("wan5b.py:release"), {"full_train.batch": 4})
    memory = 15.75 * 2**30
    assert meshes.first_that_fits(config, "full", 4, memory) is None
    said = meshes.nearest_that_fits(config, "full", 4, memory)
    count, _, axes = said.partition(" devices, ")
    sizes = dict.fromkeys(("data", "fsdp", "context", "tensor"), 1) | parse_mesh(
        axes.rpartition(", ")[2].replace(" ", ",")
    )
    assert np.prod(list(sizes.values())) == int(count)
    assert sum(meshes.estimated_bytes(config, "full", sizes).values()) <= memory
    half = meshes.first_that_fits(config, "full", int(count) // 2, memory)
    assert half is None
    assert meshes.nearest_that_fits(config, "full", 4, 1e6) == ""
