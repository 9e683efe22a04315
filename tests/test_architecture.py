"""The tree keeps its rules: see `architecture.py` for what each of them looks at."""

import statistics
from collections.abc import Callable, Iterator

import architecture as rules
import pytest

SOURCES = rules.package_sources()
Rule = Callable[[rules.Source], Iterator[str]]


def complaints(rule: Rule) -> list[str]:
    return [complaint for source in SOURCES for complaint in rule(source)]


@pytest.mark.parametrize(
    "rule",
    [
        rules.dependency_complaints,
        rules.library_complaints,
        rules.nnx_complaints,
        rules.size_complaints,
        rules.wording_complaints,
    ],
)
def test_package_keeps_the_rule(rule: Rule):
    found = complaints(rule)
    assert not found, "\n".join(found)


def test_half_of_the_files_are_short():
    lines = [len(source.text.splitlines()) for source in SOURCES]
    assert statistics.median(lines) <= 180


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("models/a.py", "from mirage_jax.geometry import camera", "may not import"),
        ("memory/a.py", "import mirage_jax.models.denoiser", "may not import"),
        ("rollout/a.py", "def f():\n    from mirage_jax.train import loop", "may not import"),
        ("data/a.py", "from . import b", "relative import"),
        ("extra/a.py", "", "no place in the list"),
    ],
)
def test_an_import_pointing_up_is_found(path: str, text: str, expected: str):
    found = list(rules.dependency_complaints(rules.parse(path, text)))
    assert expected in found[0]


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (rules.library_complaints, "models/a.py", "import torch.nn as nn"),
        (rules.library_complaints, "data/a.py", "def f():\n    import jax.numpy as jnp"),
        (rules.library_complaints, "data/a.py", "np.load(path, allow_pickle=True)"),
        (rules.nnx_complaints, "train/a.py", "from flax import nnx"),
        (rules.nnx_complaints, "models/a.py", "@nnx.jit\ndef f(): ..."),
        (rules.nnx_complaints, "models/a.py", "nnx.split(module)"),
        (rules.size_complaints, "memory/a.py", "x = 1\n" * 401),
        (rules.size_complaints, "memory/a.py", "def f():\n" + "    x = 1\n" * 61),
        (rules.size_complaints, "memory/a.py", "def f(a, b, c, d, e, f, g, h, i): ..."),
        (rules.wording_complaints, "memory/utils.py", '"""Drawer."""'),
        (rules.wording_complaints, "memory/a.py", '"""A."""\nassert x'),
        (rules.wording_complaints, "memory/a.py", '"""A."""\ndef invert_pose(): ...'),
        (rules.wording_complaints, "memory/a.py", '"""A."""\nclass CameraPose: ...'),
    ],
)
def test_a_broken_rule_is_found(rule: Rule, path: str, text: str):
    assert list(rule(rules.parse(path, text)))


def test_a_docstring_does_not_count_as_code():
    long_docstring = 'def f():\n    """A.\n' + "\n" * 80 + '    """\n    return 1\n'
    assert not list(rules.size_complaints(rules.parse("memory/a.py", long_docstring)))
