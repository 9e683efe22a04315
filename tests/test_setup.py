"""Set-up: a Python that runs is found or advice is given, and installing happens once."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BASH = shutil.which("bash")
SHIM = "#!/bin/sh\necho 'version not selected' >&2\nexit 127\n"


def find_python(path: list[Path], home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BASH), str(ROOT / "launch/find_python.sh")],
        env={"PATH": os.pathsep.join(map(str, path)), "HOME": str(home), **env},
        capture_output=True,
        text=True,
        check=False,
    )


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def runs_python(path: Path) -> Path:
    return executable(path, f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')


def test_finder_says_exactly_what_to_install_when_there_is_nothing(tmp_path: Path):
    done = find_python([tmp_path], tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    for advice in ("apt-get install python3.12 python3.12-venv", "pyenv install 3.12", "PYTHON="):
        assert advice in done.stderr


def test_finder_passes_over_shims_that_do_not_run_and_interpreters_that_are_too_old(tmp_path: Path):
    executable(tmp_path / "shims/python3.12", SHIM)
    executable(tmp_path / "old/python3", "#!/bin/sh\nexit 1\n")
    runs_python(tmp_path / "later/python3")
    done = find_python([tmp_path / "shims", tmp_path / "old", tmp_path / "later"], tmp_path)
    assert done.returncode == 0
    assert Path(done.stdout.strip()).exists()


def test_finder_takes_a_pyenv_version_that_is_not_selected(tmp_path: Path):
    executable(tmp_path / "shims/python3.12", SHIM)
    runs_python(tmp_path / ".pyenv/versions/3.12.9/bin/python")
    assert find_python([tmp_path / "shims"], tmp_path).returncode == 0


def test_finder_asks_uv_when_path_and_pyenv_have_none(tmp_path: Path):
    python = runs_python(tmp_path / "store/python3.12")
    executable(tmp_path / "bin/uv", f'#!/bin/sh\n[ "$2" = find ] && echo "{python}"\n')
    assert find_python([tmp_path / "bin"], tmp_path).returncode == 0


def test_finder_refuses_a_named_python_that_does_not_do(tmp_path: Path):
    shim = executable(tmp_path / "python3.12", SHIM)
    done = find_python([tmp_path], tmp_path, PYTHON=str(shim))
    assert done.returncode == 1
    assert f"PYTHON={shim} does not run" in done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the set-up with an environment whose pip only writes down what it is asked."""
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    log = tmp_path / "installed.txt"
    executable(
        tmp_path / ".venv/bin/python",
        f'#!/bin/sh\n[ "$1 $2" = "-m pip" ] || exec "{sys.executable}" "$@"\n'
        f'[ "$3" != install ] || echo "$@" >> "{log}"\n',
    )
    return tmp_path


def installs_after(project: Path, extras: str) -> int:
    subprocess.run([str(project / "launch/make_env.sh"), extras], check=True, capture_output=True)
    return len((project / "installed.txt").read_text().splitlines())


def test_environment_is_installed_once_and_again_when_the_dependencies_change(project: Path):
    assert [installs_after(project, "test") for _ in range(2)] == [1, 1]
    with (project / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    assert [installs_after(project, "test") for _ in range(2)] == [2, 2]


def test_environment_for_tests_serves_the_demo_but_not_the_other_way_round(project: Path):
    assert [installs_after(project, e) for e in ("", "test", "")] == [1, 2, 2]


def test_environment_for_parity_serves_the_tests_but_not_the_other_way_round(project: Path):
    assert [installs_after(project, e) for e in ("test", "parity", "test", "")] == [1, 2, 2, 2]


@pytest.mark.parametrize("target", ["env", "demo", "test", "parity", "lint"])
def test_make_names_the_target_in_its_help(target: str):
    make = shutil.which("make")
    if make is None:
        text = (ROOT / "Makefile").read_text()
        assert f"\n{target}:" in text
        return
    done = subprocess.run([make, "-C", str(ROOT), "help"], capture_output=True, text=True)
    assert f"make {target}" in done.stdout
