"""The layouts of folders people have, how one is told, and how all recordings below one are found.

==================  ============================================================================
kind                what tells it
==================  ============================================================================
``geometry``        ``geometry.npz``; frames inside, in ``clip.mp4``, or in ``frames/``
``tum``             ``rgb.txt`` and ``groundtruth.txt`` (and ``depth.txt``)
``7scenes``         ``frame-000000.pose.txt`` and so on
``scannet``         ``color/``, ``depth/``, ``pose/`` and ``intrinsic/``
``nerfstudio``      ``transforms.json`` (DL3DV too)
``vipe``            ``pose.npz``, or ``pose/<clip>.npz``
``realestate10k``   ``<id>.txt`` with 19 numbers a line
==================  ============================================================================

A folder that looks like two is refused with both. Read next: the module of a layout.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from mirage_jax.data.ingest.layouts import camera_and_pictures as pictured
from mirage_jax.data.ingest.layouts import posed_rgbd
from mirage_jax.data.ingest.media import VIDEOS, natural_key
from mirage_jax.data.ingest.recording import IngestOptions, Recording

_MAX_LEVELS = 6


class Found(NamedTuple):
    """A recording that was found and not yet read: its layout, file or folder, and name."""

    kind: str
    path: Path
    name: str


READERS: dict[str, Callable[[Path, IngestOptions], Recording]] = {
    "geometry": pictured.read_geometry_folder,
    "tum": posed_rgbd.read_tum_folder,
    "7scenes": posed_rgbd.read_seven_scenes,
    "scannet": posed_rgbd.read_scannet,
    "nerfstudio": pictured.read_nerfstudio_folder,
    "vipe": pictured.read_vipe_folder,
    "realestate10k": pictured.read_realestate_file,
}


def find_recordings(root: Path, kind: str | None = None) -> list[Found]:
    """Find all recordings in a folder and below it, in natural order.

    Args:
        root: a recording, or a folder of folders of them.
        kind: a key of ``READERS``; None to tell by the content.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: nothing known is there, or a folder has two readings.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder. Check the path.")
    found = list(_below(root, root, kind, 0))
    if found:
        return found
    videos = any(file.suffix.lower() in VIDEOS for file in root.rglob("*"))
    lacking = "videos without cameras" if videos else "nothing of the kind"
    raise ValueError(
        f"{root}: holds no recording{f' of the kind {kind}' if kind else ''}: got {lacking}, "
        f"expected one of {', '.join(READERS)}. `mirage prepare --help` lists what tells each."
    )


def holds_recordings(root: Path) -> bool:
    """Whether there is any recording in a folder or below it."""
    return next(_below(root, root, None, 0), None) is not None


def kinds_of(folder: Path) -> dict[str, list[Path]]:
    """Return every layout that a folder looks like, with the files or folders to read."""
    names = set(os.listdir(folder))
    has = names.__contains__
    found: dict[str, list[Path]] = {}
    if has("geometry.npz"):
        found["geometry"] = [folder / "geometry.npz"]
    if has("rgb.txt") and has("groundtruth.txt"):
        found["tum"] = [folder]
    if any(n.startswith("frame-") and n.endswith(".pose.txt") for n in names):
        found["7scenes"] = [folder]
    if {"color", "pose", "intrinsic"} <= names:
        found["scannet"] = [folder]
    if has("transforms.json"):
        found["nerfstudio"] = [folder / "transforms.json"]
    if has("pose.npz"):
        found["vipe"] = [folder / "pose.npz"]
    elif has("pose") and (clips := sorted((folder / "pose").glob("*.npz"))):
        found["vipe"] = clips
    texts = [folder / n for n in names if n.endswith(".txt") and _is_realestate(folder / n)]
    if texts:
        found["realestate10k"] = sorted(texts)
    return found


def read_recording(found: Found, options: IngestOptions) -> Recording:
    """Read what was found."""
    recording = READERS[found.kind](found.path, options)
    # Scans of one room are one scene; elsewhere each recording is its own.
    scene = recording.scene if found.kind in ("7scenes", "scannet") else found.name
    return dataclasses.replace(recording, name=found.name, scene=scene)


def _below(folder: Path, root: Path, kind: str | None, level: int) -> Iterator[Found]:
    kinds = kinds_of(folder)
    if kind is not None:
        kinds = {kind: kinds[kind]} if kind in kinds else {}
    if len(kinds) > 1:
        lines = [f"  --kind {name}: {paths[0]}" for name, paths in kinds.items()]
        raise ValueError(
            f"{folder}: could be read as {len(kinds)} kinds of recording. Choose one of\n"
            + "\n".join(lines)
        )
    for name, paths in kinds.items():
        for path in paths:
            yield Found(name, path, _name(path, folder, root, len(paths)))
    if kinds or level >= _MAX_LEVELS:
        return
    inner = [f for f in folder.iterdir() if f.is_dir() and not f.name.startswith(".")]
    for one in sorted(inner, key=lambda f: natural_key(f.name)):
        yield from _below(one, root, kind, level + 1)


def _name(path: Path, folder: Path, root: Path, count: int) -> str:
    below = folder.relative_to(root).as_posix()
    own = folder.resolve().name if below == "." else below
    several = count > 1 or path.suffix == ".txt" or path.parent != folder and path != folder
    return f"{'' if below == '.' else own + '/'}{path.stem}" if several else own


def _is_realestate(path: Path) -> bool:
    """Whether the second or first line has RealEstate10K's 19 numbers; reads its beginning."""
    try:
        with path.open("rb") as stream:
            lines = stream.read(4096).decode("ascii", "replace").splitlines()[:2]
    except OSError:
        return False
    return any(len(line.split()) == 19 and line.split()[0].isdecimal() for line in lines)
