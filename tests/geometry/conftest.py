"""Where the golden files lie."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    return Path(__file__).parents[1] / "golden"
