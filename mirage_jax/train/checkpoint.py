"""Checkpoints through Orbax: written while training goes on, atomic, checked when they are read.

Conventions: `<workdir>/<stage>/checkpoints/N` holds the state whose `step` is N. `save` copies the
state to the host before it returns, so that the next step may overwrite it, and writes in a thread;
a directory appears under its final name only when it is complete, so a killed or failed save leaves
those before it. Fingerprints of the arrays lie in each checkpoint; one that cannot be read or does
not match is moved to `<workdir>/<stage>/damaged` and the one before it is taken. All processes of a
run call every function here alike; the folder is shared by them. Read next:
`mirage_jax/train/resume.py`, `mirage_jax/train/loop.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mirage_jax.distributed import processes
from mirage_jax.train.fingerprint import fingerprints
from mirage_jax.train.state import TrainState

_ITEM, _ARRAYS = "default", "arrays"
# The steps of at most so many checkpoints are told by the first process to the others.
_MOST_STEPS = 4096


@dataclasses.dataclass(frozen=True)
class Keep:
    """Which checkpoints stay.

    Attributes:
        last: so many of the newest.
        every: also those whose step is a multiple of this; 0 for none.
    """

    last: int = 2
    every: int = 0


class SaveError(RuntimeError):
    """A checkpoint could not be written; those before it are untouched."""


class Checkpoints:
    """The checkpoints of one stage in one directory."""

    def __init__(
        self,
        directory: Path,
        keep: Keep = Keep(),
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Open a directory; it is made if there is none, and what was not finished is removed."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self._keep, self._report = directory.resolve(), keep, report
        if processes.is_first():
            for path in self.directory.iterdir():
                if path.is_dir() and not path.name.isdigit():
                    shutil.rmtree(path, ignore_errors=True)
        self._writer = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(),
            # Made in a thread, a folder that cannot be made is waited for until a time-out.
            async_options=ocp.options.AsyncOptions(create_directories_asynchronously=False),
        )
        self._begun: int | None = None
        self._failed = False
        self._saved = self.latest_step()

    def steps(self) -> list[int]:
        """Return the steps of all complete checkpoints, oldest first, as the first process sees."""
        listed = _steps(self.directory)[-_MOST_STEPS:]
        padded = np.full(_MOST_STEPS, -1, np.int32)
        padded[: len(listed)] = listed
        return [int(step) for step in processes.of_first(padded) if step >= 0]

    def latest_step(self) -> int | None:
        """Return the step of the newest complete checkpoint, or None."""
        return max(self.steps(), default=None)

    def save(self, state: TrainState) -> None:
        """Begin to write `state` under its own step; a step already there is left as it is.

        Returns when the arrays are copied; the state may then be donated.

        Raises:
            SaveError: if this save, or the one before it, failed.
        """
        step = int(jax.device_get(state.step))
        if step == self._saved:
            return
        self.wait()
        tree = state._asdict()
        self._begun = self._saved = step
        with self._explained():
            self._writer.save(
                self.directory / str(step),
                args=ocp.args.Composite(**{_ITEM: ocp.args.StandardSave(tree)}),
                custom_metadata={_ARRAYS: _described(tree)},
            )

    def check(self) -> None:
        """Raise `SaveError` if a save that was begun has failed by now; does not wait."""
        if self._begun is None:
            return
        with self._explained():
            self._writer.check_for_errors()
        if (self.directory / str(self._begun)).exists():
            self._begun = None
            self._prune()

    def wait(self) -> None:
        """Return when everything begun is safe on disk.

        Raises:
            SaveError: if it is not.
        """
        with self._explained():
            self._writer.wait_until_finished()
        self.check()

    def restore(self, like: TrainState) -> TrainState | None:
        """Return the newest state that is whole, or None where there is none.

        Damaged checkpoints on the way are moved aside and reported.

        Args:
            like: tree, shapes, types and placement of every array; any mesh will do.

        Raises:
            OtherArrays: if a checkpoint is whole but holds other arrays.
        """
        self.wait()
        for step in reversed(self.steps()):
            state, damage = read(self.directory / str(step), like)
            if state is not None:
                return state
            self._set_aside(step, damage)
        return None

    def close(self) -> None:
        """Finish what was begun and release the threads."""
        if not self._failed:
            self.wait()
        with contextlib.suppress(Exception):  # which has been raised before, by `wait` or `check`
            self._writer.close()

    def _prune(self) -> None:
        """Delete what is not to be kept; only ever after a newer checkpoint is complete."""
        if not processes.is_first():
            return
        every = self._keep.every
        for step in _steps(self.directory)[: -self._keep.last]:
            if not every or step % every:
                # Renamed first: one that is deleted in part must not look complete.
                gone = self.directory / f"{step}.deleted"
                (self.directory / str(step)).rename(gone)
                shutil.rmtree(gone, ignore_errors=True)

    def _set_aside(self, step: int, damage: str) -> None:
        """Move a damaged checkpoint away, so that its step can be saved again."""
        moved = self.directory.parent / "damaged" / str(step)
        if processes.is_first():
            shutil.rmtree(moved, ignore_errors=True)
            moved.parent.mkdir(exist_ok=True)
            shutil.move(self.directory / str(step), moved)
        processes.wait_for_all(f"checkpoint {step} set aside")
        self._saved = before = self.latest_step()
        instead = "there is none before it" if before is None else f"using that of step {before}"
        self._report(
            f"checkpoint of step {step} is damaged ({damage}); moved to {moved}, {instead}"
        )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what goes wrong while saving into a `SaveError` that says what is left."""
        try:
            yield
        except jax.errors.JaxRuntimeError:
            raise  # of the device, or of a process that is lost; the disk is not to blame
        except Exception as error:
            self._begun, self._failed = None, True
            text = " ".join(str(error).split())
            full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in text
            whole = _steps(self.directory)
            last = f"the last good one is step {whole[-1]}" if whole else "there is none before it"
            raise SaveError(
                f"checkpoint of step {self._saved} could not be written to {self.directory}: "
                f"{'the disk is full' if full else text[:300]}; {last}; "
                f"{'free some space' if full else 'mend it'} and give the same command again"
            ) from error


