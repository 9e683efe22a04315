"""Paths to write and read again, and how each format is written and read without open questions."""

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from mirage_jax.geometry.camera_files import (
    FORMATS,
    CameraPath,
    Geometry,
    Reading,
    read_cameras,
    save_geometry,
    write_cameras,
)

HW = (480, 640)
FILES = {
    "trajectory": "trajectory.npz",
    "geometry": "geometry.npz",
    "realestate10k": "clip.txt",
    "w2c": "w2c.txt",
    "nerfstudio": "transforms.json",
    "colmap-text": "model_text",
    "colmap-binary": "model_binary",
    "tum": "path.tum",
    "npy": "path.npy",
    "worldscore": "camera_data.json",
    "vipe": "vipe",
}
FORMAT_NAMES = tuple(FORMATS)


def random_path(count: int = 7, seed: int = 0, distance: float = 3.0) -> CameraPath:
    """A path with turns, lengths of any size, and a lens that every format can hold."""
    rng = np.random.default_rng(seed)
    matrices = np.tile(np.eye(4), (count, 1, 1))
    matrices[:, :3, :3] = Rotation.random(count, rng=rng).as_matrix()
    matrices[:, :3, 3] = distance * rng.normal(size=(count, 3))
    lens = np.array([[513.7, 0, 320], [0, 513.7, 240], [0, 0, 1]])
    return CameraPath(
        matrices,
        np.tile(lens, (count, 1, 1)),
        HW,
        times=np.round(np.cumsum(rng.uniform(0.01, 0.2, count)), 6),
        names=tuple(f"{index:05d}" for index in range(count)),
    )


def written(folder: Path, kind: str, path: CameraPath) -> Path:
    """Write a path in a format; geometry.npz gets a depth to go with it."""
    file = folder / FILES[kind]
    if kind == "geometry":
        hw = path.hw or (4, 4)
        depths = np.ones((len(path), *hw), np.float32)
        save_geometry(file, Geometry(depths, path.camera()))
    else:
        assert write_cameras(file, path, kind) == kind
    return file


def read_again(file: Path, kind: str, like: CameraPath) -> CameraPath:
    """Read a file, the format told by its content, with answers only where the format has none."""
    reading = Reading(
        matrices="c2w" if kind == "npy" else None,
        hw=like.hw if kind in ("tum", "npy", "vipe", "realestate10k", "w2c") else None,
        intrinsics=like.intrinsics[0] if kind in ("tum", "npy") else None,
    )
    return read_cameras(file, reading)


def rotation_error(found: CameraPath, expected: CameraPath) -> float:
    """Largest angle between corresponding cameras, radians."""
    first, second = (
        Rotation.from_matrix(path.cam_to_world[:, :3, :3]) for path in (found, expected)
    )
    return float((first * second.inv()).magnitude().max())


def position_error(found: CameraPath, expected: CameraPath) -> float:
    """Largest distance between corresponding cameras, relative to the farthest."""
    size = np.linalg.norm(expected.centers, axis=-1).max()
    return float(np.linalg.norm(found.centers - expected.centers, axis=-1).max() / max(size, 1e-12))
