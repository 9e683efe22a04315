"""Seeds of the sizes drawn, and a table of the errors found at the end of the run.

`PARITY_SEED=7 make parity` draws other sizes. All tests here are skipped where PyTorch is missing.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

DRAWS = 3
_errors = pytest.StashKey[list[str]]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that asks for `random` with `DRAWS` generators."""
    if "random" in metafunc.fixturenames:
        first = int(os.environ.get("PARITY_SEED", "0"))
        metafunc.parametrize(
            "random", range(first, first + DRAWS), indirect=True, ids="seed{}".format
        )


@pytest.fixture
def random(request: pytest.FixtureRequest) -> np.random.Generator:
    """Draws the sizes and inputs of one test."""
    return np.random.default_rng(request.param)


@pytest.fixture
def compare(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Assert that arrays are near, relative to the largest value expected; note the error."""
    from tests.parity.counterparts import relative_error

    def check(name: str, got: Any, expected: Any, *sizes: Any, within: float = 1e-5) -> None:
        error = relative_error(got, expected)
        at = " ".join(_brief(size) for size in sizes)
        lines = request.config.stash.setdefault(_errors, [])
        lines.append(f"{error:.1e}  {request.node.name}: {name}, {at}")
        assert error < within, f"{name}: relative error {error:.2e}, allowed {within:.0e}, at {at}"

    return check


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print what was compared, at which sizes, and how far apart it was."""
    lines = config.stash.get(_errors, [])
    if lines:
        terminalreporter.section("worst relative errors")
        for line in lines:
            terminalreporter.write_line(line)


def _brief(size: Any) -> str:
    """Write a config by the fields that differ from their defaults, a shape by its numbers."""
    if not dataclasses.is_dataclass(size):
        return str([int(n) for n in size]) if isinstance(size, tuple) else str(size)
    fields = ((f.name, getattr(size, f.name), f.default) for f in dataclasses.fields(size))
    return " ".join(f"{name}={value}" for name, value, default in fields if value != default)
