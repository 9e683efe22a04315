"""Masks from files: of one picture, or of each frame of a path, True where content is kept.

A mask file seldom says whether its marks are what is kept or what moves. ViPE's ``mask.zip`` and
arrays called ``keep``, ``static``, ``moving`` or ``dynamic`` do, as do the ``masks`` of a
``geometry.npz``. Of any other file non-zero is taken as kept, if that keeps at least half of all
pixels and the values are two; otherwise it is refused with both readings (``--mask-as``).

Read next: ``mirage_jax/rollout/masks.py`` (where masks hold), ``depth_files/archives.py``.
"""

import io
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool

from mirage_jax.geometry.camera_files import npz
from mirage_jax.geometry.depth_files.archives import broken_zip, in_order
from mirage_jax.geometry.depth_files.exr import MAX_BYTES
from mirage_jax.geometry.depth_files.pictures import MAX_PIXELS

MaskReading = Literal["keep", "moving"]
READINGS: tuple[MaskReading, ...] = ("keep", "moving")
EXPECTED = ".npy, .npz, a picture, a folder of pictures, or ViPE's mask.zip"
# Compression that loses detail leaves values near the two that were meant.
_LOSSY = (".jpg", ".jpeg", ".webp")
_PICTURES = (".png", ".tif", ".tiff", ".bmp", *_LOSSY)
_ARRAYS: dict[str, MaskReading | None] = {
    "keep": "keep",
    "static": "keep",
    "moving": "moving",
    "dynamic": "moving",
    "masks": None,
    "mask": None,
}
_USUAL_SHARE = 0.5


class Masks(NamedTuple):
    """What a mask file holds.

    Attributes:
      keep: [f, H, W] True where content is kept; f = 1 for a single picture.
      note: how it was read.
    """

    keep: Bool[np.ndarray, "f H W"]
    note: str


class _Marks(NamedTuple):
    """Marked pixels [f, H, W], what the file says they are, and whether its values were two."""

    marked: Bool[np.ndarray, "f H W"]
    says: MaskReading | None
    two: bool


