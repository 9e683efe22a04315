"""GPU kernels: values in interpret mode; compiled for the H100 where the parts of CUDA are.

Nothing here runs on a GPU.
"""

import dataclasses
import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_cases import (
    CAMERA,
    GRID,
    LINES,
    LIST,
    PAGES,
    RULE,
    SEEN,
    M,
    T,
    compile_for,
    f32,
    i32,
    operations,
    scene,
    seen_scene,
)  # fmt: skip

from mirage_jax.distributed.targets import compile_only_devices, parse_target
from mirage_jax.ops.choose_rows import Surface, ViewRule, choose_rows, list_candidates
from mirage_jax.ops.choose_rows import pallas_gpu as choose_gpu
from mirage_jax.ops.gather_rows import arg_specs as row_specs
from mirage_jax.ops.gather_rows import gather_rows
from mirage_jax.ops.gather_rows import pallas_gpu as gather_gpu
from mirage_jax.ops.put_rows import pallas_gpu as put_gpu
from mirage_jax.ops.put_rows import put_rows
from mirage_jax.ops.rasterize_points import pallas_gpu as rasterize_gpu
from mirage_jax.ops.rasterize_points import rasterize_points
from mirage_jax.ops.rasterize_points.arg_specs import SPECS, make_arguments


@pytest.mark.parametrize("name", ["no_rows", "all_bad", "ties", "release_rounding", "hole"])
def test_rasterizer_equals_the_reference_bit_for_bit(name):
    pages, camera, grid, work = scene(SPECS[name], seed=2)
    want = rasterize_points(pages, camera, grid, implementation="reference")
    got = rasterize_gpu.rasterize_points(pages, camera, grid, work, interpret=True)
    np.testing.assert_array_equal(got.row, want.row)
    np.testing.assert_array_equal(got.depth, want.depth)


def test_rasterizer_under_vmap_equals_a_loop():
    scenes = [scene(SPECS["ties"], seed) for seed in range(2)]
    grid = scenes[0][2]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[(s[0], s[1], s[3]) for s in scenes])
    run = functools.partial(rasterize_gpu.rasterize_points, interpret=True)
    got = jax.vmap(lambda pages, camera, work: run(pages, camera, grid, work))(*stacked)
    for index, (pages, camera, _, _) in enumerate(scenes):
        want = rasterize_points(pages, camera, grid, implementation="reference")
        np.testing.assert_array_equal(got.row[index], want.row)


@pytest.mark.parametrize("name", ["ties", "release_rounding"])
def test_choice_of_rows_equals_the_reference(name):
    pages, views, camera, grid, surface = seen_scene(SPECS[name])
    want = choose_rows(pages, views, camera, grid, surface, RULE, implementation="reference")
    work = list_candidates(pages.bounds, views, camera, grid, RULE)
    rank, row = choose_gpu.choose_rows(
        pages, views, camera, grid, Surface(surface), RULE, work, interpret=True
    )
    np.testing.assert_array_equal(row, want.row)
    np.testing.assert_array_equal(rank, want.rank)


@pytest.mark.parametrize("by", ["view", "depth"])
def test_the_next_best_rows_equal_the_reference(by):
    pages, views, camera, grid, surface = seen_scene(SPECS["ties"])
    rule = dataclasses.replace(RULE, by=by)
    work = list_candidates(pages.bounds, views, camera, grid, rule)
    best = choose_rows(pages, views, camera, grid, surface, rule, work, "reference")
    left = Surface(surface, best)
    want = choose_rows(pages, views, camera, grid, left, rule, work, "reference")
    assert 0 < np.mean(want.row >= 0) <= np.mean(best.row >= 0)
    rank, row = choose_gpu.choose_rows(pages, views, camera, grid, left, rule, work, interpret=True)
    np.testing.assert_array_equal(row, want.row)
    np.testing.assert_array_equal(rank, want.rank)


@pytest.mark.parametrize("name", ["plain", "lines", "lines_bf16"])
def test_gather_and_put_equal_the_reference(name):
    spec = row_specs.SPECS[name]
    table, rows, index = map(jnp.asarray, row_specs.make_unique(spec, seed=1))
    got = gather_gpu.gather_rows(table, index, spec.channels, interpret=True)
    np.testing.assert_array_equal(got, gather_rows(table, index, spec.channels, "reference"))
    got = put_gpu.put_rows(table, rows, index, interpret=True)
    np.testing.assert_array_equal(got, put_rows(table, rows, index, "reference"))


def test_pages_that_do_not_suit_a_gpu_are_refused():
    pages, camera, grid = make_arguments(SPECS["ties"])
    with pytest.raises(ValueError, match="multiple of 64"):
        rasterize_points(pages, camera, grid, implementation="pallas_gpu")


@functools.cache
def h100():
    devices = compile_only_devices(parse_target("h100:1x1"))
    return jax.sharding.Mesh(np.array(devices), ("x",))


@pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda12_plugin") is None,
    reason="needs the CUDA compiler: pip install jax-cuda12-plugin jax-cuda12-pjrt "
    "nvidia-cuda-nvcc-cu12 nvidia-cuda-runtime-cu12",
)
def test_kernels_compile_for_the_h100_without_scatter_sort_or_copies_of_the_table():
    def rasterize(pages, camera, work):
        return rasterize_points(pages, camera, GRID, work)  # the default of the target

    def choose(pages, seen, camera, surface, work):
        return choose_rows(pages, seen, camera, GRID, surface, ViewRule(), work)

    cases = [
        (rasterize, (PAGES, CAMERA, LIST), ()),
        (choose, (PAGES, SEEN, CAMERA, f32(T, 44, 80), LIST), ()),
        (lambda table, index: gather_rows(table, index, 48), (LINES, i32(M)), ()),
        (put_rows, (LINES, f32(M, 48), i32(M)), 0),
    ]
    for function, shapes, donate in cases:
        compiled = compile_for(h100(), function, *shapes, donate=donate)
        names = {operation for operation, _ in operations(compiled)}
        assert "custom-call" in names
        assert "triton" in compiled.as_text()
        assert not names & {"scatter", "sort"}
        assert compiled.memory_analysis().temp_size_in_bytes < 2e6
    assert compiled.memory_analysis().alias_size_in_bytes == 128_000 * 384 * 4
