"""One memory over several devices is the memory of one device, bit for bit."""

from pathlib import Path

import jax
import numpy as np
import pytest
from simulated_devices import outcome_of

from mirage_jax.memory import sharded, state

_PROGRAM = Path(__file__).with_name("sharded_program.py")
# One worker for all, so that the program runs once.
pytestmark = pytest.mark.xdist_group("sharded_memory")


@pytest.fixture(scope="module")
def outcome():
    """Run the program once."""
    return outcome_of(_PROGRAM)


def test_writes_and_reads_are_the_same_on_one_two_four_and_eight_devices(outcome):
    assert {f"newest on {count}" for count in (1, 2, 4, 8)} <= set(outcome["same"])
    assert all(outcome["same"].values()), outcome["same"]


def test_collectives_move_new_rows_and_what_is_seen_but_nothing_stored(outcome):
    small, large = outcome["programs"]
    for name in ("write", "read"):
        assert small[name]["collectives"] == large[name]["collectives"]
        assert small[name]["held"] < large[name]["held"] / 10
    counts = {
        name: {kind: traffic["count"] for kind, traffic in program["collectives"].items()}
        for name, program in small.items()
    }
    # A gather for each field of the new rows and a sum of four counts; least depth, least order,
    # tokens, and all else in one sum.
    assert counts == {"write": {"all-gather": 6, "all-reduce": 1}, "read": {"all-reduce": 4}}
    # New rows: position, token, origin, depth, time and keep, each whole on every device.
    assert small["write"]["collectives"]["all-gather"]["bytes"] == 4 * 6 * 8 * (11 * 4 + 1)


def test_partitions_must_be_a_multiple_of_the_devices_and_axes_those_of_the_mesh():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("x",))
    with pytest.raises(ValueError, match=r"axes are \('y',\), expected one or more of"):
        sharded.Placement(mesh, ("y",))
    config = state.MemoryConfig(64, 3, partitions=3)
    shape = jax.sharding.AbstractMesh((2,), ("x",))
    placement = sharded.Placement(shape, ("x",))
    with pytest.raises(ValueError, match="3 partitions cannot be divided among 2 devices"):
        sharded.write(state.empty(config), None, config, placement)
