"""Makes plans and keeps them: one line of JSON each, by the command that makes it.

Read next: `training.py`, `memory.py`.
"""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mirage_jax.atomic import write_text

_RESULTS = Path(__file__).with_name("results.jsonl")
Plans = dict[str, dict[str, Any]]


def load() -> Plans:
    """Return the plans that were made, by the arguments of `mirage plan`."""
    if not _RESULTS.exists():
        return {}
    plans = [json.loads(line) for line in _RESULTS.read_text().splitlines()]
    return {plan["command"]: plan for plan in plans}


def save(plans: Plans, order: Iterable[str]) -> None:
    """Write the plans, in the order of the tables."""
    places = {command: place for place, command in enumerate(order)}
    ordered = sorted(plans, key=lambda command: places.get(command, len(places)))
    write_text(_RESULTS, "".join(json.dumps(plans[command]) + "\n" for command in ordered))


def make(command: str, limit: float) -> dict[str, Any]:
    """Return the plan's JSON object, compiled or, past `limit` seconds, estimated."""
    whole = [sys.executable, "-m", "mirage_jax.cli.main", "plan", *command.split(), "--json"]
    try:
        done = subprocess.run(whole, capture_output=True, text=True, timeout=limit)
        late = ""
    except subprocess.TimeoutExpired:
        done = subprocess.run([*whole, "--no-compile"], capture_output=True, text=True)
        late = f"not compiled within {limit:.0f} s"
    if done.returncode:
        raise RuntimeError(f"mirage plan {command}: {done.stderr.strip().splitlines()[-1:]}")
    plan = json.loads(done.stdout.strip().splitlines()[-1])
    return {"command": command, "late": late, **plan}
