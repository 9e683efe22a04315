"""The rules of the tree as functions from parsed source to complaints.

Kept apart from `test_architecture.py` so that the rules themselves can be tested: each is run over
the package, where it must find nothing, and over a sample that breaks it, where it must complain.
"""

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "mirage_jax"

_ANYONE = {"atomic", "config", "prng"}
_CORE = {"geometry", "ops", "memory", "models", "diffusion", "distributed"}
_BELOW_TRAIN = _CORE | {"data", "world_model", "estimate"}
# package (or top-level module) -> what it may import besides itself, config and prng
MAY_IMPORT = {
    "atomic": set(),
    "config": set(),
    "prng": set(),
    "geometry": set(),
    "ops": {"geometry"},
    "memory": {"geometry", "ops"},
    "models": {"ops", "distributed"},
    "diffusion": set(),
    "data": {"geometry"},
    "distributed": set(),
    "world_model": _CORE,
    "estimate": {"memory", "models", "world_model"},
    "train": _BELOW_TRAIN,
    "rollout": _CORE | {"world_model", "estimate"},
    "eval": _BELOW_TRAIN | {"rollout"},
    "plan": _BELOW_TRAIN | {"train", "rollout"},
    "cli": _BELOW_TRAIN | {"train", "rollout", "eval", "plan"},
}

FORBIDDEN_LIBRARIES = {"torch", "tensorflow", "pickle", "dill", "joblib", "haiku", "equinox"}
# Run Diffusers for `mirage convert --verify`, models of depth and masks, and RAFT, in processes of
# their own; nothing imports them.
TORCH_SCRIPTS = {
    Path("eval/diffusers_forward.py"),
    Path("eval/metrics/raft_forward.py"),
    Path("rollout/hub_depth_forward.py"),
    Path("rollout/hub_masks_forward.py"),
}
NNX_TRANSFORMS = {
    "jit", "grad", "value_and_grad", "scan", "remat", "checkpoint", "pmap", "cond", "while_loop",
    "fori_loop", "vmap", "Optimizer", "ModelAndOptimizer", "BatchNorm", "Dropout",
}  # fmt: skip
NNX_ADAPTER_ONLY = {"split", "merge", "state", "graphdef", "update"}
DRAWER_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}
FOREIGN_WORDS = re.compile(r"(^|_)(splat|warp|lift|pose|poses|extrinsic|extrinsics)(_|$)")

