"""Text that may come from strangers: numbered lines and JSON, with sizes checked first.

Every error names the file and the line. Read next: the formats that use it.
"""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Four hours at 16 frames a second; a row takes under a kilobyte while it is parsed.
MAX_FRAMES = 250_000
MAX_TEXT_BYTES = 1 << 30
# What Python makes of JSON takes ten to twenty times its length.
MAX_JSON_BYTES = 32 << 20
# One image's points in COLMAP's images.txt stand on one line.
MAX_LINE_BYTES = 16 << 20


def require_file(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> int:
    """Return the size of a file, or raise if there is none or it is too large."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. Check the path.")
    size = os.path.getsize(path)
    if size > max_bytes:
        raise ValueError(
            f"{path}: too large for a camera file: got {size:,} bytes, expected at most "
            f"{max_bytes:,}. Check that this is the right file, or split it."
        )
    return size


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its end); one line is in memory at a time.

    Raises:
      FileNotFoundError: no such file.
      ValueError: too large, a line too long, or not text.
    """
    require_file(path)
    with path.open("rb") as stream:
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise ValueError(
                    f"{path}: line {number} is too long: got over {MAX_LINE_BYTES:,} bytes, "
                    "expected one camera a line. Check that this is a camera file."
                )
            try:
                yield number, line.decode("utf-8").strip()
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}: line {number} is not text: got {error}, expected UTF-8. Check the "
                    "file."
                ) from error


def numbers(words: list[str], where: str) -> list[float]:
    """Parse finite numbers."""
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        shown = " ".join(words)[:60]
        raise ValueError(
            f"{where} is not a row of numbers: got {shown!r}, expected numbers separated by "
            "blanks. Check that this is the right kind of file."
        ) from error
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{where} has values that are not finite: expected numbers. Drop the row.")
    return values


def are_numbers(words: list[str]) -> bool:
    """Return True if every word parses as a number."""
    try:
        return all(math.isfinite(float(word)) for word in words)
    except ValueError:
        return False


def check_count(count: int, where: str) -> None:
    """Raise if a file promises or holds more cameras than any path has."""
    if count > MAX_FRAMES:
        raise ValueError(
            f"{where}: too many cameras: got {count:,}, expected at most {MAX_FRAMES:,}. Split "
            "the file."
        )


def read_json(path: Path) -> Any:
    """Read a JSON file of bounded size and depth."""
    require_file(path, MAX_JSON_BYTES)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # JSON and UTF-8 errors are ValueErrors
        raise ValueError(
            f"{path}: not JSON: got {error}, expected a JSON file. It may be cut off; write it "
            "again."
        ) from error


def json_number(value: Any, where: str) -> float:
    """Return a finite float from a JSON value, or raise with the place."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            if math.isfinite(number := float(value)):
                return number
    except OverflowError:
        pass
    raise ValueError(
        f"{where} is missing or not a number: got {str(value)[:40]!r}, expected a finite number. "
        "Add it to the file."
    )