def read_masks(path: str | os.PathLike[str], reading: MaskReading | None = None) -> Masks:
    """Read masks from a file of any format.

    Args:
      path: .npy or .npz ([H, W] or [f, H, W]), a picture, a folder of pictures in the order of the
        numbers in their names, or ViPE's mask.zip (or a folder with one).
      reading: what non-zero means; None leaves the answer to the file.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a broken or too large file, values that are no marks, an unclear meaning, or a
        mask that keeps nothing at all. The message names the file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file of masks. Expected {EXPECTED}.")
    marks = _marks_at(path)
    share = float(marks.marked.mean())
    says = reading or marks.says
    if says is None:
        if share < _USUAL_SHARE or not marks.two:
            raise ValueError(_unclear(path, share, marks.two))
        says = "keep"
    keep = marks.marked if says == "keep" else ~marks.marked
    if not keep.any():
        raise ValueError(
            f"{path}: the mask keeps no pixel at all, read as --mask-as {says}; expected True "
            "where content is static. Choose the other reading, or leave the mask out."
        )
    frames = f"{len(keep)} frames" if len(keep) > 1 else "one picture"
    return Masks(keep, f"{path}: non-zero is {says}, {keep.mean():.1%} of {frames} is kept")


def _unclear(path: Path, share: float, two: bool) -> str:
    why = f"non-zero is {share:.1%} of all pixels" if two else "it has more than two values"
    return (
        f"{path}: does not say whether non-zero is what is kept or what moves: {why}. Choose one "
        f"of\n  --mask-as keep: every value but 0 is kept, {share:.1%} of all pixels\n"
        f"  --mask-as moving: every value but 0 moves, {1 - share:.1%} of all pixels are kept"
    )


def _marks_at(path: Path) -> _Marks:
    suffix = path.suffix.lower()
    if path.is_dir():
        inner = path / "mask.zip"
        return _of_zip(inner) if inner.is_file() else _of_folder(path)
    if suffix == ".zip":
        return _of_zip(path)
    if suffix == ".npz":
        return _of_npz(path)
    if suffix == ".npy":
        return _of_array(npz.read_npy(path, npz.MAX_ARRAY_BYTES), str(path), None)
    if suffix in _PICTURES:
        return _of_pictures(path, [path.name], lambda name: path.read_bytes())
    raise ValueError(
        f"{path}: is no file of masks: got {suffix or 'no suffix'!r}, expected {EXPECTED}."
    )


def _of_npz(path: Path) -> _Marks:
    chosen = npz.choose_array(path, tuple(_ARRAYS), "the mask")
    says = _ARRAYS.get(chosen)
    if chosen == "masks" and {"depths", "intrinsics"} <= npz.array_names(path):
        says = "keep"  # a geometry.npz
    return _of_array(npz.read_npz(path, [chosen])[chosen], f"{path}: {chosen}", says)


def _of_array(array: np.ndarray, name: str, says: MaskReading | None) -> _Marks:
    if array.ndim in (3, 4) and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(
            f"{name}: masks have the wrong shape: got {array.shape}, expected [H, W] or [f, H, W]. "
            "Drop axes that are not frames, rows and columns."
        )
    if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and np.isnan(array).any()):
        raise ValueError(f"{name}: is no mask: got {array.dtype}, expected bool or numbers.")
    two = all(_two_values(frame) for frame in array)
    return _Marks(array != 0, says, two)


def _two_values(frame: np.ndarray) -> bool:
    """Whether all values are 0 or one other."""
    return frame.dtype == bool or not np.any((frame != 0) & (frame != frame.max()))


def _of_folder(path: Path) -> _Marks:
    files = [file.name for file in path.iterdir() if file.suffix.lower() in _PICTURES]
    return _of_pictures(path, in_order(files, _PICTURES), lambda name: (path / name).read_bytes())


def _of_zip(path: Path) -> _Marks:
    """Read an archive as ViPE writes it: numbers above 0 mark what moves."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = in_order((n for n in archive.namelist() if not n.endswith("/")), _PICTURES)

            def content(name: str) -> bytes:
                with archive.open(name) as stream:
                    return stream.read(MAX_BYTES)

            found = _of_pictures(path, names, content)
    except ValueError:
        raise
    except Exception as error:  # a broken archive makes zipfile raise many kinds
        raise broken_zip(path, error) from error
    return found._replace(says="moving")


def _of_pictures(path: Path, names: list[str], content: Callable[[str], bytes]) -> _Marks:
    if not names:
        raise ValueError(f"{path}: holds no pictures: expected {', '.join(_PICTURES)}.")
    frames: list[np.ndarray] = []
    two = True
    for name in names:
        values = _picture(content(name), f"{path}: {name}" if name != path.name else str(path))
        if name.lower().endswith(_LOSSY):
            values = values > 127
        two = two and _two_values(values)
        first = frames[0] if frames else values
        if values.shape != first.shape:
            raise ValueError(
                f"{path}: {name} differs: got {values.shape}, expected {first.shape} as the first. "
                "Export the masks again."
            )
        if values.size * len(names) > npz.MAX_ARRAY_BYTES:
            raise ValueError(f"{path}: {len(names)} masks of {first.shape} are too many to hold.")
        frames.append(values != 0)
    return _Marks(np.stack(frames), None, two)


def _picture(content: bytes, name: str) -> np.ndarray:
    """Return the values [H, W] of a picture: the numbers of a palette, or the brightest channel."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, which are checked below
            with Image.open(io.BytesIO(content)) as picture:
                width, height = picture.size
                if width * height <= MAX_PIXELS:
                    values = np.asarray(picture)
                    transparent = values.ndim == 3 and values.shape[-1] in (2, 4)
                    if transparent and np.ptp(values[..., -1]):
                        raise ValueError("transparent parts, which might be the mask; save 0, 255")
                    if transparent:
                        values = values[..., :-1]
                    return values if values.ndim == 2 else values.max(axis=-1)
    except Exception as error:  # a broken picture makes Pillow raise many kinds
        raise ValueError(
            f"{name}: cannot be read as a mask: got {str(error) or type(error).__name__:.200}."
        ) from error
    raise ValueError(
        f"{name}: is too large: got {height}x{width}, expected at most {MAX_PIXELS} pixels."
    )
