"""Where a run begins: at step 0, or at a checkpoint of its own or of another run.

`auto` goes on from the newest good checkpoint of the workdir; `never` refuses a workdir that has
any, so that none is lost; a path (a checkpoint, or a folder of them) is where a workdir without
checkpoints begins, so that the same command, given again, goes on from its own. A workdir belongs
to one model: `config.json` beside the checkpoints says which. Read next:
`mirage_jax/train/checkpoint.py`, `mirage_jax/train/loop.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mirage_jax.atomic import write_text
from mirage_jax.distributed import processes
from mirage_jax.train.checkpoint import Checkpoints, read
from mirage_jax.train.state import TrainState

# Settings of a denoiser that change no parameter's shape or meaning.
_HOW = ("remat", "attention", "products", "unroll")


def saved_state(checkpoints: Checkpoints, resume: str, like: TrainState) -> TrainState | None:
    """Return the state that a run goes on from, or None to begin at step 0.

    Args:
        checkpoints: of the run's workdir.
        resume: "auto", "never" or a path, see above.
        like: tree, shapes, types and placement of every array.

    Raises:
        FileNotFoundError: if there is no checkpoint at the path.
        ValueError: if checkpoints are in the way, damaged at the path, or of other arrays.
    """
    latest = checkpoints.latest_step()
    if resume == "never":
        if latest is not None:
            raise ValueError(
                f"--resume: got never, but {checkpoints.directory} holds a checkpoint of step "
                f"{latest}, expected none; use another --workdir, or move them away"
            )
        return None
    if latest is not None or resume == "auto":
        return checkpoints.restore(like)
    path = find_checkpoint(Path(resume))
    state, damage = read(path, like)
    if state is None:
        raise ValueError(
            f"--resume: checkpoint {path} is damaged ({damage}), expected a whole one; give "
            "another path"
        )
    return state


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint meant by a path: itself, or the newest of those in the folder.

    Raises:
        FileNotFoundError: if there is none.
    """
    if path.name.isdigit() and path.is_dir():
        return path.resolve()
    for folder in (path, path / "checkpoints"):
        steps = [int(p.name) for p in folder.glob("*") if p.name.isdigit()]
        if steps:
            return (folder / str(max(steps))).resolve()
    raise FileNotFoundError(
        f"--resume: found no checkpoint at {path}, expected auto, never, or a folder such as "
        "runs/world/denoiser/checkpoints/500"
    )


def check_config(path: Path, model: dict[str, Any], settings: dict[str, Any]) -> None:
    """Store the config at `path` on first use; later, refuse one that describes another model.

    Args:
        path: JSON file beside the checkpoints.
        model: what shapes the parameters; must equal the stored one, but for how products are
            made and what the backward pass keeps.
        settings: everything else (kept for the reader; may change between runs).

    Raises:
        ValueError: naming the keys of `model` that differ.
    """
    if path.exists():
        stored = _what_it_is(json.loads(path.read_text())["model"])
        current = _what_it_is(json.loads(json.dumps(model)))
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
    if processes.is_first():
        text = json.dumps({"model": model, "settings": settings}, indent=1, default=str)
        write_text(path, text)


def _what_it_is(model: dict[str, Any]) -> dict[str, Any]:
    """Leave out of a model's settings those that say how it is computed."""
    return {
        name: {k: v for k, v in part.items() if k not in _HOW} if isinstance(part, dict) else part
        for name, part in model.items()
        if name not in _HOW
    }
