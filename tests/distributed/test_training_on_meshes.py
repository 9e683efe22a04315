"""The mesh changes where arrays lie and nothing that is computed: eight simulated devices."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from simulated_devices import QUICK_COMPILE, environment, outcome_of

_PROGRAM = Path(__file__).with_name("mesh_program.py")
MESHES = ["data=8", "fsdp=8", "context=4 tensor=2", "fsdp=2 context=2 tensor=2"]
# The mesh that is run as two processes: every kind of division, that of rows between them.
ACROSS = MESHES[3]

# One worker for all, so that the program runs once.
pytestmark = [pytest.mark.multi_device, pytest.mark.xdist_group("training_on_meshes")]


@pytest.fixture(scope="module")
def outcome():
    """Run the program once."""
    return outcome_of(_PROGRAM)


@pytest.fixture(scope="module")
def two_processes():
    """Run meshes as two processes of four devices each, over real collectives between them."""
    tests = _PROGRAM.parents[1]
    launch = [sys.executable, str(tests.parent / "launch" / "local.py"), "2"]
    launch += ["--devices-per-process", "4", "--", sys.executable, str(_PROGRAM), ACROSS]
    done = subprocess.run(
        launch, capture_output=True, text=True, env=environment(QUICK_COMPILE), check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return json.loads(next(x[4:] for x in done.stdout.splitlines() if x.startswith("[0] {")))


def test_losses_and_parameters_of_two_processes_are_those_of_one_device(outcome, two_processes):
    one, facts = outcome["one"], two_processes[ACROSS]
    np.testing.assert_allclose(facts["losses"], one["losses"], rtol=1e-5)
    moved = np.subtract(one["end"], one["begin"])
    apart = np.linalg.norm(np.subtract(facts["end"], one["end"])) / np.linalg.norm(moved)
    assert apart < 1e-4
    assert facts["kept"]


def test_a_batch_is_the_same_for_two_processes_that_make_their_rows_alone(two_processes):
    assert two_processes[ACROSS]["batch"]
    rows = np.array(two_processes[ACROSS]["rows"])
    assert (rows.sum(axis=0) == 1).all()  # each row is made once
    assert (rows.sum(axis=1) == 8).all()


@pytest.mark.parametrize("mesh", MESHES)
def test_twenty_losses_are_those_of_one_device(outcome, mesh):
    one = outcome["one"]["losses"]
    assert len(one) == 20
    np.testing.assert_allclose(outcome[mesh]["losses"], one, rtol=1e-5)


@pytest.mark.parametrize("mesh", MESHES)
def test_gradients_are_as_long_as_on_one_device(outcome, mesh):
    # Adam hides a gradient that is twice what it should be; its length tells.
    np.testing.assert_allclose(outcome[mesh]["norms"], outcome["one"]["norms"], rtol=1e-3)


@pytest.mark.parametrize("stage", ["codec", "depth"])
def test_stages_of_convolutions_train_as_on_one_device(outcome, stage):
    one, divided = outcome[stage]
    np.testing.assert_allclose(divided["losses"], one["losses"], rtol=1e-5)
    np.testing.assert_allclose(divided["norms"], one["norms"], rtol=1e-3)


@pytest.mark.parametrize("mesh", MESHES)
def test_parameters_have_gone_the_way_they_go_on_one_device(outcome, mesh):
    # Adam turns rounding of gradients near zero into steps, hence not closer than this.
    assert outcome[mesh]["apart"] < 1e-4


@pytest.mark.parametrize("mesh", ["one", *MESHES])
def test_the_step_leaves_the_state_where_it_was(outcome, mesh):
    assert outcome[mesh]["kept"]


def test_parameters_are_divided_along_all_but_the_data_axis(outcome):
    shares = {mesh: outcome[mesh]["share"] for mesh in ("one", *MESHES)}
    assert shares == {"one": 1, "data=8": 1, **dict.fromkeys(MESHES[1:], 1 / 8)}


def test_a_checkpoint_of_eight_devices_is_read_on_four_and_on_one_bit_for_bit(outcome):
    assert outcome["restored"] == {"four": True, "one": True}


def test_fsdp_gathers_weights_and_context_exchanges_heads(outcome):
    fsdp, context = (outcome[mesh]["collectives"] for mesh in MESHES[1:3])
    assert fsdp["all-gather"] > 0
    # A few exchanges rearrange rows of the batch; those of heads come on top.
    assert context["all-to-all"] > fsdp["all-to-all"] + 10
