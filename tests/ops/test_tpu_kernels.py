"""TPU kernels: values and races in interpret mode; compiled ahead of time where libtpu is there.

Nothing here runs on a TPU. Interpret mode executes the kernels' own operations, DMA included.
"""

import dataclasses
import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from kernel_cases import (
    CAMERA,
    GRID,
    LINES,
    LIST,
    PAGES,
    RULE,
    SEEN,
    TABLE_BYTES,
    M,
    N,
    T,
    compile_for,
    f32,
    i32,
    operations,
    scene,
    seen_scene,
)  # fmt: skip

from mirage_jax.geometry.camera import Camera
from mirage_jax.ops.choose_rows import Surface, ViewRule, choose_rows, list_candidates
from mirage_jax.ops.choose_rows import pallas_tpu as choose_tpu
from mirage_jax.ops.gather_rows import arg_specs as row_specs
from mirage_jax.ops.gather_rows import gather_rows
from mirage_jax.ops.gather_rows import pallas_tpu as gather_tpu
from mirage_jax.ops.put_rows import pallas_tpu as put_tpu
from mirage_jax.ops.put_rows import put_rows
from mirage_jax.ops.rasterize_points import (
    Nearest,
    Pages,
    WorkList,
    list_pages,
    rasterize_points,
)
from mirage_jax.ops.rasterize_points import pallas_tpu as rasterize_tpu
from mirage_jax.ops.rasterize_points.arg_specs import SPECS, ArgSpec, make_arguments
from mirage_jax.ops.rasterize_points.traffic import count_traffic

RACES = pltpu.InterpretParams(detect_races=True)


@pytest.mark.parametrize("name", ["no_rows", "all_bad", "ties", "release_rounding", "hole"])
def test_rasterizer_equals_the_reference_bit_for_bit(name):
    pages, camera, grid, work = scene(SPECS[name], seed=2)
    want = rasterize_points(pages, camera, grid, implementation="reference")
    got = rasterize_tpu.rasterize_points(pages, camera, grid, work, interpret=True)
    np.testing.assert_array_equal(got.row, want.row)
    np.testing.assert_array_equal(got.depth, want.depth)


def test_rasterizer_takes_grids_wider_than_a_register_and_lists_longer_than_a_piece():
    pages, camera, grid, work = scene(ArgSpec(36_000, (4, 140), layout="surface"), seed=2)
    assert work.count[0] > 256
    want = rasterize_points(pages, camera, grid, implementation="reference")
    got = rasterize_tpu.rasterize_points(pages, camera, grid, work, interpret=True)
    np.testing.assert_array_equal(got.row, want.row)


def test_rasterizer_under_vmap_equals_a_loop():
    scenes = [scene(SPECS["ties"], seed) for seed in range(2)]
    grid = scenes[0][2]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[(s[0], s[1], s[3]) for s in scenes])
    run = functools.partial(rasterize_tpu.rasterize_points, interpret=True)
    got = jax.vmap(lambda pages, camera, work: run(pages, camera, grid, work))(*stacked)
    for index, (pages, camera, _, _) in enumerate(scenes):
        want = rasterize_points(pages, camera, grid, implementation="reference")
        np.testing.assert_array_equal(got.row[index], want.row)


