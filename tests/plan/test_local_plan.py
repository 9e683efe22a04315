"""Plans for the devices that are there, and the names that every plan's JSON object has."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from simulated_devices import outcome_of

from mirage_jax.cli.main import cli
from mirage_jax.distributed import targets

CONFIG = str(Path(__file__).parents[2] / "configs" / "procedural.py")
NAMES = ("fits", "bytes_per_device", "step_seconds_bound", "mfu_bound", "collectives")
LOCAL = ["--target", "local"]


def run(*arguments):
    done = CliRunner().invoke(cli, ["plan", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.output.splitlines()[-1]), done.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("--config", CONFIG),
        ("--config", CONFIG, "--stage", "full", *LOCAL, "--no-compile"),
        ("--config", CONFIG, "--rollout", *LOCAL, "--no-compile"),
        ("--config", CONFIG, "--stage", "full", "--target", "v5e:1x1", "--no-compile"),
        ("--config", CONFIG, "--rollout", "--target", "h100:1x1", "--no-compile"),
        ("--memory", "1e5", *LOCAL, "--no-compile"),
        ("--memory", "1e5", "--target", "v5e:2x2", "--no-compile"),
    ],
)
def test_every_plan_ends_with_an_object_of_the_same_names(arguments):
    found, _ = run(*arguments)
    for plan in (found, *found.get("also", ())):
        assert set(NAMES) <= set(plan)
        assert plan["bytes_per_device"] > 0
        assert plan["collectives"] == {}
    known = "local" not in arguments and "--config" in arguments and "--target" in arguments
    for name in ("step_seconds_bound", "mfu_bound"):
        assert (found[name] is not None) == known


def test_of_a_cpu_the_memory_is_the_machines_and_the_peak_is_not_made_up():
    found, said = run("--config", CONFIG, "--stage", "full", *LOCAL, "--no-compile")
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert found["memory"] * found["devices"] == total
    assert found["seconds"] == {}
    assert "RAM)" in said
    assert "time and utilisation unknown, as is the peak of 'cpu' devices" in said


class Device:
    """A device as JAX describes one."""

    platform = "gpu"

    def __init__(self, kind, stats):
        self.device_kind, self.memory_stats = kind, lambda: stats


@pytest.mark.parametrize(
    ("kind", "stats", "memory", "flops"),
    [
        ("NVIDIA H100 80GB HBM3", {"bytes_limit": 60e9}, 60e9, 989e12),
        ("NVIDIA H100 80GB HBM3", None, 80e9, 989e12),
        ("NVIDIA Something", {"bytes_limit": 7e9}, 7e9, None),
    ],
)
def test_a_local_accelerator_says_its_memory_and_is_known_by_its_name(
    monkeypatch, kind, stats, memory, flops
):
    monkeypatch.setattr("jax.local_devices", lambda: [Device(kind, stats)] * 2)
    found = targets.local_target()
    assert (found.devices, found.chip.memory, found.chip.flops) == (2, memory, flops)
    assert found.label == f"2 local {kind} devices"


def test_an_accelerator_that_says_nothing_is_refused(monkeypatch):
    monkeypatch.setattr("jax.local_devices", lambda: [Device("NVIDIA Something", None)])
    with pytest.raises(ValueError, match="got a 'NVIDIA Something' .*expected memory statistics"):
        targets.local_target()


@pytest.mark.multi_device
@pytest.mark.xdist_group("rollout_plan")
def test_the_memory_compiled_for_eight_local_devices_sends_what_its_programs_send():
    found = outcome_of(Path(__file__).with_name("local_plan_program.py"))
    assert (found["target"], found["devices"], found["compiled"]) == ("local", 8, True)
    assert set(found["programs"]) == {"write", "read"}
    assert found["collectives"]
    for kind, traffic in found["collectives"].items():
        parts = [p["collectives"].get(kind, {}) for p in found["programs"].values()]
        assert traffic["sent"] == sum(part.get("sent", 0) for part in parts)
    assert found["step_seconds_bound"] is None
