"""A scene from one photograph: its depth, its camera, its size.

The camera comes from the user, from the picture's EXIF data, or from an assumed field of view,
which is said. Depth of another size than the picture is brought to it without making points between
surfaces.
Sizes are checked on headers before memory is taken; turned pictures are set upright as EXIF says.
Conventions: as in `scene.py`.
Read next: `mirage_jax/rollout/depth_sources.py`, `mirage_jax/rollout/scene.py`.
"""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.depth import edge_validity, resize_surface
from mirage_jax.geometry.depth_files import DepthMaps, depth_from_range, z_depth

MAX_PIXELS = 128 << 20
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
# Degrees along the longer side: the main cameras of phones have 65 to 70.
ASSUMED_FOV = 65.0
# EXIF: focal length on 35 mm film (whose diagonal is 43.27 mm), and the size it was taken at.
_EXIF, _FOCAL_35, _WIDTH, _HEIGHT = 0x8769, 0xA405, 0xA002, 0xA003
_FILM_DIAGONAL = float(np.hypot(36, 24))
_SAME_ASPECT = 0.01


class Photo(NamedTuple):
    """A picture and what it says of its lens.

    Attributes:
        image: upright.
        focal: in pixels, from EXIF, or None.
        note: why EXIF was not believed, or an empty text.
    """

    image: UInt8[np.ndarray, "H W 3"]
    focal: float | None
    note: str


@dataclasses.dataclass(frozen=True)
class Lens:
    """What the user says of the camera; where nothing is said, EXIF is asked.

    Attributes:
        intrinsics: fx, fy, cx, cy in pixels of the picture.
        fov: horizontal field of view in degrees.
        assume: take `ASSUMED_FOV` where nothing tells, instead of refusing.
    """

    intrinsics: tuple[float, ...] | None = None
    fov: float | None = None
    assume: bool = False


def read_photo(path: Path) -> Photo:
    """Read a photograph.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be decoded, or is too large.
    """
    from PIL import Image, ImageOps

    if not path.is_file():
        raise FileNotFoundError(f"image: got {path}, expected a picture; check the path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, which are checked below
            with Image.open(path) as picture:
                width, height = picture.size
                if width * height <= MAX_PIXELS:
                    focal, note = _focal(picture)
                    upright = ImageOps.exif_transpose(picture).convert("RGB")
                    return Photo(np.asarray(upright), focal, note)
    except Exception as error:  # a broken picture makes Pillow raise many kinds
        raise ValueError(
            f"image: got {path} ({str(error) or type(error).__name__:.200}), expected a readable "
            "picture; the file may be truncated, save it again"
        ) from error
    raise ValueError(
        f"image: got {path} of {height}x{width}, expected at most {MAX_PIXELS} pixels; make it "
        "smaller"
    )


def _focal(picture: Any) -> tuple[float | None, str]:
    """Return the focal length in pixels that EXIF tells, and what is wrong with it."""
    tags = picture.getexif().get_ifd(_EXIF)
    film = _number(tags.get(_FOCAL_35))
    if film is None:
        return None, ""
    taken = _number(tags.get(_WIDTH)), _number(tags.get(_HEIGHT))
    width, height = picture.size
    if taken[0] is not None and taken[1] is not None:
        if abs(np.log(taken[0] / taken[1] / (width / height))) > 2 * _SAME_ASPECT:
            return None, (
                f"EXIF has a focal length for {taken[1]:.0f}x{taken[0]:.0f} pixels, but the "
                "picture was cropped since"
            )
    return film / _FILM_DIAGONAL * float(np.hypot(width, height)), ""


def _number(value: Any) -> float | None:
    """Return a positive finite number, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if 0 < number < 1e6 else None


def photo_camera(photo: Photo, lens: Lens) -> tuple[Camera, str]:
    """Return the camera at the origin and a line that says where its intrinsics are from.

    Raises:
        ValueError: both intrinsics and a field of view, or impossible values.
    """
    height, width = photo.image.shape[:2]
    if lens.intrinsics is not None and lens.fov is not None:
        raise ValueError("--intrinsics/--fov: got both, expected one of them; drop one")
    if lens.intrinsics is not None:
        fx, fy, cx, cy = lens.intrinsics
        note = "intrinsics as given"
    else:
        focal, note = _focal_of(photo, lens)
        fx, fy, cx, cy = focal, focal, width / 2, height / 2
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float32)
    return Camera(np.eye(4, dtype=np.float32), matrix), note


def _focal_of(photo: Photo, lens: Lens) -> tuple[float, str]:
    fov, (height, width) = lens.fov, photo.image.shape[:2]
    if fov is not None:
        if not 1.0 <= fov <= 170.0:
            raise ValueError(
                f"--fov: got {fov}, expected degrees between 1 and 170; a phone has about 65"
            )
        return 0.5 * width / np.tan(np.radians(fov) / 2), f"field of view {fov:g} as given"
    if photo.focal is not None:
        angle = 2 * np.degrees(np.arctan(0.5 * width / photo.focal))
        return photo.focal, f"field of view {angle:.1f} from EXIF"
    why = photo.note or "no --fov, no --intrinsics and no EXIF"
    if not lens.assume:
        raise ValueError(
            f"--intrinsics/--fov: got neither ({photo.note or 'and no EXIF'}), expected one of "
            "them; give fx,fy,cx,cy in pixels, or the horizontal field of view in degrees"
        )
    focal = 0.5 * max(width, height) / np.tan(np.radians(ASSUMED_FOV) / 2)
    return focal, (
        f"{why}: the field of view is assumed to be {ASSUMED_FOV:g} degrees along the longer side"
    )


def photo_depth(
    maps: DepthMaps, camera: Camera, hw: tuple[int, int], near_far: tuple[float, float] | None
) -> Float[np.ndarray, "H W"]:
    """Return z-depth of a photograph from one depth map, at the photograph's size.

    Args:
        maps: one map, of any size with the photograph's aspect.
        camera: of the photograph.
        hw: its size.
        near_far: for disparity: nearest and farthest distance.

    Raises:
        ValueError: several maps, another aspect, or disparity without distances.
    """
    values = maps.values
    if len(values) != 1:
        raise ValueError(
            f"{maps.name}: got {len(values)} pictures of depth, expected one for one photograph"
        )
    size = values.shape[1:]
    if abs(np.log(size[1] / size[0] / (hw[1] / hw[0]))) > _SAME_ASPECT:
        raise ValueError(
            f"{maps.name}: got depth of {size[0]}x{size[1]}, expected the aspect of the picture, "
            f"{hw[0]}x{hw[1]}; do not crop or pad before estimating depth, or set the picture "
            "upright"
        )
    if near_far is not None:
        if maps.kind != "disparity":
            raise ValueError(f"--near-far: {maps.name} holds depth, expected disparity; drop it")
        depth = depth_from_range(values[0], *near_far)
    else:
        scale = np.array([size[1] / hw[1], size[0] / hw[0], 1.0])
        matrix = np.asarray(camera.intrinsics) * scale[:, None]
        depth = z_depth(maps, Camera(np.eye(4), matrix))[0]
    return depth if size == hw else resize_surface(depth, hw).astype(np.float32)


def edge_mask(depth: Float[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Return True where depth is continuous; unknown pixels and their neighbours are False."""
    return np.asarray(edge_validity(depth))