FILE_LINES, KERNEL_FILE_LINES = 400, 600
FUNCTION_LINES, LOOP_FUNCTION_LINES = 60, 150
PARAMETERS = 8

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclasses.dataclass(frozen=True)
class Source:
    """One parsed file: `path` relative to the package, its text and its tree."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def unit(self) -> str:
        """Package or top-level module the file belongs to ('' for the package's own init)."""
        return (
            ""
            if self.path.name == "__init__.py" and len(self.path.parts) == 1
            else (self.path.parts[0].removesuffix(".py"))
        )


def parse(path: str | Path, text: str) -> Source:
    """Parses one file of the package (or a sample that pretends to be one)."""
    return Source(Path(path), text, ast.parse(text))


def package_sources() -> list[Source]:
    """Parses every Python file of the package."""
    files = sorted(PACKAGE.rglob("*.py"))
    return [parse(f.relative_to(PACKAGE), f.read_text(encoding="utf-8")) for f in files]


def imported_modules(source: Source) -> Iterator[tuple[int, str]]:
    """Yields (line, dotted name) for every import, wherever it stands in the file."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def dependency_complaints(source: Source) -> Iterator[str]:
    """Finds imports that point up the list of packages."""
    if source.unit == "":
        return
    if source.unit not in MAY_IMPORT:
        yield f"{source.path}: '{source.unit}' has no place in the list of packages"
        return
    allowed = MAY_IMPORT[source.unit] | _ANYONE | {source.unit, "__version__"}
    for line, name in imported_modules(source):
        if name.startswith("."):
            yield f"{source.path}:{line}: relative import"
        parts = name.split(".")
        if parts[0] == "mirage_jax" and len(parts) > 1 and parts[1] not in allowed:
            yield f"{source.path}:{line}: {source.unit} may not import {name}"


def library_complaints(source: Source) -> Iterator[str]:
    """Finds forbidden libraries, pickle switched on, and JAX where it must not be."""
    for line, name in imported_modules(source):
        root = name.split(".")[0]
        if root in FORBIDDEN_LIBRARIES and source.path not in TORCH_SCRIPTS:
            yield f"{source.path}:{line}: imports {root}"
        if any(name.startswith(f"mirage_jax.{script}") for script in _script_modules()):
            yield f"{source.path}:{line}: imports a script that needs torch"
        if root in {"jax", "flax", "optax", "orbax"} and source.unit in {"data", "geometry"}:
            yield f"{source.path}:{line}: {source.unit} imports {root}"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                yield f"{source.path}:{node.value.lineno}: allow_pickle"


def _script_modules() -> list[str]:
    return [".".join(path.with_suffix("").parts) for path in TORCH_SCRIPTS]


def nnx_complaints(source: Source) -> Iterator[str]:
    """Finds NNX outside models/, its transforms anywhere, split and merge outside the adapter."""
    if source.unit != "models":
        for line, name in imported_modules(source):
            if name.split(".")[0] == "flax":
                yield f"{source.path}:{line}: flax outside models/"
    for node in ast.walk(source.tree):
        if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)):
            continue
        if node.value.id != "nnx":
            continue
        if node.attr in NNX_TRANSFORMS:
            yield f"{source.path}:{node.lineno}: nnx.{node.attr}"
        if node.attr in NNX_ADAPTER_ONLY and source.path.name != "functional.py":
            yield f"{source.path}:{node.lineno}: nnx.{node.attr} outside models/functional.py"


def code_lines(function: Function) -> int:
    """Counts the lines of a function, its own docstring aside."""
    total = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    is_docstring = (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )
    return total - ((first.end_lineno or 0) - first.lineno + 1 if is_docstring else 0)


def parameter_count(function: Function) -> int:
    """Counts parameters, `self` and `cls` aside."""
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len([n for n in names if n not in ("self", "cls")])


def size_complaints(source: Source) -> Iterator[str]:
    """Finds files, functions and parameter lists over their caps."""
    is_kernel = source.unit == "ops" and source.path.name.startswith("pallas")
    lines = len(source.text.splitlines())
    if lines > (KERNEL_FILE_LINES if is_kernel else FILE_LINES):
        yield f"{source.path}: {lines} lines"
    is_loop = source.path.name == "loop.py"
    for node in ast.walk(source.tree):
        if not isinstance(node, Function):
            continue
        where = f"{source.path}:{node.lineno}: {node.name}"
        cap = LOOP_FUNCTION_LINES if is_loop else FUNCTION_LINES
        if code_lines(node) > cap:
            yield f"{where} has {code_lines(node)} lines, cap {cap}"
        if parameter_count(node) > PARAMETERS and not _is_click_command(node):
            yield f"{where} has {parameter_count(node)} parameters, cap {PARAMETERS}"


def _is_click_command(function: Function) -> bool:
    """A click command takes one parameter per flag; that is its interface, not a signature."""
    return any("click." in ast.unparse(d) for d in function.decorator_list)


def wording_complaints(source: Source) -> Iterator[str]:
    """Finds drawers, missing module docstrings, leftovers, asserts and foreign words."""
    if source.path.stem in DRAWER_NAMES:
        yield f"{source.path}: a drawer; name the file after what it does"
    if ast.get_docstring(source.tree) is None:
        yield f"{source.path}: no module docstring"
    for number, line in enumerate(source.text.splitlines(), 1):
        if re.search(r"\b(TODO|FIXME|XXX)\b", line):
            yield f"{source.path}:{number}: leftover note"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Assert):
            yield f"{source.path}:{node.lineno}: assert; raise ValueError or TypeError"
        if isinstance(node, ast.Name) and node.id == "NotImplementedError":
            yield f"{source.path}:{node.lineno}: NotImplementedError"
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            if FOREIGN_WORDS.search(_snake(node.name)):
                yield f"{source.path}:{node.lineno}: '{node.name}' is not one of our words"


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
