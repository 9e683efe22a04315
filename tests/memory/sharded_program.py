"""Run by `test_memory_sharded.py` in a process of its own, where the CPU counts as eight devices.

Prints one JSON object: for each case whether memory and reads are those of one device, bit for bit;
and what the compiled programs of a small and a large memory ask of each device.
"""

import dataclasses
import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from memory.slow_memory import make_rows, random_cameras

from mirage_jax.memory import read, sharded, state, write
from mirage_jax.plan.memory import Work, compile_memory

HW, ROWS, WRITES, FRAMES = (6, 8), 160, 3, 8
_RULES = {"capacity": 640, "channels": 3, "partitions": 8, "page_rows": 8, "voxel_size": 0.4}
CASES = {
    "newest": state.MemoryConfig(**_RULES | {"capacity": 400}, retention="newest", axes=True),
    "append_farthest": state.MemoryConfig(**_RULES | {"capacity": 320}, when_full="farthest"),
    "mean_oldest_best_view": state.MemoryConfig(
        **_RULES | {"capacity": 256}, retention="mean", when_full="oldest", select="best_view"
    ),
}


def run(config, write_one, read_all, place):
    """Write a few times, with bad rows among the good, and read; return all that came out."""
    rng = np.random.default_rng(3)
    memory, reports = place(state.empty(config)), []
    for _ in range(WRITES):
        rows = make_rows(rng, ROWS, config.channels, spread=1.5)
        rows.positions[3], rows.depth[5], rows.tokens[7] = np.nan, np.inf, np.nan
        memory, report = write_one(memory, rows)
        reports.append(report)
    return memory, reports, read_all(memory, random_cameras(rng, FRAMES, HW))


def on_mesh(config, shape, axes, scatter=False):
    """Return what comes out on a mesh of this shape with the memory over these axes."""
    names = ("data", "fsdp", "context")[: len(shape)]
    devices = np.array(jax.devices()[: int(np.prod(shape))]).reshape(shape)
    placement = sharded.Placement(jax.sharding.Mesh(devices, names), axes)
    write_one = jax.jit(functools.partial(sharded.write, config=config, placement=placement))
    read_all = jax.jit(
        functools.partial(
            sharded.read, grid_hw=HW, config=config, placement=placement, scatter=scatter
        )
    )
    return run(config, write_one, read_all, lambda m: jax.device_put(m, placement.shardings()))


def on_one(config):
    """Return what comes out without devices."""
    write_one = jax.jit(functools.partial(write.write, config=config))
    read_all = jax.jit(functools.partial(read.read, grid_hw=HW, config=config))
    return run(config, write_one, read_all, lambda memory: memory)


def same(first, second):
    """Tell whether two trees are equal; a NaN would never be."""
    leaves = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(np.array_equal(np.asarray(one), np.asarray(other)) for one, other in leaves)


def gradient_agrees():
    """Compare the gradient to the tokens of a scattered read with that on one device."""
    config = CASES["newest"]
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("fsdp",))
    placement = sharded.Placement(mesh, ("fsdp",))
    rng = np.random.default_rng(5)
    memory, _ = write.write(state.empty(config), make_rows(rng, ROWS, 3), config)
    camera = random_cameras(rng, FRAMES, HW)
    weight = rng.normal(size=(FRAMES, *HW, 3)).astype(np.float32)

    def loss(tokens, look):
        return jnp.sum(weight * look(memory._replace(tokens=tokens), camera, HW, config).tokens)

    spread = functools.partial(sharded.read, placement=placement, scatter=True)
    one = jax.jit(jax.grad(functools.partial(loss, look=read.read)))(memory.tokens)
    many = jax.jit(jax.grad(functools.partial(loss, look=spread)))(memory.tokens)
    return bool(np.abs(one).max() > 0) and bool(np.allclose(one, many, rtol=1e-6))


def candidates_agree():
    """Compare the best rows of each cell on four devices with those on one, for both rules."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("fsdp",))
    placement = sharded.Placement(mesh, ("fsdp",))
    agree, more = [], []
    for select in ("nearest", "best_view"):
        config = dataclasses.replace(CASES["newest"], select=select, shell=0.3)
        rng = np.random.default_rng(6)
        memory, _ = write.write(state.empty(config), make_rows(rng, ROWS, 3), config)
        camera = random_cameras(rng, FRAMES, HW)
        one = jax.jit(functools.partial(read.read, grid_hw=HW, config=config, candidates=3))
        spread = functools.partial(
            sharded.read, grid_hw=HW, config=config, placement=placement, scatter=True
        )
        expected = one(memory, camera)
        agree.append(
            same(jax.jit(functools.partial(spread, candidates=3))(memory, camera), expected)
        )
        more.append(bool(expected.visibility[:, 1].any()))
    return all(agree), all(more)


def compiled(capacity):
    """Return what a compiled write and read ask of each of the eight devices."""
    config = state.MemoryConfig(**_RULES | {"capacity": capacity}, retention="newest")
    programs = compile_memory(config, Work(4, FRAMES, HW), jax.devices())
    return {name: dataclasses.asdict(program) for name, program in programs.items()}


def main():
    """Compare all cases and print what was found."""
    found = {}
    for name, config in CASES.items():
        expected = on_one(config)
        found[f"{name}: dropped or evicted"] = bool(
            sum(int(report.dropped) + int(report.evicted) for report in expected[1]) > 0
        )
        for shape in ((1,), (2,), (4,), (8,)) if name == "newest" else ((4,),):
            found[f"{name} on {shape[0]}"] = same(on_mesh(config, shape, ("data",)), expected)
        if name == "newest":
            got = on_mesh(config, (2, 2, 2), ("data", "context"), scatter=True)
            found["over two of three axes, scattered"] = same(got, expected)
            found["some cells seen"] = bool(0.1 < expected[2].visibility.mean() < 1)
    found["gradient"] = gradient_agrees()
    found["candidates"], found["cells with more than one"] = candidates_agree()
    programs = [compiled(capacity) for capacity in (640, 64000)]
    sys.stdout.write(json.dumps({"same": found, "programs": programs}) + "\n")


if __name__ == "__main__":
    sys.exit(main())
