"""Notebooks use only what exists; `make notebooks` runs them."""

import ast
import importlib
import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_parse_and_import_names_that_exist(path):
    cells = json.loads(path.read_text())["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    imports = [n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.ImportFrom)]
    modules: dict[str, str] = {}
    for node in imports:
        module = importlib.import_module(node.module)
        for alias in node.names:
            if not hasattr(module, alias.name):
                importlib.import_module(f"{node.module}.{alias.name}")
            modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    used = {
        (modules[n.value.id], n.attr)
        for n in ast.walk(ast.parse(code))
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id in modules
    }
    ours = [pair for pair in used if pair[0].startswith("mirage_jax.")]
    assert ours
    for name, attribute in ours:
        try:
            owner = importlib.import_module(name)
        except ImportError:
            module, _, member = name.rpartition(".")
            owner = getattr(importlib.import_module(module), member)
        assert hasattr(owner, attribute), f"{name} has no {attribute}"
