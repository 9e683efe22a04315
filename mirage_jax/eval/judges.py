"""What scores the videos of a protocol: in this process, or in others beside it.

Finding cameras and flow takes as long as generating does and needs no accelerator, so both go on
side by side. A scene is always scored by the same process, which keeps what is known about it. The
numbers do not depend on how many processes there are.
Read next: `scores/`, `run_protocol.py`.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from mirage_jax.eval.cases import Case
from mirage_jax.eval.metrics.lpips import Lpips
from mirage_jax.eval.metrics.raft import Raft
from mirage_jax.eval.protocols import Protocol
from mirage_jax.eval.scores import Ruler, Score
from mirage_jax.eval.scores.camera import score_camera, telling_looks
from mirage_jax.eval.scores.comeback import score_return
from mirage_jax.eval.scores.follow import score_following
from mirage_jax.eval.scores.motion import score_motion, true_flow
from mirage_jax.rollout import video as video_files

# Quantiser of the videos that the report shows.
_CRF = 20
_FPS = 8.0
# Generating goes first where cores are few.
_NICE = 5

Judge = Callable[[np.ndarray, np.ndarray | None], Score]


class Task(NamedTuple):
    """A scene under a protocol; `ends` is one past the last frame of each chunk."""

    protocol: Protocol
    case: Case
    ends: tuple[int, ...]

    @property
    def key(self) -> tuple[str, str]:
        """Protocol and scene."""
        return self.protocol.name, self.case.item.name


class Nets(NamedTuple):
    """Networks that measure, with a user's weights; None where there are none."""

    lpips: Lpips | None = None
    raft: Raft | None = None


def judge_of(task: Task, nets: Nets) -> Judge:
    """Return what scores a video of a scene, with what it needs to know of the truth."""
    protocol, case = task.protocol, task.case
    ruler = Ruler(task.ends, *nets)
    if protocol.name == "nvs":
        return lambda video, seen: score_following(case, video, seen, ruler)
    if protocol.name == "revisit":
        return lambda video, seen: score_return(case, video, seen, ruler, protocol.setting.laps)
    if protocol.name == "camera":
        looks = telling_looks(case, protocol.setting.looks)
        return lambda video, seen: score_camera(case, video, looks)
    known = true_flow(case, ruler)
    return lambda video, seen: score_motion(case, video, known, ruler)


class Judges:
    """Scores videos of the scenes of a batch; answers come as futures."""

    def __init__(self, workers: int, nets: Nets) -> None:
        """Start the processes.

        Args:
            workers: how many; 0 scores in this one, before the call returns.
            nets: what measures, loaded again in each process.
        """
        self._executors: list[Executor]
        if workers == 0:
            self._executors, self._call = [_Here()], _Bench(nets).call
        else:
            paths = tuple(None if net is None else net.path for net in nets)
            pool = functools.partial(
                ProcessPoolExecutor, 1, multiprocessing.get_context("spawn"), _prepare, paths
            )
            self._executors, self._call = [pool() for _ in range(workers)], _remote
        self._opened: list[Future[Any]] = []

    def open(self, place: int, tasks: Sequence[Task]) -> None:
        """Make a scene known; `place` chooses its process."""
        self._opened += [self._submit(place, "open", task) for task in tasks]

    def score(
        self, place: int, task: Task, video: np.ndarray, seen: np.ndarray | None
    ) -> Future[Score]:
        """Score a video of a scene that is known."""
        return self._submit(place, "score", task.key, video, seen)

    def keep(self, place: int, path: Path, video: np.ndarray, same: Path | None) -> None:
        """Write a video for the report, or copy the file of the `same` frames."""
        self._opened.append(self._submit(place, "keep", path, video, same))

    def forget(self) -> None:
        """Forget all scenes, after what was asked before."""
        for place in range(len(self._executors)):
            self._opened.append(self._submit(place, "forget"))

    def check(self, wait: bool = False) -> None:
        """Raise what went wrong without an answer; with `wait`, of everything asked so far."""
        for future in self._opened:
            if wait or future.done():
                answer(future)
        self._opened = [future for future in self._opened if not future.done()]

    def close(self) -> None:
        """End the processes; what they have not begun is dropped."""
        for executor in self._executors:
            executor.shutdown(wait=True, cancel_futures=True)

    def _submit(self, place: int, name: str, *arguments: Any) -> Future[Any]:
        executor = self._executors[place % len(self._executors)]
        try:
            return executor.submit(self._call, name, *arguments)
        except BrokenProcessPool as error:
            raise _ended() from error


def answer(future: Future[Any]) -> Any:
    """Return what a process answered.

    Raises:
        RuntimeError: it has ended.
    """
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise _ended() from error


def _ended() -> RuntimeError:
    return RuntimeError(
        "--workers: got a scoring process that ended, expected it to run until the last scene; it "
        "was killed or ran out of memory: run the command again, which goes on, with fewer or with "
        "--workers 0"
    )


class _Bench:
    """The scenes that one process knows."""

    def __init__(self, nets: Nets) -> None:
        self._nets = nets
        self._judges: dict[tuple[str, str], Judge] = {}

    def call(self, name: str, *arguments: Any) -> Any:
        return getattr(self, name)(*arguments)

    def open(self, task: Task) -> None:
        self._judges[task.key] = judge_of(task, self._nets)

    def score(self, key: tuple[str, str], video: np.ndarray, seen: np.ndarray | None) -> Score:
        return self._judges[key](video, seen)

    def keep(self, path: Path, video: np.ndarray, same: Path | None) -> None:
        if same is None:
            video_files.write_video(path, video, _FPS, crf=_CRF)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(same, path)

    def forget(self) -> None:
        self._judges.clear()


class _Here(Executor):
    """Runs in this process, at once."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


_bench: _Bench | None = None


def _prepare(lpips: Path | None, raft: Path | None) -> None:
    """Set up a scoring process; the accelerator belongs to the one that generates."""
    global _bench
    import jax

    threading.Thread(target=_end_with_parent, daemon=True).start()
    jax.config.update("jax_platforms", "cpu")
    cv2.setNumThreads(1)
    os.nice(_NICE)
    _bench = _Bench(Nets(Lpips(lpips) if lpips else None, Raft(raft) if raft else None))


def _end_with_parent() -> None:
    """End this process when the one that generates was killed; it would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _remote(name: str, *arguments: Any) -> Any:
    if _bench is None:
        raise RuntimeError("a scoring process was not prepared; start it through Judges")
    return _bench.call(name, *arguments)
