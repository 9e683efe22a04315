"""Lists of files with times, as TUM's ``rgb.txt``, and which time is nearest to which.

One line a file: ``timestamp path``; lines that start with ``#`` are comments.

Read next: ``posed_rgbd.py``.
"""

from pathlib import Path

import numpy as np

from mirage_jax.geometry.camera_files.text_lines import check_count, numbered_lines, numbers


def timed_files(path: Path) -> tuple[np.ndarray, list[Path]]:
    """Return the times [n] in order, and the files.

    Raises:
        FileNotFoundError: no such list.
        ValueError: a line that is none, or no lines; names file and line.
    """
    found: list[tuple[float, Path]] = []
    for number, line in numbered_lines(path):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        where = f"{path}: line {number}"
        if len(words) != 2:
            raise ValueError(
                f"{where}: got {len(words)} words, expected a time and a file. The file may be cut "
                "off."
            )
        found.append((numbers(words[:1], where)[0], path.parent / words[1]))
        check_count(len(found), str(path))
    if not found:
        raise ValueError(f"{path}: lists no files: expected a line 'time file' each.")
    found.sort(key=lambda one: one[0])
    return np.array([time for time, _ in found]), [file for _, file in found]


def matched_times(times: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each time the index of the nearest other, and how far apart they are, seconds."""
    order = np.argsort(others, kind="stable")
    ordered = others[order]
    after = np.clip(np.searchsorted(ordered, times), 0, len(ordered) - 1)
    before = np.maximum(after - 1, 0)
    nearer_before = np.abs(ordered[before] - times) <= np.abs(ordered[after] - times)
    nearest = np.where(nearer_before, before, after)
    return order[nearest], np.abs(ordered[nearest] - times)