@pytest.mark.parametrize("name", ["ties", "release_rounding"])
def test_choice_of_rows_equals_the_reference(name):
    pages, views, camera, grid, surface = seen_scene(SPECS[name])
    want = choose_rows(pages, views, camera, grid, surface, RULE, implementation="reference")
    work = list_candidates(pages.bounds, views, camera, grid, RULE)
    rank, row = choose_tpu.choose_rows(
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
    rank, row = choose_tpu.choose_rows(pages, views, camera, grid, left, rule, work, interpret=True)
    np.testing.assert_array_equal(row, want.row)
    np.testing.assert_array_equal(rank, want.rank)


# The interpreter that looks for races cannot view a table as words; the copies are the same.
@pytest.mark.parametrize(
    ("name", "interpret"), [("lines", True), ("lines_bf16", True), ("lines", RACES)]
)
def test_gather_and_put_equal_the_reference(name, interpret):
    spec = row_specs.SPECS[name]
    table, rows, index = map(jnp.asarray, row_specs.make_unique(spec, seed=1))
    got = gather_tpu.gather_rows(table, index, spec.channels, interpret)
    np.testing.assert_array_equal(got, gather_rows(table, index, spec.channels, "reference"))
    # Rows of the same line and an untouched rest are both in here.
    got = put_tpu.put_rows(table, rows, index, interpret)
    np.testing.assert_array_equal(got, put_rows(table, rows, index, "reference"))
    if interpret is RACES:
        assert not races_found()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_puts_of_more_lines_than_one_call_changes_equal_the_reference(dtype, monkeypatch):
    monkeypatch.setattr(put_tpu, "_LINES", 128)
    spec = row_specs.ArgSpec(4096, 700, line_rows=8, dtype=dtype)
    table, rows, index = map(jnp.asarray, row_specs.make_unique(spec, seed=2))
    assert len(np.unique(np.asarray(index) // 16)) > 128
    got = put_tpu.put_rows(table, rows, index, interpret=True)
    np.testing.assert_array_equal(got, put_rows(table, rows, index, "reference"))


def races_found():
    from jax._src.pallas.mosaic.interpret import interpret_pallas_call

    return interpret_pallas_call.races.races_found


def test_walk_has_no_races():
    pages, camera, grid, work = scene(ArgSpec(400, (3, 5), layout="surface"), seed=1)
    want = rasterize_points(pages, camera, grid, implementation="reference")
    got = rasterize_tpu.rasterize_points(pages, camera, grid, work, interpret=RACES)
    np.testing.assert_array_equal(got.row, want.row)
    assert not races_found()


def test_tables_and_pages_that_do_not_suit_a_tpu_are_refused():
    pages, camera, grid = make_arguments(SPECS["ties"])
    work = list_pages(pages.bounds, camera, grid)
    with pytest.raises(ValueError, match="multiple of 128"):
        rasterize_points(pages, camera, grid, work, "pallas_tpu")
    with pytest.raises(ValueError, match="32-bit type or bfloat16"):
        gather_rows(jnp.zeros((16, 384), jnp.float16), jnp.zeros(1, jnp.int32), 48, "pallas_tpu")
    with pytest.raises(ValueError, match="whole tiles of 16 lines"):
        gather_rows(jnp.zeros((8, 384), jnp.bfloat16), jnp.zeros(1, jnp.int32), 48, "pallas_tpu")
    table, rows = jnp.zeros((2, 48)), jnp.zeros((1, 48))
    with pytest.raises(ValueError, match="multiple of 128"):
        put_rows(table, rows, jnp.zeros(1, jnp.int32), "pallas_tpu")


def test_bytes_moved_lie_between_the_least_and_all_and_follow_what_is_seen():
    spec = ArgSpec(40_000, (11, 20))
    pages, camera, grid, work = scene(spec)
    moved = count_traffic(pages, camera, grid, work)
    assert 0 < moved.least_bytes <= moved.page_bytes < moved.stored_bytes / 4
    assert moved.pages * 128 * 16 == moved.page_bytes
    found = rasterize_points(pages, camera, grid, work)
    assert moved.least_bytes == len(np.unique(np.asarray(found.row) // 128)) * 128 * 16
    # The same rows twice as far away again, hidden: nothing more is read of them.
    far = pages._replace(positions=pages.positions + jnp.array([0, 0, 40.0])[:, None])
    both = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), pages, far)
    both = both._replace(
        bounds=jnp.concatenate([pages.bounds, far.bounds + jnp.array([0, 0, 40.0])])
    )
    again = count_traffic(both, camera, grid, list_pages(both.bounds, camera, grid))
    assert again.page_bytes == moved.page_bytes


# --- ahead-of-time compilation for TPUs that are not here ---

TARGETS = ["v5e:2x2", "v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1"]
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install 'jax[tpu]'"
)


@functools.cache
def mesh_of(target):
    from jax.experimental import topologies

    with pytest.MonkeyPatch.context() as patch:
        # No metadata server here; and several test processes may load libtpu at once.
        patch.setenv("TPU_SKIP_MDS_QUERY", "1")
        patch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
        patch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
        patch.setenv("TPU_ACCELERATOR_TYPE", "v5litepod-4")
        topology = topologies.get_topology_desc(platform="tpu", topology_name=target)
    return jax.sharding.Mesh(np.array(topology.devices[:1]), ("x",))


def assert_kernel(compiled, name, temporary_bytes):
    text = compiled.as_text()
    assert f"%{name}" in text
    assert "tpu_custom_call" in text
    names = {operation for operation, _ in operations(compiled)}
    assert "custom-call" in names
    assert not names & {"scatter", "sort"}
    # No copy of a table, padded or not: what is stored must not show in the temporaries.
    assert compiled.memory_analysis().temp_size_in_bytes < temporary_bytes


@needs_libtpu
@pytest.mark.parametrize("target", TARGETS)
def test_kernels_compile_for_the_target_without_scatter_sort_or_copies_of_the_table(target):
    def rasterize(pages: Pages, camera: Camera, work: WorkList) -> Nearest:
        return rasterize_points(pages, camera, GRID, work)  # the default of the target

    def choose(pages, seen, camera, surface, work):
        return choose_rows(pages, seen, camera, GRID, surface, ViewRule(), work)

    compiled = compile_for(mesh_of(target), rasterize, PAGES, CAMERA, LIST)
    assert_kernel(compiled, "walk_pages", 2 * TABLE_BYTES)
    compiled = compile_for(mesh_of(target), choose, PAGES, SEEN, CAMERA, f32(T, 44, 80), LIST)
    assert_kernel(compiled, "walk_pages", 2 * TABLE_BYTES)
    compiled = compile_for(mesh_of(target), lambda t, i: gather_rows(t, i, 48), LINES, i32(M))
    assert_kernel(compiled, "gather_rows", M * 128 * 4 * 1.1)
    padded = -(-M // 128) * 128
    compiled = compile_for(
        mesh_of(target),
        put_tpu.write_lines,
        LINES,
        i32(padded),
        i32(padded, 8),
        f32(padded, 384),
        donate=0,
    )
    assert_kernel(compiled, "put_rows", 1e6 + padded * 128 * 4)
    assert compiled.memory_analysis().alias_size_in_bytes == 128_000 * 384 * 4


@needs_libtpu
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gather_and_put_make_no_copy_of_the_table_of_whatever_type(target, dtype):
    lines, rows = (jax.ShapeDtypeStruct(shape, dtype) for shape in ((128_000, 384), (M, 48)))
    gather = compile_for(mesh_of(target), lambda t, i: gather_rows(t, i, 48), lines, i32(M))
    put = compile_for(mesh_of(target), put_rows, lines, rows, i32(M), donate=0)
    bytes_of_table = 128_000 * 384 * dtype.dtype.itemsize
    assert gather.memory_analysis().temp_size_in_bytes < 0.2 * bytes_of_table
    assert put.memory_analysis().temp_size_in_bytes < 0.7 * bytes_of_table
    assert put.memory_analysis().alias_size_in_bytes == bytes_of_table


@needs_libtpu
def test_a_scatter_and_a_sort_in_the_compiled_text_would_be_found():
    def both(table, index):
        return table.at[index].add(jnp.sort(table[:100]))

    names = dict(operations(compile_for(mesh_of("v5e:2x2"), both, f32(1000), i32(100))))
    assert "scatter" in names
    assert "sort" in names


@needs_libtpu
def test_a_whole_read_sorts_pages_and_not_rows():
    def read(pages, camera, tokens):
        found = rasterize_points(pages, camera, GRID)
        return gather_rows(tokens, found.row, 48)

    found = operations(compile_for(mesh_of("v5e:2x2"), read, PAGES, CAMERA, LINES))
    assert "scatter" not in dict(found)
    sorts = [line for name, line in found if name == "sort"]
    assert len(sorts) == 1
    assert f"u32[{T},{N}]" in sorts[0]


@needs_libtpu
def test_a_whole_row_write_compiles_and_sorts_new_rows_only():
    compiled = compile_for(mesh_of("v5e:2x2"), put_rows, LINES, f32(M, 48), i32(M), donate=0)
    found = operations(compiled)
    assert "scatter" not in dict(found)
    sorts = [line for name, line in found if name == "sort"]
    assert sorts
    assert not any("128000" in line for line in sorts)
    assert compiled.memory_analysis().alias_size_in_bytes == 128_000 * 384 * 4
