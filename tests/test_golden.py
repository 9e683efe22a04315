"""The comparison with the release: it passes on what is stored here, and can fail."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.golden.check import CASES, check, main
from tests.other_sizes import write_other_sizes

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("case", CASES)
def test_every_case_matches_the_release(case):
    lines = check(GOLDEN, case)
    assert lines
    assert all(line.passed for line in lines), lines


@pytest.mark.parametrize(
    ("file", "array", "case"),
    [("unipc.npz", "s4_5.0_traj", "unipc"), ("memory.npz", "read_updated", "memory")],
)
def test_a_changed_number_fails_its_case_and_the_command(file, array, case, tmp_path, capsys):
    shutil.copy(GOLDEN / "geometry.npz", tmp_path)
    arrays = dict(np.load(GOLDEN / file))
    arrays[array][-1, ..., -1, -1] += 1.0
    np.savez(tmp_path / file, **arrays)
    assert main([str(tmp_path)]) == 1
    lines = {line.split()[0]: line.split()[2] for line in capsys.readouterr().out.splitlines()}
    assert lines[case] == "FAIL"
    assert set(lines) >= set(CASES), "a case whose files are missing has a line too"


def test_the_command_refuses_what_is_no_directory(tmp_path, capsys):
    assert main([str(tmp_path / "absent")]) == 2
    assert "expected one directory" in capsys.readouterr().out


def test_sizes_are_read_and_not_assumed(tmp_path):
    write_other_sizes(tmp_path)
    for case in ("denoiser", "vae", "unipc", "flow_loss"):
        lines = check(tmp_path, case)
        assert all(line.passed for line in lines), lines
