"""Depth models of Hugging Face, run by PyTorch in a process of their own (extra `depth`).

The process is started once, loads the model, and answers for one batch of pictures after the other
(`hub_depth_forward.py`, which alone imports torch here); see `torch_process.py`.
Conventions: pictures are uint8 RGB; metric models give z-depth in metres, relative ones disparity.
Read next: `mirage_jax/rollout/depth_sources.py`.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from mirage_jax.geometry.depth_files import DepthMaps
from mirage_jax.geometry.depth_files.depth_maps import Kind
from mirage_jax.rollout.torch_process import TorchProcess

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
        self._process = TorchProcess(_SCRIPT, (model, device), self._failed)
        found = kind or _KINDS.get(self._process.told.get("kind"))
        if found is None:
            self.close()
            raise ValueError(
                f"--depth hf:{model}: models of type {self._process.told.get('model_type')!r} do "
                "not say what their values are; say it with --depth-as z, ray or disparity"
            )
        self.kind: Kind = found

    def depth(self, frames: UInt8[np.ndarray, "f H W 3"]) -> DepthMaps:
        """Return the model's values for pictures, at their size; what is not positive is unknown.

        Raises:
            ValueError: the process failed, or its values are not finite.
        """
        values = self._process.ask(frames)
        return DepthMaps(self._checked(values, frames.shape[:3]), self.kind, True, self._model)

    def _checked(self, values: np.ndarray, shape: tuple[int, ...]) -> Float[np.ndarray, "f H W"]:
        if values.shape != shape or not np.isfinite(values).all():
            raise ValueError(
                f"--depth hf:{self._model}: got values of shape {values.shape}, "
                f"{int((~np.isfinite(values)).sum())} of them not finite, expected finite {shape}"
            )
        return values if self.kind == "disparity" else np.maximum(values, 0)

    def _failed(self, reason: str) -> ValueError:
        cure = "check the model's name or folder"
        if "No module named" in reason:
            cure = _INSTALL
        return ValueError(
            f"--depth hf:{self._model}: the depth model did not run ({reason}), expected a depth "
            f"model of Hugging Face with safetensors; {cure}"
        )

    def close(self) -> None:
        """End the process and remove its files."""
        self._process.close()

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
