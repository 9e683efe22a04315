"""`launch/local.py`: what it starts, what it passes on, and how it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

_LAUNCHER = Path(__file__).parents[1] / "launch" / "local.py"


def launch(*arguments, code):
    command = [sys.executable, str(_LAUNCHER), *arguments, "--", sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(_LAUNCHER.parents[1])}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def output_of(*arguments, code):
    process = launch(*arguments, code=code)
    text, _ = process.communicate(timeout=120)
    return process.returncode, text


def test_each_process_is_told_who_it_is_and_its_lines_carry_its_number():
    code = """if True:
        import os
        print("I am", os.environ["JAX_PROCESS_ID"], "of", os.environ["JAX_NUM_PROCESSES"])
        print("at", os.environ["JAX_COORDINATOR_ADDRESS"], os.environ["XLA_FLAGS"])
    """
    status, text = output_of("3", "--devices-per-process", "4", "--port", "4321", code=code)
    assert status == 0
    lines = text.splitlines()
    for index in range(3):
        assert f"[{index}] I am {index} of 3" in lines
        place = f"[{index}] at localhost:4321 "
        (found,) = [line for line in lines if line.startswith(place)]
        assert found.endswith("--xla_force_host_platform_device_count=4")


def test_the_exit_code_is_that_of_the_first_that_fails_and_the_others_are_ended():
    code = """if True:
        import os, sys, time
        if os.environ["JAX_PROCESS_ID"] == "1":
            print("it broke", file=sys.stderr)
            sys.exit(7)
        time.sleep(600)
    """
    begin = time.monotonic()
    status, text = output_of("2", code=code)
    assert status == 7
    assert "[1] it broke" in text
    assert "[launch] process 1 ended with exit code 7" in text
    assert time.monotonic() - begin < 60


def test_exit_code_75_starts_all_again_and_others_do_not(tmp_path):
    code = f"""if True:
        import os, pathlib, sys
        mine = pathlib.Path({str(tmp_path)!r}, os.environ["JAX_PROCESS_ID"])
        count = int(mine.read_text()) if mine.exists() else 0
        mine.write_text(str(count + 1))
        sys.exit(75 if count < 2 else 0)
    """
    status, text = output_of("2", "--restarts", "1", code=code)
    assert status == 75
    assert "restart 1 of 1" in text
    assert (tmp_path / "0").read_text() == (tmp_path / "1").read_text() == "2"
    assert output_of("2", "--restarts", "5", code=code)[0] == 0
    assert (tmp_path / "0").read_text() == "3"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_passed_on_once_and_end_the_restarts(number):
    code = """if True:
        import signal, sys, time
        def stop(number, frame):
            print("got", number)
            sys.exit(75)
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGTERM, stop)
        print("ready")
        time.sleep(600)
    """
    process = launch("2", "--restarts", "3", code=code)
    seen = []
    while sum("ready" in line for line in seen) < 2:
        seen.append(process.stdout.readline())
        assert seen[-1], seen
    process.send_signal(number)
    rest = process.stdout.read()
    assert process.wait(60) == 75
    for index in range(2):
        assert rest.count(f"[{index}] got {int(number)}") == 1
    assert "restart" not in rest


def test_a_dry_run_prints_lines_that_a_shell_can_run(tmp_path):
    code = "import os; print('number', os.environ['JAX_PROCESS_ID'])"
    status, text = output_of("2", "--dry-run", code=code)
    assert status == 0
    ran = [
        subprocess.run(line, shell=True, capture_output=True, text=True, check=True).stdout
        for line in text.splitlines()
    ]
    assert ran == ["number 0\n", "number 1\n"]


def test_no_command_is_a_mistake_that_is_explained():
    command = [sys.executable, str(_LAUNCHER), "2"]
    environment = os.environ | {"PYTHONPATH": str(_LAUNCHER.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert "expected one after --" in done.stderr
