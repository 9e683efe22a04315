"""Named sizes of the row gather and the row writes, shared by tests and benchmarks.

Read next: `tests/ops/test_gather_rows.py`.
"""

import dataclasses
from typing import Any

import ml_dtypes  # noqa: F401  # registers bfloat16 with NumPy
import numpy as np


@dataclasses.dataclass(frozen=True)
class ArgSpec:
    """One named case.

    Attributes:
        num_rows: Rows n of the table, a multiple of `line_rows`.
        num_taken: Rows m gathered or written.
        channels: Channels c.
        line_rows: Rows k of a line.
        dtype: Type of the table.
    """

    num_rows: int
    num_taken: int
    channels: int = 48
    line_rows: int = 8
    dtype: str = "float32"


SPECS = {
    "one": ArgSpec(8, 1),
    "plain": ArgSpec(40, 17, 5, 1),
    "tiny": ArgSpec(64, 40, 16, 8),
    "tiny_bf16": ArgSpec(128, 100, 16, 16, "bfloat16"),
    "lines": ArgSpec(512, 300),
    "lines_bf16": ArgSpec(512, 300, line_rows=16, dtype="bfloat16"),
    "rows_1e4": ArgSpec(10_240, 44 * 80),
    "rows_1e5": ArgSpec(102_400, 44 * 80),
    "rows_1e6": ArgSpec(1_024_000, 44 * 80),
    "chunk_1e6": ArgSpec(1_024_000, 9 * 44 * 80),
    "chunk_1e6_bf16": ArgSpec(1_024_000, 9 * 44 * 80, line_rows=16, dtype="bfloat16"),
    "chunk_1e7": ArgSpec(10_240_000, 9 * 44 * 80),
}


def make_arguments(spec: ArgSpec, seed: int = 0) -> tuple[Any, Any]:
    """Return a random (table, index) of a case; a fifth of the numbers are -1, some occur twice."""
    rng = np.random.default_rng(seed)
    lines = (spec.num_rows // spec.line_rows, spec.line_rows * spec.channels)
    table = rng.standard_normal(lines, np.float32)
    index = rng.integers(0, spec.num_rows, spec.num_taken).astype(np.int32)
    index[rng.random(spec.num_taken) < 0.2] = -1
    return table.astype(np.dtype(spec.dtype)), index


def make_unique(spec: ArgSpec, seed: int = 0) -> tuple[Any, Any, Any]:
    """Return a random (table, rows, index) whose numbers occur once, a fifth of them -1."""
    rng = np.random.default_rng(seed)
    table, _ = make_arguments(spec, seed)
    index = rng.choice(spec.num_rows, spec.num_taken, replace=False).astype(np.int32)
    index[rng.random(spec.num_taken) < 0.2] = -1
    rows = rng.standard_normal((spec.num_taken, spec.channels), np.float32)
    return table, rows.astype(table.dtype), index
