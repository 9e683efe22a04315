"""Makes tiny random models of Transformers, for tests of what runs them in a process of its own.

Runs where this Python, or the one that MIRAGE_TORCH_PYTHON names, has torch and transformers.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


def made_models(script: str, frames: np.ndarray, folder: Path) -> Path:
    """Return `folder` with models, what they are expected to say of `frames`, and `frames.npy`.

    `script`, of this folder, makes them; without its libraries the test is skipped.
    """
    python = os.environ.get("MIRAGE_TORCH_PYTHON") or sys.executable
    have = subprocess.run([python, "-c", "import torch, transformers"], capture_output=True)
    if have.returncode:
        pytest.skip("needs torch and transformers; make parity, or set MIRAGE_TORCH_PYTHON")
    np.save(folder / "frames.npy", frames)
    whole = Path(__file__).with_name(script)
    subprocess.run([python, str(whole), str(folder), str(folder / "frames.npy")], check=True)
    return folder
