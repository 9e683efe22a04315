"""``trajectory.npz``: cameras alone as arrays; what the package itself writes.

``w2c`` [f, 4, 4] (OpenCV, world to camera), ``intrinsics`` [f, 3, 3] or [3, 3] in pixels,
``image_height`` and ``image_width``; written beside them where known, and ignored by others:
``times`` [f] in seconds and ``names`` [f].

Read next: ``formats.py``.
"""

from pathlib import Path

import numpy as np

from mirage_jax.geometry.camera_files.camera_path import UNIT_HW, CameraPath
from mirage_jax.geometry.camera_files.matrices import inverse_of_path
from mirage_jax.geometry.camera_files.npz import MAX_CAMERA_BYTES, read_npz, write_npz
from mirage_jax.geometry.camera_files.reading import Reading
from mirage_jax.geometry.camera_files.stored import Stored

_REQUIRED = ("w2c", "intrinsics", "image_height", "image_width")


def read_trajectory(path: Path, reading: Reading) -> Stored:
    """Read a trajectory.npz."""
    arrays = read_npz(path, _REQUIRED, ("times", "names"), MAX_CAMERA_BYTES)
    sizes = [arrays[name] for name in ("image_height", "image_width")]
    if not all(s.size == 1 and s.dtype.kind in "fiu" and 1 <= s.item() <= 1e6 for s in sizes):
        raise ValueError(
            f"{path}: image_height and image_width are not sizes: got "
            f"{[size.tolist() for size in sizes]}, expected one positive integer each."
        )
    hw = (int(sizes[0].item()), int(sizes[1].item()))
    times, names = arrays.get("times"), arrays.get("names")
    count = len(arrays["w2c"]) if arrays["w2c"].ndim == 3 else 1
    for kinds, name, array in (("fiu", "times", times), ("U", "names", names)):
        if array is not None and (array.shape != (count,) or array.dtype.kind not in kinds):
            raise ValueError(
                f"{path}: {name} has the wrong shape: got {array.dtype} {array.shape}, expected "
                f"one for each of {count} cameras. Leave the array out."
            )
    return Stored(
        arrays["w2c"],
        "w2c",
        intrinsics=arrays["intrinsics"],
        unit="normalized" if hw == UNIT_HW else "pixels",
        hw=hw,
        times=times,
        names=None if names is None else names.tolist(),
    )


def write_trajectory(path: Path, cameras: CameraPath) -> None:
    """Write a trajectory.npz, in double precision."""
    height, width = cameras.hw or UNIT_HW
    write_npz(
        path,
        {
            "w2c": inverse_of_path(cameras.cam_to_world),
            "intrinsics": cameras.intrinsics,
            "image_height": height,
            "image_width": width,
            "times": cameras.times,
            "names": None if cameras.names is None else np.array(cameras.names, dtype=str),
        },
    )
