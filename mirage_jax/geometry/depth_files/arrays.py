"""Depth in ``.npy`` and ``.npz`` files: [H, W], [f, H, W], or with a trailing axis of one channel.

Of an archive the array ``depths`` or ``depth`` is taken, or its only one. Floating-point values are
scene units, z-depth where nothing else is said; whole numbers need a unit.

Read next: ``whole_numbers.py``.
"""

from pathlib import Path

import numpy as np

from mirage_jax.geometry.camera_files import npz

_NAMES = ("depths", "depth")


def read_npy_depth(path: Path) -> np.ndarray:
    """Read the array of a .npy file."""
    return npz.read_npy(path, npz.MAX_ARRAY_BYTES)


def read_npz_depth(path: Path) -> np.ndarray:
    """Read the depth of a .npz archive.

    Raises:
      ValueError: several arrays, none of them called depth.
    """
    chosen = npz.choose_array(path, _NAMES, "depth")
    return npz.read_npz(path, [chosen])[chosen]
