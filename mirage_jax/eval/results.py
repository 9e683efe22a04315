"""Results of a protocol as JSON lines, one for each scene, system and seed; runs that stop go on.

Every line has a fingerprint of the world's configs and weights, of the protocol's setting, and of
what measures. A line counts only under the fingerprint it was written with, so numbers of another
world or setting are never mixed in; they stay in the file and are left alone. Lines are written
whole and flushed to the disk; half a line at the end, of a run that was killed, is dropped.
Read next: `mirage_jax/eval/summary.py`.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

import mirage_jax
from mirage_jax import config as config_lib
from mirage_jax.eval.protocols import Protocol
from mirage_jax.eval.report import jsonable
from mirage_jax.rollout.world import World

# To be raised when a metric or a system changes its meaning: older lines no longer count.
MEASURES = 2


@dataclasses.dataclass(frozen=True)
class Record:
    """What was measured of one scene, system and seed.

    Attributes:
        item: name of the scene.
        system: name of the system.
        seed: of the noise; 0 for systems without chance.
        metrics: name -> value.
        curves: name -> values, by chunk, lap or frame.
        sums: name -> numbers that add up over scenes (`frechet.PatchSums`, flat).
    """

    item: str
    system: str
    seed: int
    metrics: dict[str, float]
    curves: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    sums: dict[str, list[Any]] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, int]:
        """What may occur once."""
        return self.item, self.system, self.seed


class ResultFile:
    """The JSON lines of one protocol."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        """Read what is there; nothing is written yet."""
        self.path, self.fingerprint = path, fingerprint
        self.records: dict[tuple[str, str, int], Record] = {}
        self.others = 0
        for line in _whole_lines(path):
            if line.pop("fingerprint", None) == fingerprint:
                record = Record(**line)
                self.records[record.key] = record
            else:
                self.others += 1

    def add(self, records: Iterable[Record]) -> None:
        """Append records and wait until they are on the disk."""
        lines = []
        for record in records:
            values = jsonable(dataclasses.asdict(record))
            # Kept as they will be read again, rounding included.
            self.records[record.key] = Record(**values)
            lines.append(json.dumps({"fingerprint": self.fingerprint, **values}) + "\n")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _drop_half_line(self.path)
        with self.path.open("ab") as file:
            file.write("".join(lines).encode())
            file.flush()
            os.fsync(file.fileno())

    def only(self, keys: Iterable[tuple[str, str, int]]) -> ResultFile:
        """Return the results of some scenes, systems and seeds, for tables; the file stays."""
        found = copy.copy(self)
        found.records = {key: self.records[key] for key in keys if key in self.records}
        return found

    def of_system(self, system: str) -> list[Record]:
        """Return a system's records in the order of scenes and seeds."""
        found = [r for r in self.records.values() if r.system == system]
        return sorted(found, key=lambda record: (record.item, record.seed))


def fingerprint(world: World, protocol: Protocol, extras: dict[str, Any]) -> str:
    """Return a short hash of everything that a number depends on, but its scene, system and seed.

    Args:
        world: configs and weights.
        protocol: its setting; number of items, seeds and systems do not count, since they only say
            how many lines there are.
        extras: more that matters, such as the weights of a metric.
    """
    setting = dataclasses.asdict(protocol.setting)
    for name in ("items", "seeds", "systems"):
        del setting[name]
    digest = hashlib.sha256()
    facts = {
        "measures": MEASURES,
        "version": mirage_jax.__version__,
        "world": config_lib.to_dict(world.spec),
        "protocol": protocol.name,
        "setting": setting,
        **extras,
    }
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    _add_weights(digest, world.params)
    return digest.hexdigest()[:16]


def _add_weights(digest: Any, tree: Any) -> None:
    if isinstance(tree, dict):
        for name in sorted(tree):
            digest.update(str(name).encode())
            _add_weights(digest, tree[name])
    else:
        digest.update(np.ascontiguousarray(np.asarray(tree)).tobytes())


def _whole_lines(path: Path) -> Iterable[dict[str, Any]]:
    if not path.is_file():
        return
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise ValueError(
                f"{path}: got a damaged line {number} ({error}), expected JSON; delete that line, "
                "and what it held is measured again"
            ) from error


def _drop_half_line(path: Path) -> None:
    """Cut off what a killed run left after the last newline."""
    if path.is_file():
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(path, whole)
