"""What a memory holds, in numbers: rows, pages, partitions, bytes, extent in space and time.

Read next: `edit.py` (merge and crop), `files.py`.
"""

from typing import Any

import numpy as np

from mirage_jax.memory.rows import balance, positions_in_order, row_numbers
from mirage_jax.memory.state import LatentMemory, MemoryConfig


def summarize(memory: LatentMemory, config: MemoryConfig) -> dict[str, Any]:
    """Return plain numbers about one memory, fit for JSON.

    Args:
        memory: One memory, not a stack.
        config: Its config.

    Returns:
        `rows`, `capacity`, `fill` (share of it), `dropped`; `pages` (used, of, rows a used page);
        `partitions` (rows of each, fullest over mean); `bytes` by table for the whole memory, and
        of all; `bounds` (least and greatest corner, scene units) and `time` (first and last
        stamp), both None without rows.
    """
    rows = int(memory.count)
    used = np.asarray(memory.used)
    sizes = {name: int(table.nbytes) for name, table in memory._asdict().items()}
    positions = positions_in_order(memory)
    time = np.asarray(memory.time).reshape(-1)[row_numbers(memory)]
    return {
        "rows": rows,
        "capacity": config.capacity,
        "fill": rows / config.capacity,
        "dropped": int(memory.dropped),
        "pages": {
            "used": int((used > 0).sum()),
            "of": used.size,
            "rows_each": rows / max(int((used > 0).sum()), 1),
        },
        "partitions": {
            "rows": np.asarray(memory.filled).tolist(),
            "fullest_over_mean": balance(memory),
        },
        "bytes": {**sizes, "total": sum(sizes.values())},
        "bounds": [positions.min(0).tolist(), positions.max(0).tolist()] if rows else None,
        "time": [int(time.min()), int(time.max())] if rows else None,
    }


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """Return a summary as lines to read."""
    pages, parts = summary["pages"], summary["partitions"]
    shares = ", ".join(f"{count:,}" for count in parts["rows"])
    lines = [
        f"rows        {summary['rows']:,} of {summary['capacity']:,} ({summary['fill']:.1%}), "
        f"{summary['dropped']:,} dropped",
        f"pages       {pages['used']:,} of {pages['of']:,}, {pages['rows_each']:.0f} rows each",
        f"partitions  {len(parts['rows'])} with {shares} rows; fullest over mean "
        f"{parts['fullest_over_mean']:.2f}",
    ]
    if summary["bounds"] is not None:
        corners = [
            "(" + ", ".join(f"{x:.2f}" for x in corner) + ")" for corner in summary["bounds"]
        ]
        lines.append(f"bounds      {corners[0]} to {corners[1]}")
        lines.append(f"time        {summary['time'][0]} to {summary['time'][1]}")
    sizes = sorted(summary["bytes"].items(), key=lambda item: -item[1])
    lines += [f"bytes       {size:>14,}  {name}" for name, size in sizes if size]
    return lines
