"""Launchers of clusters: what they would execute, and when they start again."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mirage_jax.distributed.exit_codes import PREEMPTED

LAUNCH = Path(__file__).parents[2] / "launch"
COMMAND = ["mirage", "train", "--workdir", "runs/a b", "--mesh", "fsdp=-1"]
OPTIONS = {
    "tpu_pod.py": ["--name", "m", "--zone", "z", "--type", "v5p-128", "--spot", "--setup", "true"],
    "gke.py": ["--cluster", "c", "--workload", "w", "--tpu-type", "v5p-128", "--docker-image", "i"],
    "sky.py": ["--accelerators", "H100:8", "--nodes", "2", "--bucket", "s3://b"],
}


def launch(name, options, command=COMMAND, path=""):
    program = [sys.executable, str(LAUNCH / name)] if name.endswith(".py") else [LAUNCH / name]
    words = [*program, *options, *(["--", *command] if command else [])]
    environment = os.environ | {"PATH": path or os.environ["PATH"]}
    environment["PYTHONPATH"] = str(LAUNCH.parent)
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=60)


def stand_in(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_dry_run_prints_the_command_as_it_was_given(name):
    done = launch(name, [*OPTIONS[name], "--dry-run"])
    assert done.returncode == 0, done.stderr
    assert str(PREEMPTED) in done.stdout
    shown = done.stdout.replace("'\"'\"'", "'")  # quoted once more for the tool
    assert shlex.join(COMMAND) in shown


def test_a_job_of_skypilot_is_well_formed():
    done = launch("sky.py", [*OPTIONS["sky.py"], "--spot", "--dry-run"])
    task = json.loads(done.stdout[: done.stdout.rindex("}") + 1])
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [PREEMPTED]
    assert task["resources"]["use_spot"] is True
    assert task["run"].endswith(shlex.join(COMMAND))
    subprocess.run(["bash", "-n", "-c", task["run"]], check=True)


@pytest.mark.parametrize("name", OPTIONS)
def test_what_is_missing_is_said_in_a_line(name, tmp_path):
    done = launch(name, OPTIONS[name], path=str(tmp_path))
    assert done.returncode != 0
    assert "is not installed or not on PATH" in done.stderr
    assert "Traceback" not in done.stderr
    done = launch(name, OPTIONS[name], command=[])
    assert "expected one after --" in done.stderr


def test_a_slice_that_is_taken_away_is_asked_for_again(tmp_path):
    stand_in(
        tmp_path,
        "gcloud",
        f"""log={tmp_path}/log; here={tmp_path}/here; echo "$@" >> $log
case "$*" in
  *describe*) cat $here 2>/dev/null ;;
  *create*) echo ACTIVE > $here ;;
  *delete*) rm -f $here ;;
  *"while true"*) if [ $(grep -c "while true" $log) = 1 ]; then rm $here; exit 255; fi ;;
esac""",
    )
    done = launch("tpu_pod.py", OPTIONS["tpu_pod.py"], path=f"{tmp_path}:/usr/bin:/bin")
    log = (tmp_path / "log").read_text()
    assert done.returncode == 0, done.stdout + done.stderr
    assert log.count("create m") == 2
    assert log.count("--command true") == 2
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("code", [PREEMPTED, 1, 0])
def test_slurm_requeues_what_was_preempted_and_nothing_else(code, tmp_path):
    stand_in(tmp_path, "srun", f'printf "%s\\n" "$@" > {tmp_path}/given; exit {code}')
    stand_in(tmp_path, "scontrol", f"echo $@ > {tmp_path}/requeued")
    words = [LAUNCH / "slurm.sh", "--", *COMMAND]
    environment = os.environ | {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7"}
    assert subprocess.run(words, env=environment, capture_output=True).returncode == code
    assert (tmp_path / "given").read_text().splitlines() == COMMAND
    assert (tmp_path / "requeued").exists() == (code == PREEMPTED)


def test_slurm_outside_a_job_says_what_to_do():
    done = launch("slurm.sh", [])
    assert done.returncode == 2
    assert "sbatch" in done.stderr
    done = launch("slurm.sh", ["--dry-run"])
    assert done.stdout.splitlines()[0].split() == [
        "srun",
        *shlex.split("mirage train --workdir"),
    ] + [
        "runs/a\\",
        "b",
        "--mesh",
        "fsdp=-1",
    ]
    script = (LAUNCH / "slurm.sh").read_text()
    assert f"PREEMPTED={PREEMPTED} " in script
