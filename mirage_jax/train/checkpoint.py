"""Checkpoints through Orbax: atomic, the last two kept, restored whole into an abstract state.

Conventions: `<workdir>/<stage>/checkpoints/N` holds the state whose `step` is N. A directory
appears under its final name only when it is complete, so a killed save leaves the one before. The
config lies beside as JSON and must describe the same model on resume. Read next:
`mirage_jax/train/loop.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from mirage_jax.atomic import write_text
from mirage_jax.train.state import TrainState


class Checkpoints:
    """The checkpoints of one stage in one directory.

    `save` returns when the files are safe on disk.
    """

    def __init__(self, directory: Path, keep: int = 2) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(directory.resolve(), options=options)

    def latest_step(self) -> int | None:
        """Return the step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState) -> None:
        """Write `state` under its own step; a step already there is left as it is."""
        step = int(state.step)
        if step == self.latest_step():
            return
        self._manager.save(step, args=ocp.args.StandardSave(state._asdict()))
        self._manager.wait_until_finished()

    def restore(self, like: TrainState) -> TrainState:
        """Return the newest state.

        `like` gives the tree, shapes, types and placement of every array.
        """
        abstract = jax.tree.map(_abstract_leaf, like._asdict())
        restored = self._manager.restore(
            self.latest_step(), args=ocp.args.StandardRestore(abstract)
        )
        return TrainState(**restored)

    def close(self) -> None:
        """Release the manager's threads."""
        self._manager.close()


def _abstract_leaf(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def check_config(path: Path, model: dict[str, Any], settings: dict[str, Any]) -> None:
    """Store the config at `path` on first use; later, refuse one that describes another model.

    Args:
        path: JSON file beside the checkpoints.
        model: what shapes the parameters; must equal the stored one.
        settings: everything else (kept for the reader; may change between runs).

    Raises:
        ValueError: naming the keys of `model` that differ.
    """
    if path.exists():
        stored = json.loads(path.read_text())["model"]
        current = json.loads(json.dumps(model))
        differing = sorted(
            k for k in stored.keys() | current.keys() if stored.get(k) != current.get(k)
        )
        if differing:
            shown = ", ".join(f"{k}: {stored.get(k)} -> {current.get(k)}" for k in differing)
            raise ValueError(
                f"config differs from the one {path.parent} was trained with: {shown}; expected "
                "the same model; "
                "use another --workdir or the old config"
            )
    write_json(path, {"model": model, "settings": settings})


def write_json(path: Path, content: Any) -> None:
    """Write JSON; an interrupted write leaves the old file."""
    write_text(path, json.dumps(content, indent=1, default=str))