def read(path: Path, like: TrainState) -> tuple[TrainState | None, str]:
    """Read the checkpoint at `path`.

    Args:
        path: folder of one checkpoint.
        like: tree, shapes, types and placement of every array.

    Returns:
        The state and "", or None and what is damaged; alike in all processes.

    Raises:
        OtherArrays: if the checkpoint is whole but holds other arrays.
    """
    abstract = jax.tree.map(_abstract_leaf, like._asdict())
    damage, stated = "", None
    tree: Any = None
    try:
        stated = _stored_description(path)
        _check_arrays(path, abstract, stated)
        # The handler alone has no barrier, in which the others would wait for a process whose
        # part cannot be read.
        handler = ocp.StandardCheckpointHandler()
        tree = handler.restore(path / _ITEM, args=ocp.args.StandardRestore(abstract))
    except OtherArrays:
        raise
    except Exception as error:  # whatever damage makes of the readers of half a dozen formats
        damage = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    if processes.largest(bool(damage)):
        return None, damage or "another process cannot read its part"
    if stated is not None:
        found = _described(tree)
        if wrong := sorted(name for name in found if found[name] != stated[name]):
            return None, f"other bits than were saved in {', '.join(wrong[:3])}"
    return TrainState(**tree), ""


class OtherArrays(ValueError):
    """A checkpoint of other arrays than those wanted."""


def _steps(directory: Path) -> list[int]:
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


def _described(tree: Any) -> dict[str, list[Any]]:
    """Return type, shape and fingerprint of each array by its path."""
    numbers = fingerprints(tree)
    leaves = jax.tree.leaves(tree)
    return {
        name: [str(leaf.dtype), list(leaf.shape), number]
        for (name, number), leaf in zip(numbers.items(), leaves, strict=True)
    }


def _stored_description(path: Path) -> dict[str, list[Any]] | None:
    """Return what `_described` gave when the checkpoint was saved; older ones have nothing."""
    # Orbax writes the file last; its own reader takes a damaged one for an empty one.
    stored = json.loads((path / "_CHECKPOINT_METADATA").read_text())
    return stored["custom_metadata"].get(_ARRAYS)


def _check_arrays(path: Path, abstract: Any, stated: dict[str, list[Any]] | None) -> None:
    if stated is None:
        return
    leaves = jax.tree_util.tree_leaves_with_path(abstract)
    wanted = {
        jax.tree_util.keystr(where, simple=True, separator="/"): [str(x.dtype), list(x.shape)]
        for where, x in leaves
    }
    wrong = [
        f"{name}: has {stated.get(name, ['nothing'])[:2]}, wanted {wanted.get(name, 'nothing')}"
        for name in sorted(wanted.keys() | stated.keys())
        if stated.get(name, [])[:2] != wanted.get(name)
    ]
    if wrong:
        raise OtherArrays(
            f"checkpoint {path} holds other arrays than this config trains, expected the same; "
            f"{len(wrong)} differ ({'; '.join(wrong[:3])}); go on with the config it was made with "
            "or use another --workdir"
        )


def _abstract_leaf(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
