"""The table of camera formats, and how a file is told to be of one.

====================  ================================================  =========  ====  ==========
format                content                                           unit       size  times names
====================  ================================================  =========  ====  ==========
``trajectory``        ``trajectory.npz``: w2c and intrinsics            pixels     yes   both
``geometry``          ``geometry.npz``: depths, cameras, maybe frames   pixels     yes   none
``realestate10k``     ``<id>.txt``: 19 numbers a line                   of 1 x 1   no    times
``w2c``               ``w2c.txt`` and ``intrinsics.txt``                of 1 x 1   no    none
``nerfstudio``        ``transforms.json``, OpenGL axes                  pixels     yes   both
``colmap-text``       folder with ``images.txt``, ``cameras.txt``       pixels     yes   names
``colmap-binary``     folder with ``images.bin``, ``cameras.bin``       pixels     yes   names
``tum``               8 numbers a line                                  none       no    times
``npy``               matrices                                          none       no    none
``worldscore``        ``camera_data.json``, OpenGL axes                 pixels     yes   none
``vipe``              folder with ``pose.npz``, ``intrinsics.npz``      pixels     no    names
====================  ================================================  =========  ====  ==========

Files are told apart by what they hold wherever that decides it. Read next: the module of a format.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from mirage_jax.geometry.camera_files import (
    colmap_binary,
    colmap_text,
    geometry,
    nerfstudio,
    npy,
    realestate,
    trajectory,
    tum,
    vipe,
    w2c_text,
    worldscore,
)
from mirage_jax.geometry.camera_files.camera_path import CameraPath
from mirage_jax.geometry.camera_files.npz import array_names
from mirage_jax.geometry.camera_files.reading import Reading
from mirage_jax.geometry.camera_files.stored import Stored
from mirage_jax.geometry.camera_files.text_lines import are_numbers, numbered_lines, read_json


@dataclasses.dataclass(frozen=True)
class Format:
    """A row of the table.

    Attributes:
      read: what stands in a file of it.
      write: None where cameras alone do not make such a file.
      needs: what a path must have to be written: "intrinsics", "size" (1 x 1 will do), "pixels".
      folder: True if it is written to a folder.
    """

    read: Callable[[Path, Reading], Stored]
    write: Callable[[Path, CameraPath], None] | None
    needs: tuple[str, ...] = ("intrinsics",)
    folder: bool = False


_SIZED = ("intrinsics", "size")
_IN_PIXELS = ("intrinsics", "size", "pixels")
FORMATS = {
    "trajectory": Format(trajectory.read_trajectory, trajectory.write_trajectory, _SIZED),
    "geometry": Format(geometry.read_geometry_cameras, None),
    "realestate10k": Format(realestate.read_realestate, realestate.write_realestate, _SIZED),
    "w2c": Format(w2c_text.read_w2c, w2c_text.write_w2c, _SIZED),
    "nerfstudio": Format(nerfstudio.read_transforms, nerfstudio.write_transforms, _IN_PIXELS),
    "colmap-text": Format(
        colmap_text.read_colmap_text, colmap_text.write_colmap_text, _IN_PIXELS, folder=True
    ),
    "colmap-binary": Format(
        colmap_binary.read_colmap_binary, colmap_binary.write_colmap_binary, _IN_PIXELS, folder=True
    ),
    "tum": Format(tum.read_tum, tum.write_tum, ()),
    "npy": Format(npy.read_npy, npy.write_npy, ()),
    "worldscore": Format(worldscore.read_worldscore, worldscore.write_worldscore, _IN_PIXELS),
    "vipe": Format(vipe.read_vipe, vipe.write_vipe, ("intrinsics", "pixels"), folder=True),
}

_COLMAP_FOLDERS = ("", "sparse", "sparse/0", "colmap/sparse/0")
# In a folder: file -> format.
_KNOWN_NAMES = {
    "transforms.json": "nerfstudio",
    "trajectory.npz": "trajectory",
    "geometry.npz": "geometry",
    "camera_data.json": "worldscore",
    "w2c.txt": "w2c",
}
_COLMAP_STEMS = ("cameras", "images", "points3D")
# Headings and comments are shorter.
_SNIFFED_LINES = 40


def detect(path: Path) -> tuple[str, Path]:
    """Return the format of a file or folder, and the file or folder to read.

    Raises:
      FileNotFoundError: nothing there.
      ValueError: no known format, or a folder that holds several.
    """
    if path.is_dir():
        return _detect_folder(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. Check the path.")
    kind = path.suffix.lower()
    if path.stem in _COLMAP_STEMS and kind in (".txt", ".bin"):
        return ("colmap-text" if kind == ".txt" else "colmap-binary"), path
    if kind == ".npy":
        return "npy", path
    if kind == ".npz":
        return _detect_archive(path), path
    if kind == ".json":
        return _detect_json(path), path
    if kind in (".txt", ".tum", ""):
        return _detect_text(path), path
    raise _unknown(path, f"the ending {path.suffix!r}")


def format_to_write(path: Path) -> str:
    """Return the format that a name asks for.

    Raises:
      ValueError: the name does not decide it.
    """
    kind = path.suffix.lower()
    if path.name in _KNOWN_NAMES and path.name != "geometry.npz":
        return _KNOWN_NAMES[path.name]
    if kind == ".txt":
        return "w2c" if path.stem.startswith("w2c") else "realestate10k"
    chosen = {".npz": "trajectory", ".json": "nerfstudio", ".npy": "npy", ".tum": "tum"}.get(kind)
    if chosen is None:
        raise _unknown(path, f"the ending {path.suffix!r}; --to names a format")
    return chosen


def _detect_folder(path: Path) -> tuple[str, Path]:
    found = [(kind, path / name) for name, kind in _KNOWN_NAMES.items() if (path / name).is_file()]
    for place in _COLMAP_FOLDERS:
        for ending, kind in ((".txt", "colmap-text"), (".bin", "colmap-binary")):
            if (path / place / f"images{ending}").is_file():
                found.append((kind, path / place / f"images{ending}"))
    if (archive := vipe.find_vipe(path)) is not None:
        found.append(("vipe", archive))
    if len(found) == 1:
        return found[0]
    if not found:
        raise _unknown(path, "a folder without any of their files")
    shown = "\n".join(f"  {file}  ({kind})" for kind, file in found)
    raise ValueError(f"{path}: holds cameras in several files. Name one of\n{shown}")


def _detect_archive(path: Path) -> str:
    names = array_names(path)
    if "poses_c2w" in names:
        return "geometry"
    if {"inds", "data"} <= names:
        return "vipe"
    return "trajectory"  # whose reader says what is missing


def _detect_json(path: Path) -> str:
    content = read_json(path)
    keys = content if isinstance(content, dict) else {}
    return "worldscore" if "cameras_interp" in keys or "cameras" in keys else "nerfstudio"


def _detect_text(path: Path) -> str:
    """Tell text formats apart by the number of values on their lines."""
    first: list[str] = []
    for number, line in numbered_lines(path):
        if number > _SNIFFED_LINES:
            break
        if line.startswith("["):
            return "w2c"
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        if are_numbers(words):
            first = words
            break
        if number == 1:
            first = words
    if len(first) == tum.COLUMNS and are_numbers(first):
        return "tum"
    if path.stem.startswith("w2c"):
        return "w2c"
    if len(first) == 10 and path.suffix == ".txt" and path.stem.startswith("images"):
        return "colmap-text"
    if len(first) == 12 and are_numbers(first):
        raise _unknown(path, "12 numbers a line, a 3x4 matrix without direction (KITTI's?)")
    return "realestate10k"  # whose reader names the line that is wrong


def _unknown(path: Path, found: str) -> ValueError:
    """Build the error for what belongs to no format."""
    return ValueError(
        f"{path}: unknown camera format: got {found}, expected one of {', '.join(FORMATS)}. "
        "Rename the file, or convert it."
    )
