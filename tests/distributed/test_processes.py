"""Who the processes of a run are: from a flag, from JAX's variables, or from a scheduler's."""

import pytest

from mirage_jax.distributed import processes
from mirage_jax.distributed.processes import Process, asked_for

JAX = {
    "JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234",
    "JAX_NUM_PROCESSES": "4",
    "JAX_PROCESS_ID": "3",
}


@pytest.mark.parametrize(
    ("flag", "environment", "expected"),
    [
        ("auto", {}, "one"),
        ("auto", JAX, Process(3, 4, "10.0.0.1:1234")),
        ("one", JAX, "one"),
        ("0/2@localhost:99", JAX, Process(0, 2, "localhost:99")),
        ("cluster", {}, "cluster"),
        ("auto", {"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, "cluster"),
        ("auto", {"SLURM_NTASKS": "8"}, "one"),  # a shell inside an allocation
        ("auto", {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, "one"),
        ("auto", {"TPU_WORKER_HOSTNAMES": "a,b"}, "cluster"),
        ("auto", {"TPU_WORKER_HOSTNAMES": "localhost"}, "one"),
        ("auto", {"MEGASCALE_NUM_SLICES": "2"}, "cluster"),
        # The address alone is what some images set for everyone.
        ("auto", {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234"}, "one"),
    ],
)
def test_a_run_knows_its_processes(flag, environment, expected):
    assert asked_for(flag, environment) == expected


@pytest.mark.parametrize(
    ("flag", "environment", "message"),
    [
        ("two", {}, "--processes: got 'two', expected auto, one, cluster, or INDEX/COUNT@HOST"),
        ("0/2", {}, "--processes: got '0/2'"),
        ("2/2@localhost:1", {}, "got process 2 of 2, expected an index from 0"),
        ("auto", JAX | {"JAX_PROCESS_ID": ""}, "expected all of JAX_COORDINATOR_ADDRESS, JAX_NUM"),
        ("auto", JAX | {"JAX_PROCESS_ID": "x"}, "expected whole numbers"),
    ],
)
def test_what_does_not_say_who_the_others_are_is_refused(flag, environment, message):
    with pytest.raises(ValueError, match=message):
        asked_for(flag, environment)


def test_one_process_agrees_with_itself():
    assert processes.is_first()
    assert processes.count() == 1
    assert processes.largest(-3) == -3
    processes.require_same("text", "what")
    processes.wait_for_all("here")
