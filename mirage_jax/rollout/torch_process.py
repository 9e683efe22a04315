"""A script that runs PyTorch in a process of its own and answers requests.

Requests and answers are JSON lines; arrays go through npy files. `MIRAGE_TORCH_PYTHON` names
another interpreter, for environments in which JAX and PyTorch do not get along.
Read next: `hub_depth.py`, `mirage_jax/eval/metrics/raft.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from mirage_jax.geometry.camera_files.npz import MAX_ARRAY_BYTES, read_npy


class TorchProcess:
    """A process that is started once and answers one request after the other.

    Attributes:
        told: its first answer.
    """

    def __init__(
        self, script: Path, arguments: Sequence[str], failed: Callable[[str], ValueError]
    ) -> None:
        """Start the process and wait until it says that it is ready.

        Args:
            script: what it runs.
            arguments: of the script.
            failed: makes the error from the last thing that a process which ended said.

        Raises:
            ValueError: there is no such interpreter, or what `failed` makes.
        """
        self._failed = failed
        self._folder = tempfile.TemporaryDirectory(prefix="mirage-torch-")
        self._errors = Path(self._folder.name) / "errors.txt"
        python = os.environ.get("MIRAGE_TORCH_PYTHON") or sys.executable
        try:
            with self._errors.open("wb") as errors:
                self._process: subprocess.Popen = subprocess.Popen(
                    [python, str(script), *arguments],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                )
        except OSError as error:
            self._folder.cleanup()
            raise ValueError(
                f"MIRAGE_TORCH_PYTHON: got {python} ({error}), expected a Python interpreter"
            ) from error
        try:
            self.told = self._answer()
        except BaseException:
            self.close()
            raise

    def ask(self, frames: np.ndarray) -> np.ndarray:
        """Return the array that the script makes of an array.

        Raises:
            ValueError: what `failed` makes, where the process has ended.
        """
        given, made = (Path(self._folder.name) / name for name in ("frames.npy", "made.npy"))
        np.save(given, np.ascontiguousarray(frames))
        stream: IO[bytes] = self._process.stdin  # type: ignore[assignment]
        try:
            stream.write(json.dumps({"frames": str(given), "out": str(made)}).encode() + b"\n")
            stream.flush()
        except OSError as error:
            raise self._failure() from error
        self._answer()
        return read_npy(made, MAX_ARRAY_BYTES)

    def _answer(self) -> dict[str, Any]:
        stream: IO[bytes] = self._process.stdout  # type: ignore[assignment]
        line = stream.readline()
        if not line:
            raise self._failure()
        return json.loads(line)

    def _failure(self) -> ValueError:
        self._process.wait()
        said = self._errors.read_text(errors="replace").strip().splitlines()[-1:]
        return self._failed(said[0][:500] if said else f"exit code {self._process.returncode}")

    def close(self) -> None:
        """End the process and remove its files."""
        if self._process.stdin:
            try:
                self._process.stdin.close()
            except OSError:
                pass
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._folder.cleanup()
