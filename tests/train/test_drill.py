"""The quick form of the drill: two processes meet SIGTERM, SIGKILL in a save, and a cut file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.xdist_group("training_on_meshes")
def test_a_run_that_meets_the_worst_in_a_row_ends_in_the_same_bits(tmp_path):
    command = [sys.executable, "-m", "tests.drill", "--quick", "--keep", str(tmp_path / "drill")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=_ROOT, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert [case["ok"] for case in outcome["cases"]] == [True, True]
