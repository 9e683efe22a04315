"""Depth models of Hugging Face, run by PyTorch in a process of their own (extra `depth`).

The process is started once, loads the model, and answers for one batch of pictures after the other
(`hub_depth_forward.py`, the only file here that imports torch). `MIRAGE_TORCH_PYTHON` names another
interpreter, for environments in which JAX and PyTorch do not get along.
Conventions: pictures are uint8 RGB; metric models give z-depth in metres, relative ones disparity.
Read next: `mirage_jax/rollout/depth_sources.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from jaxtyping import Float, UInt8

from mirage_jax.geometry.camera_files.npz import MAX_ARRAY_BYTES, read_npy
from mirage_jax.geometry.depth_files import DepthMaps
from mirage_jax.geometry.depth_files.depth_maps import Kind

_SCRIPT = Path(__file__).with_name("hub_depth_forward.py")
_KINDS: dict[Any, Kind] = {"metric": "z", "relative": "disparity"}
_INSTALL = "pip install 'mirage-jax[depth]', or name a Python that has both: MIRAGE_TORCH_PYTHON"


class HubDepth:
    """A depth model in a process of its own; a context manager that ends it.

    Attributes:
        kind: "z" for metric models, "disparity" for relative ones.
    """

    def __init__(self, model: str, kind: Kind | None = None, device: str = "cpu") -> None:
        """Start the process and wait until the model is loaded.

        Args:
            model: name on the hub, or a folder with config, weights (safetensors) and processor.
            kind: what its values are, where its config does not say.
            device: of PyTorch, such as "cpu" or "cuda".

        Raises:
            ValueError: PyTorch is missing, the model cannot be loaded, or does not say its kind.
        """
        self._model = model
        self._folder = tempfile.TemporaryDirectory(prefix="mirage-depth-")
        self._errors = Path(self._folder.name) / "errors.txt"
        python = os.environ.get("MIRAGE_TORCH_PYTHON") or sys.executable
        try:
            with self._errors.open("wb") as errors:
                self._process: subprocess.Popen = subprocess.Popen(
                    [python, str(_SCRIPT), model, device],
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
            told = self._answer()
            found = kind or _KINDS.get(told.get("kind"))
            if found is None:
                raise ValueError(
                    f"--depth hf:{model}: models of type {told.get('model_type')!r} do not say "
                    "what their values are; say it with --depth-as z, ray or disparity"
                )
        except BaseException:
            self.close()
            raise
        self.kind: Kind = found

    def depth(self, frames: UInt8[np.ndarray, "f H W 3"]) -> DepthMaps:
        """Return the model's values for pictures, at their size; what is not positive is unknown.

        Raises:
            ValueError: the process failed, or its values are not finite.
        """
        given, made = (Path(self._folder.name) / name for name in ("frames.npy", "depth.npy"))
        np.save(given, np.ascontiguousarray(frames))
        stream: IO[bytes] = self._process.stdin  # type: ignore[assignment]
        request = {"frames": str(given), "out": str(made)}
        try:
            stream.write(json.dumps(request).encode() + b"\n")
            stream.flush()
        except OSError as error:
            raise self._failure() from error
        self._answer()
        values = read_npy(made, MAX_ARRAY_BYTES)
        return DepthMaps(self._checked(values, frames.shape[:3]), self.kind, True, self._model)

    def _checked(self, values: np.ndarray, shape: tuple[int, ...]) -> Float[np.ndarray, "f H W"]:
        if values.shape != shape or not np.isfinite(values).all():
            raise ValueError(
                f"--depth hf:{self._model}: got values of shape {values.shape}, "
                f"{int((~np.isfinite(values)).sum())} of them not finite, expected finite {shape}"
            )
        return values if self.kind == "disparity" else np.maximum(values, 0)

    def _answer(self) -> dict[str, Any]:
        stream: IO[bytes] = self._process.stdout  # type: ignore[assignment]
        line = stream.readline()
        if not line:
            raise self._failure()
        return json.loads(line)

    def _failure(self) -> ValueError:
        self._process.wait()
        said = self._errors.read_text(errors="replace").strip().splitlines()[-1:]
        reason = said[0][:500] if said else f"exit code {self._process.returncode}"
        cure = "check the model's name or folder"
        if "No module named" in reason:
            cure = _INSTALL
        return ValueError(
            f"--depth hf:{self._model}: the depth model did not run ({reason}), expected a depth "
            f"model of Hugging Face with safetensors; {cure}"
        )

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

    def __enter__(self) -> HubDepth:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """See `close`."""
        self.close()
