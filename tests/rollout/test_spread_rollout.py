"""A scene whose memory spans all devices rolls out as it does on one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from mirage_jax.memory.config import MemoryConfig
from mirage_jax.world_model.shares import memory_axes

_PROGRAM = Path(__file__).with_name("spread_program.py")


def test_memory_is_that_of_one_device():
    tests = _PROGRAM.parents[1]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        # Much is compiled and little is run, so it is compiled without optimising.
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "PYTHONPATH": os.pathsep.join(map(str, (tests.parent, tests))),
    }
    command = [sys.executable, str(_PROGRAM)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert set(found) == {"all", "unseen"}
    for name, facts in found.items():
        # The codec is divided too and rounds otherwise, so the start picture's latents differ, and
        # what is remembered of it; where, when and in which order rows lie is equal bit for bit.
        assert set(facts["differing"]) <= {".memory.tokens", ".latents"}, name
        assert all(difference < 1e-6 for difference in facts["differing"].values()), name
        assert facts["rows"] > 24, name
        assert facts["share of tokens"] == 1 / 8, name


def test_devices_must_divide_the_partitions():
    mesh = jax.sharding.AbstractMesh((1, 1, 4, 2), ("data", "fsdp", "context", "tensor"))
    with jax.sharding.use_abstract_mesh(mesh):
        assert memory_axes(MemoryConfig(64, 3)) == ()
        assert memory_axes(MemoryConfig(64, 3, partitions=16)) == ("context", "tensor")
        with pytest.raises(ValueError, match="12 partitions cannot be divided among 8 devices"):
            memory_axes(MemoryConfig(64, 3, partitions=12))
