"""Imports stay light: what must not load JAX does not, and help is quick.

Each check runs in its own process, since this one has long loaded everything. Times are the best of
three with a wide margin, so that a busy machine does not fail them.
"""

import subprocess
import sys
import time

import pytest

import mirage_jax
from mirage_jax.cli import main


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def best_seconds(arguments: list[str]) -> float:
    def once() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        return time.perf_counter() - start

    return min(once() for _ in range(3))


IMPORT_ALL_OF = """
import importlib, pkgutil
import {package} as package
for module in pkgutil.walk_packages(package.__path__, "{package}."):
    importlib.import_module(module.name)
"""


@pytest.mark.parametrize("package", ["mirage_jax.data", "mirage_jax.geometry"])
def test_package_never_loads_jax_or_tensorflow_even_when_all_of_it_is_imported(package: str):
    loaded = modules_after(IMPORT_ALL_OF.format(package=package))
    assert package in loaded
    assert not loaded & {"jax", "flax", "tensorflow", "torch"}


def test_importing_the_package_loads_no_library():
    loaded = modules_after("import mirage_jax")
    assert not loaded & {"jax", "numpy", "flax", "click"}


@pytest.mark.parametrize("command", list(main.COMMANDS))
def test_help_of_every_command_works_without_loading_jax(command: str):
    statement = (
        "from click.testing import CliRunner\n"
        "from mirage_jax.cli.main import cli\n"
        f"result = CliRunner().invoke(cli, [{command!r}, '--help'])\n"
        "assert result.exit_code == 0, result.output\n"
        "assert 'Usage:' in result.output"
    )
    assert "jax" not in modules_after(statement)


def test_package_import_and_help_are_fast():
    bare = best_seconds(["-c", "pass"])
    assert best_seconds(["-c", "import mirage_jax"]) - bare < 1.0
    assert best_seconds(["-m", "mirage_jax.cli.main", "--help"]) - bare < 2.0


@pytest.mark.parametrize("name", [n for n in mirage_jax.__all__ if n != "__version__"])
def test_public_name_resolves(name: str):
    assert getattr(mirage_jax, name).__name__ == name


def test_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Camra'"):
        mirage_jax.Camra  # noqa: B018
