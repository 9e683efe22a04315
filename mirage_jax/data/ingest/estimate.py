"""Videos without cameras: ViPE estimates cameras and depth, in its own process, once a video.

ViPE (``pip install nvidia-vipe``, needs an NVIDIA GPU) is no dependency: whatever is called
``vipe`` on PATH is run as ``vipe infer VIDEO -o FOLDER``. A video's folder appears under its final
name when it is whole, so a stopped run goes on with the videos that are missing.

Read next: ``layouts/camera_and_pictures.py`` (how its folders are read), ``prepare.py``.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mirage_jax.data.ingest.layouts import holds_recordings
from mirage_jax.data.ingest.media import VIDEOS, VideoFrames, natural_key
from mirage_jax.data.ingest.plan import refusal

_TOOL = "vipe"
_SHOWN = 600  # characters of what a failed tool said last


def videos_without_cameras(source: Path, kind: str | None) -> list[Path]:
    """Return the videos whose geometry must be estimated: a file, or those of a folder.

    A folder with recordings of any kind is read as such: there are none then.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: a file that is no video.
    """
    if source.is_dir():
        if kind is not None or holds_recordings(source):
            return []
        found = (file for file in source.rglob("*") if file.suffix.lower() in VIDEOS)
        return sorted(found, key=lambda file: natural_key(str(file)))
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file or folder. Check the path.")
    if source.suffix.lower() not in VIDEOS:
        raise ValueError(
            f"{source}: is no video: got {source.suffix or 'no ending'}, expected "
            f"{', '.join(VIDEOS)}, or a folder of recordings."
        )
    return [source]


def estimate_geometry(
    videos: Sequence[Path], root: Path, work: Path, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Run ViPE on videos; each gets a folder below `work`, named by its path below `root`.

    Returns:
        Entries of quarantine.jsonl for videos that failed.

    Raises:
        ValueError: ViPE is not installed; or the only video failed.
    """
    tool = shutil.which(_TOOL)
    waiting = [video for video in videos if not _folder_of(video, root, work).is_dir()]
    if waiting and tool is None:
        raise ValueError(_what_is_missing(waiting))
    failed = []
    for number, video in enumerate(waiting, 1):
        say(f"cameras and depth of {video.name} ({number} of {len(waiting)}) with {tool}")
        try:
            _estimate(str(tool), video, _folder_of(video, root, work))
        except (ValueError, FileNotFoundError) as error:
            if len(videos) == 1:
                raise
            name = _folder_of(video, root, work).relative_to(work).as_posix()
            failed.append(refusal(name, None, "unreadable", str(error)))
    return failed


def _estimate(tool: str, video: Path, folder: Path) -> None:
    VideoFrames(video)  # names a damaged file before an hour is spent on it
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    done = subprocess.run(
        [tool, "infer", str(video.resolve()), "-o", str(partial.resolve())],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-_SHOWN:]
        raise ValueError(
            f"{video}: {_TOOL} failed with exit code {done.returncode}: {said or 'nothing said'}"
        )
    for name in ("pose", "intrinsics", "depth"):
        if not any((partial / name).glob(f"{video.stem}*")):
            raise ValueError(
                f"{video}: {_TOOL} ended well and wrote no {name}/{video.stem}, expected cameras, "
                f"intrinsics and depth below {partial}. Is it ViPE 1.0 or later?"
            )
    if not any((partial / "rgb").glob(f"{video.stem}*")):
        os.symlink(video.resolve(), partial / video.name)
    os.replace(partial, folder)


def _folder_of(video: Path, root: Path, work: Path) -> Path:
    below = video.relative_to(root) if root.is_dir() else Path(video.name)
    return work / below.with_suffix("")


def _what_is_missing(videos: Sequence[Path]) -> str:
    return (
        f"{videos[0]}: has no cameras and no depth, and {_TOOL}, which estimates both, is not on "
        f"PATH ({len(videos)} videos wait). Missing steps, either\n"
        f"  1. pip install nvidia-vipe (an NVIDIA GPU with CUDA), and give this command again;\n"
        f"or, with tools of your own,\n"
        f"  1. cameras of every frame, e.g. COLMAP and nerfstudio: transforms.json with images/;\n"
        f"  2. z-depth of every frame in the units of the cameras: depth/00000.png in "
        f"millimetres, or depth.npz;\n"
        f"  3. mirage prepare FOLDER."
    )
