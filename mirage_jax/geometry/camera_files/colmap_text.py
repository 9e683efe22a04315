"""COLMAP models as text: ``cameras.txt`` and ``images.txt``; ``points3D.txt`` may be missing.

``images.txt`` has two lines an image, of which the second (the image's points) may be empty.

Read next: ``colmap_models.py``.
"""

from collections.abc import Iterator
from pathlib import Path

from mirage_jax.atomic import write_text
from mirage_jax.geometry.camera_files.camera_path import CameraPath
from mirage_jax.geometry.camera_files.colmap_models import (
    Image,
    Lens,
    lens_of,
    model_of,
    stored_model,
)
from mirage_jax.geometry.camera_files.reading import Reading
from mirage_jax.geometry.camera_files.stored import Stored
from mirage_jax.geometry.camera_files.text_lines import (
    are_numbers,
    check_count,
    numbered_lines,
    numbers,
)

# An image's points stand on one line of any length; its beginning tells that they are numbers.
_LOOKED_AT = 400


def read_colmap_text(path: Path, reading: Reading) -> Stored:
    """Read the model in the folder `path`, or beside the file `path`."""
    folder = path if path.is_dir() else path.parent
    cameras = folder / "cameras.txt"
    lenses = _lenses(cameras) if cameras.is_file() else None
    return stored_model(lenses, list(_images(folder / "images.txt")), str(folder))


def write_colmap_text(path: Path, cameras: CameraPath) -> None:
    """Write a model without points into the folder `path`."""
    lenses, images = model_of(cameras, str(path))
    rows = ["# CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]"]
    for number, (hw, values) in enumerate(lenses, start=1):
        rows.append(f"{number} PINHOLE {hw[1]} {hw[0]} {_joined(values)}")
    write_text(path / "cameras.txt", "\n".join(rows) + "\n")
    rows = ["# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then POINTS2D[] (X Y POINT3D_ID)"]
    for number, image in enumerate(images, start=1):
        numbers_ = _joined((*image.rotation, *image.translation))
        rows += [f"{number} {numbers_} {image.lens} {image.name}", ""]
    write_text(path / "images.txt", "\n".join(rows) + "\n")
    write_text(path / "points3D.txt", "# POINT3D_ID X Y Z R G B ERROR TRACK[]\n")


def points_text(path: Path) -> Iterator[list[float]]:
    """Yield x y z r g b (colours 0..255) of each point of points3D.txt."""
    for number, line in numbered_lines(path):
        if line and not line.startswith("#"):
            words, where = line.split(maxsplit=8), f"{path}: line {number}"
            if len(words) < 8:
                raise ValueError(f"{where} is not a point: expected ID X Y Z R G B ERROR TRACK[].")
            yield numbers(words[1:7], where)


def _joined(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.17g}" for value in values)


def _whole(word: str, where: str, what: str) -> int:
    """Parse a whole number of bounded length."""
    if not (word.isdecimal() and len(word) < 20):
        raise ValueError(f"{where}: {what} is not a whole number: got {word[:40]!r}.")
    return int(word)


def _lenses(path: Path) -> dict[int, Lens]:
    lenses = {}
    for number, line in numbered_lines(path):
        words, where = line.split(), f"{path}: line {number}"
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 5:
            raise ValueError(
                f"{where} is not a camera: got {len(words)} values, expected CAMERA_ID MODEL WIDTH "
                "HEIGHT PARAMS[]. The file may be cut off."
            )
        hw = (_whole(words[3], where, "HEIGHT"), _whole(words[2], where, "WIDTH"))
        lens = lens_of(words[1], hw, numbers(words[4:], where), where)
        lenses[_whole(words[0], where, "CAMERA_ID")] = lens
        check_count(len(lenses), str(path))
    return lenses


def _images(path: Path) -> Iterator[Image]:
    """Yield the images of images.txt; their points are passed over."""
    points_next, count = False, 0
    for number, line in numbered_lines(path):
        words = line.split(maxsplit=9)
        if line.startswith("#") or (not words and not points_next):
            continue
        if points_next:
            points_next = False
            # Some tools leave out the second line; a name is what points never hold.
            if not words or are_numbers(line[:_LOOKED_AT].split()[:-1]):
                continue
        where = f"{path}: line {number}"
        if len(words) != 10:
            raise ValueError(
                f"{where} is not an image: got {len(words)} values, expected IMAGE_ID QW QX QY QZ "
                "TX TY TZ CAMERA_ID NAME. The file may be cut off."
            )
        values = tuple(numbers(words[1:8], where))
        lens = _whole(words[8], where, "CAMERA_ID")
        yield Image(values[:4], values[4:], lens, words[9], f"line {number}")
        points_next, count = True, count + 1
        check_count(count, str(path))
