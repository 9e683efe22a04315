"""Plans of one memory over many devices, compiled for chips that are not here.

On eight simulated devices the same programs are compiled by `tests/memory/test_memory_sharded.py`.
"""

import json

import pytest
from click.testing import CliRunner

from mirage_jax.cli import plan as plan_command
from mirage_jax.distributed.targets import compile_only_devices, parse_target
from mirage_jax.plan.memory import Work, plan_memory


def run(*arguments):
    return CliRunner().invoke(plan_command.command, arguments)


def test_a_plan_without_compiling_says_what_each_table_takes_of_a_device():
    shown = run("--memory", "1e8", "--target", "v5e:8x8", "--no-compile", "--json")
    assert shown.exit_code == 0, shown.output
    values = json.loads(shown.output.splitlines()[-1])
    assert values["rows"] >= 10**8
    assert values["rows_per_device"] * 64 == values["rows"]
    # Two bytes of each of 48 channels, three float32 of a position, a third of a bucket a row.
    assert values["bytes"]["tokens"] == 96 * values["rows_per_device"]
    assert values["bytes"]["positions"] == 12 * values["rows_per_device"]
    assert values["bytes"]["directory"] >= 64 * values["rows_per_device"] / 3
    assert values["fits"]
    large = run("--memory", "1e9", "--target", "v5e:2x2", "--no-compile", "--json")
    values = json.loads(large.output.splitlines()[-1])
    assert not values["fits"]
    assert values["nearest_devices_that_fit"] == 16
    assert "estimated to fit on 16 devices" in large.output


def test_a_plan_needs_a_config_or_a_memory_with_a_target():
    for arguments in ((), ("--memory", "1e8"), ("--config", "x", "--memory", "1", "--target", "y")):
        assert "give --config, or --memory with a --target" in run(*arguments).output


WORK = Work(frames=1, views=2, grid_hw=(8, 16))
TARGETS = [
    "v5e:8x8",
    "h100:8x8",
    *(pytest.param(t, marks=pytest.mark.slow) for t in ("v5p:4x4x4", "v6e:8x8", "tpu7x:4x4x4")),
]


@pytest.fixture(scope="module", params=TARGETS)
def plans(request):
    """Plans of a memory and of one ten times as large, for 64 chips."""
    target = parse_target(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TPU_SKIP_MDS_QUERY", "1")
        patch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
        patch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
        patch.setenv("TPU_ACCELERATOR_TYPE", "v5litepod-4")
        try:
            devices = compile_only_devices(target)
        except LookupError as missing:
            pytest.skip(missing.args[0])
        return [plan_memory(rows, target, devices, WORK) for rows in (10**6, 10**7)]


def test_traffic_of_64_chips_does_not_depend_on_what_is_stored(plans):
    small, large = (plan.programs for plan in plans)
    for name in ("write", "read"):
        assert small[name].collectives == large[name].collectives
    counts = {kind: traffic.count for kind, traffic in small["read"].collectives.items()}
    # Least depth, least order, tokens, and all else in one sum.
    assert counts == {"all-reduce": 4}
    # The new rows, once: 48 channels in float32, 33 bytes of geometry, and the report.
    gathered = sum(traffic.bytes for traffic in small["write"].collectives.values())
    assert WORK.new_rows * 4 * 48 < gathered < WORK.new_rows * (4 * 48 + 40)


def test_kernels_hold_less_than_a_megabyte_of_vector_memory_whatever_is_stored(plans):
    on_gpu = plans[0].target.kind == "h100"
    for name, kernels in (
        ("write", {"put_rows", "gather_rows"}),
        ("read", {"walk_pages", "gather_rows"}),
    ):
        sizes = [plan.programs[name].kernels for plan in plans]
        assert sizes[0] == sizes[1]
        assert set(sizes[0]) == kernels
        assert all(size == 0 if on_gpu else 0 < size < 2**20 for size in sizes[0].values())


def test_nothing_is_scattered_and_no_stored_rows_are_sorted_or_copied(plans):
    small, large = plans
    write, read = (large.programs[name] for name in ("write", "read"))
    assert write.scatters == read.scatters == []
    assert write.sorts
    assert write.beyond(WORK.new_rows) == []
    # A read sorts pages, of 256 rows each; this many lie on a device.
    before, pages = (p.config.pages * p.config.partitions // p.target.devices for p in plans)
    assert read.sorts
    assert read.beyond(WORK.views * pages) == []
    # Beside new rows and views there are work lists and what is known of each page, which TPUs pad
    # to tiles: less than an eighth of the page, so no table of rows.
    for name in ("write", "read"):
        grown = large.programs[name].temporary - small.programs[name].temporary
        assert grown < 4096 * (pages - before)
    assert sum(large.tables.values()) > 8 * 4096 * pages
