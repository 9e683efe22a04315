"""Bare ``.npy`` stacks of camera matrices: [f, 4, 4], [f, 3, 4], [f, 16], [f, 12], or [f, 7].

Such a file says neither which way its matrices go nor which axes they have, and has no intrinsics.
The way is asked for (``--as c2w`` or ``w2c``: published sets document one and hold the other), the
axes are taken as OpenCV unless ``--as opengl`` is given. [f, 7] is tx ty tz qx qy qz qw. What the
package writes is [f, 4, 4] camera to world.

Read next: ``formats.py``.
"""

from pathlib import Path

import numpy as np

from mirage_jax.atomic import replacing
from mirage_jax.geometry.camera_files import npz
from mirage_jax.geometry.camera_files.camera_path import CameraPath
from mirage_jax.geometry.camera_files.matrices import from_quaternions
from mirage_jax.geometry.camera_files.reading import Reading
from mirage_jax.geometry.camera_files.stored import Stored

_ROWS = {16: (4, 4), 12: (3, 4)}


def read_npy(path: Path, reading: Reading) -> Stored:
    """Read a stack of matrices."""
    array = npz.read_npy(path)
    if array.dtype.kind not in "fiu" or not array.size:
        raise ValueError(
            f"{path}: does not hold camera matrices: got dtype {array.dtype} and shape "
            f"{array.shape}, expected numbers of shape [f, 4, 4]. Check the file."
        )
    if array.ndim == 2 and array.shape[1] == 7:
        places = [f"frame {index}" for index in range(len(array))]
        values = array.astype(np.float64)
        array = from_quaternions(values[:, 3:], values[:, :3], str(path), places)
    elif array.ndim == 2 and array.shape[1] in _ROWS:
        array = array.reshape(-1, *_ROWS[array.shape[1]])
    note = () if reading.axes else ("axes taken as OpenCV (y down, z forward)",)
    return Stored(array, None, notes=note)


def write_npy(path: Path, cameras: CameraPath) -> None:
    """Write the camera-to-world matrices alone; intrinsics are lost."""
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, cameras.cam_to_world, allow_pickle=False)
