"""Every optimizer, whole batches or micro-batches: the same update on eight devices as on one."""

from pathlib import Path

import numpy as np
import pytest
from simulated_devices import outcome_of

_PROGRAM = Path(__file__).with_name("update_program.py")

# One worker for all, so that the program runs once.
pytestmark = [pytest.mark.multi_device, pytest.mark.xdist_group("updates_on_meshes")]


@pytest.fixture(scope="module")
def outcome():
    """Run the program once."""
    return outcome_of(_PROGRAM)


def test_every_row_has_the_loss_it_has_in_a_whole_batch_on_one_device(outcome):
    for run, facts in outcome.items():
        one = outcome[f"{run.split(',')[0]}, one, 1"]["losses"]
        assert np.std(one[0]) > 1e-3
        np.testing.assert_allclose(facts["losses"], one, rtol=1e-6, err_msg=run)


def test_parameters_go_the_way_they_go_with_whole_batches_on_one_device(outcome):
    # Adam and Newton-Schulz iterations enlarge rounding of gradients near zero.
    bounds = {"adamw": 1e-5, "adafactor": 1e-5, "muon": 1e-4}
    for run, facts in outcome.items():
        assert facts["apart"] < bounds[run.split(",")[0]], run


def test_micro_batches_stay_where_the_rows_of_the_batch_are(outcome):
    for mesh in ("data=2 fsdp=4", "fsdp=2 context=2 tensor=2"):
        whole, parts = (outcome[f"adamw, {mesh}, {count}"]["collectives"] for count in (1, 2))
        for kind in ("all-to-all", "collective-permute", "all-gather"):
            assert whole[kind] == parts[kind], (mesh, kind)


def test_moments_are_divided_as_the_parameters_and_stay_so(outcome):
    # Left whole are, where nothing divides hidden channels, vectors along those.
    vectors = outcome["adamw, data=2 fsdp=4, 2"]["whole"]
    assert vectors
    assert all("bias (3, 256)" in line for line in vectors)
    for name in ("adamw", "muon", "adafactor"):
        facts = outcome[f"{name}, fsdp=2 context=2 tensor=2, 2"]
        assert facts["whole"] == []
        assert facts["kept"]


def test_checkpoints_of_every_optimizer_are_read_on_four_devices_bit_for_bit(outcome):
    for name in ("adamw", "muon", "adafactor"):
        assert outcome[f"{name}, fsdp=2 context=2 tensor=2, 2"]["restored"], name
