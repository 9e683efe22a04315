"""A scene whose memory spans all devices rolls out as it does on one."""

from pathlib import Path

import jax
import pytest
from simulated_devices import outcome_of

from mirage_jax.memory.config import MemoryConfig
from mirage_jax.world_model.shares import memory_axes

_PROGRAM = Path(__file__).with_name("spread_program.py")


def test_memory_is_that_of_one_device():
    found = outcome_of(_PROGRAM)
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
