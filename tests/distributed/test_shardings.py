"""Every parameter of every config lies where it is written down that it lies."""

import importlib.util
import json
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location(
    "shardings", Path(__file__).with_name("shardings.py")
)
golden = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(golden)


@pytest.mark.parametrize("name", golden.CONFIGS)
def test_parameters_lie_where_the_golden_file_says(name):
    stored = json.loads(golden.FILE.read_text())[name]
    assert (
        golden.shardings(name) == stored
    )  # if meant: python tests/distributed/shardings.py --update


def test_little_of_a_denoiser_is_left_whole():
    for name, entries in json.loads(golden.FILE.read_text()).items():
        sizes = {"whole": 0, "divided": 0}
        for parameter, entry in entries.items():
            if parameter.startswith("learned_read/"):
                continue  # small convolutions, whole on every device by design
            shape, spec = entry.split("] ")
            size = 1
            for extent in json.loads(shape + "]"):
                size *= extent
            sizes["whole" if spec == "whole" else "divided"] += size
        assert sizes["whole"] < 0.03 * sizes["divided"], name
