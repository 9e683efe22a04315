"""RAFT's flow with a user's weights, by torchvision in a process of its own.

Values bear the name of RAFT only where the file is one of torchvision's own; with other weights of
the same network they are called `net`, so that no number ever has a name that it does not deserve.
Pictures are enlarged 4x as for DIS, and to at least 128 pixels, which the network needs; flow is in
pixels of the original frame, the mean over the enlarged pixels of each.

The process runs on CUDA where its PyTorch sees it. On CPUs a pair takes seconds: take few scenes.
Read next: `dis_flow.py`; `mirage_jax/rollout/torch_process.py` for the process.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from mirage_jax.rollout.torch_process import TorchProcess

_SCRIPT = Path(__file__).with_name("raft_forward.py")
_ENLARGE, _MULTIPLE, _LEAST = 4, 8, 128


class Raft:
    """RAFT in a process of its own.

    Attributes:
        name: end of its values' names: `raft_large` or `raft_small` with torchvision's weights,
            `net` with others.
        path: of the weights.
        checksum: of the weights.
    """

    def __init__(self, path: str | Path) -> None:
        """Start the process and wait until the weights are loaded.

        Raises:
            ValueError: there is no file, no torchvision, or the weights are of something else.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(
                f"--raft: got {path}, which is no file, expected weights of torchvision's RAFT, "
                "such as raft_large_C_T_SKHT_V2-ff5fadd5.pth"
            )
        self._process = TorchProcess(_SCRIPT, (str(self.path.resolve()),), self._failed)
        told = self._process.told
        self.name: str = told["net"] if told["true"] else "net"
        self.checksum: str = f"{told['net']}-{told['sha256'][:16]}"

    def __call__(
        self, a: UInt8[np.ndarray, "n H W 3"], b: UInt8[np.ndarray, "n H W 3"]
    ) -> Float[np.ndarray, "n H W 2"]:
        """Return how far content of each `a` lies to the right and down in `b`, in pixels."""
        height, width = a.shape[1:3]
        factor = max(_ENLARGE, -(-_LEAST // min(height, width)))
        while height * factor % _MULTIPLE or width * factor % _MULTIPLE:
            factor += 1
        size = (width * factor, height * factor)
        large = np.stack(
            [
                [
                    cv2.resize(np.ascontiguousarray(frame), size, interpolation=cv2.INTER_CUBIC)
                    for frame in frames
                ]
                for frames in (a, b)
            ]
        )
        flow = self._process.ask(large)
        if flow.shape != (*large.shape[1:4], 2) or not np.isfinite(flow).all():
            raise ValueError(
                f"--raft {self.path}: got flow of shape {flow.shape}, "
                f"{int((~np.isfinite(flow)).sum())} values not finite, expected finite "
                f"{(*large.shape[1:4], 2)}; check the weights"
            )
        blocks = flow.reshape(len(flow), height, factor, width, factor, 2)
        return blocks.mean(axis=(2, 4)) / factor

    def close(self) -> None:
        """End the process."""
        self._process.close()

    def _failed(self, reason: str) -> ValueError:
        cure = "give a .pth file of torchvision.models.optical_flow"
        if "No module named" in reason:
            cure = "pip install torchvision, or name a Python that has it: MIRAGE_TORCH_PYTHON"
        return ValueError(
            f"--raft {self.path}: the network did not run ({reason}), expected weights of "
            f"torchvision's RAFT; {cure}"
        )
