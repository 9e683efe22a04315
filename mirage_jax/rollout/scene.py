"""A scene: what a rollout starts from.

A picture with its depth, its camera and a mask of what may be remembered.

Scenes come from a `geometry.npz` (one file with everything) or from a picture, a depth array and
intrinsics. Everything is checked here, before any computation: a message names the argument, what
was got, what was expected and the cure.
Conventions: uint8 RGB, z-depth in scene units with 0 = unknown, OpenCV camera in pixels, mask True
= keep.
Read next: `mirage_jax/rollout/loop.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from mirage_jax.geometry import camera as camera_lib
from mirage_jax.geometry import camera_files
from mirage_jax.geometry import depth as depth_lib
from mirage_jax.geometry.camera_files import npz
from mirage_jax.geometry.depth_files import DepthMaps
from mirage_jax.geometry.mask_files import MaskReading, Masks, read_masks
from mirage_jax.rollout import photo as photo_lib
from mirage_jax.rollout import video


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a rollout starts from.

    Attributes:
        name: for titles and reports.
        image: [H, W, 3] the start picture.
        depth: [H, W] z-depth in scene units, 0 = unknown.
        keep: [H, W] True where the content is static and may be remembered.
        camera: the start camera, intrinsics in pixels of `image`.
        path: [f] recorded cameras, the start camera first, or None.
        frames: [f, H, W, 3] recorded pictures of `path`, or None.
        depths: [f, H, W] recorded z-depth of `path`, or None.
        keeps: [f, H, W] recorded masks of `path`, True = may be remembered, or None.
    """

    name: str
    image: UInt8[np.ndarray, "H W 3"]
    depth: Float[np.ndarray, "H W"]
    keep: Bool[np.ndarray, "H W"]
    camera: camera_lib.Camera
    path: camera_lib.Camera | None = None
    frames: UInt8[np.ndarray, "f H W 3"] | None = None
    depths: Float[np.ndarray, "f H W"] | None = None
    keeps: Bool[np.ndarray, "f H W"] | None = None

    def __post_init__(self) -> None:
        """Check every field against every other."""
        image = np.asarray(self.image)
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
            raise ValueError(
                f"image: got {image.dtype} of shape {image.shape}, expected uint8 [height, width, "
                "3]; "
                "convert the picture to 8-bit RGB"
            )
        height, width = image.shape[:2]
        _check_size("depth", self.depth, (height, width))
        _check_size("mask", self.keep, (height, width))
        depth_lib.validate_depth(self.depth, "depth")
        camera_lib.validate_camera(self.camera, "camera")
        if self.keep.dtype != bool:
            raise TypeError(
                f"mask: got {self.keep.dtype}, expected bool with True = keep; compare it, as in "
                "mask > 0"
            )
        if not np.any(self.keep & (np.asarray(self.depth) > 0)):
            raise ValueError(
                "mask: got a mask that keeps no pixel with known depth, expected True where "
                "content is "
                "static; invert the mask if it marks what to remove"
            )
        if self.path is not None:
            camera_lib.validate_camera(self.path, "path")


class MaskSource(Protocol):
    """Sees in pictures what may be remembered; `name` and `note` say which it is, and how."""

    name: str
    note: str

    def keep(self, frames: UInt8[np.ndarray, "f H W 3"]) -> Bool[np.ndarray, "f H W"]:
        """Return True where nothing moves."""


@dataclasses.dataclass(frozen=True)
class PictureOptions:
    """What a picture needs to become a scene.

    Attributes:
        depth: its z-depth or disparity, from a file or a model.
        mask: file of one mask (`geometry.mask_files`), or a model that sees it; None keeps all.
        mask_as: what its non-zero means, where the file does not say.
        lens: what is said of the camera.
        near_far: nearest and farthest distance of disparity.
        drop_edges: leave pixels beside depth edges out of the mask.
    """

    depth: DepthMaps | None = None
    mask: str | Path | MaskSource | None = None
    mask_as: MaskReading | None = None
    lens: photo_lib.Lens = photo_lib.Lens()
    near_far: tuple[float, float] | None = None
    drop_edges: bool = False

    @property
    def given(self) -> bool:
        """Whether anything is said that only a picture needs."""
        said = (self.depth, self.mask, self.near_far, self.lens.intrinsics, self.lens.fov)
        return self.drop_edges or any(part is not None for part in said)


_NOTHING = PictureOptions()


def load_scene(
    source: str | Path,
    options: PictureOptions = _NOTHING,
    say: Callable[[str], None] = lambda line: None,
) -> Scene:
    """Load a scene from a file.

    Args:
        source: a geometry.npz, a folder that holds one, or a picture.
        options: of a picture; a geometry.npz holds its own.
        say: receives what the user should know.

    Returns:
        The checked scene.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: anything does not fit; see `Scene`.
    """
    path = Path(source)
    if path.is_dir():
        path = path / "geometry.npz"
    if not path.is_file():
        raise FileNotFoundError(
            f"--scene: got {source}, expected a geometry.npz, a folder with one, a picture, or the "
            "name of a shipped scene; check the path"
        )
    if path.suffix.lower() in photo_lib.PICTURE_SUFFIXES:
        return picture_scene(path.stem, photo_lib.read_photo(path), options, say)
    if options.given:
        raise ValueError(
            f"--depth/--mask/--intrinsics/--fov: got one together with {path.name}, expected them "
            "only with a picture; a geometry.npz holds its own"
        )
    return _from_geometry(path)


def picture_scene(
    name: str, photo: photo_lib.Photo, options: PictureOptions, say: Callable[[str], None]
) -> Scene:
    """Make a scene of a picture; see `load_scene`."""
    if options.depth is None:
        raise ValueError(
            f"--depth: got nothing for the picture {name}, expected a file with its z-depth, "
            "hf:MODEL or latent; run a depth model, or start from a geometry.npz"
        )
    size = photo.image.shape[0], photo.image.shape[1]
    camera, note = photo_lib.photo_camera(photo, options.lens)
    for line in (note, *options.depth.notes):
        say(line)
    depth = photo_lib.photo_depth(options.depth, camera, size, options.near_far)
    keep = np.ones(size, bool)
    if isinstance(options.mask, str | Path):
        keep = _one_mask(read_masks(options.mask, options.mask_as), say)
    elif options.mask is not None:
        keep = options.mask.keep(photo.image[None])[0]
        say(f"{options.mask.note}; {keep.mean():.1%} of the picture is kept")
    if options.drop_edges:
        keep = keep & photo_lib.edge_mask(depth)
    return Scene(name=name, image=photo.image, depth=depth, keep=keep, camera=camera)


def save_scene(directory: Path, scene: Scene, original_hw: tuple[int, int] | None = None) -> Path:
    """Write the start of a scene as `geometry.npz` in a folder; returns the file.

    Args:
        directory: folder, made if needed.
        scene: its recorded path is not written.
        original_hw: size of the picture it was made from.
    """
    file = directory / "geometry.npz"
    camera = camera_lib.Camera(*(np.asarray(leaf)[None] for leaf in scene.camera))
    geometry = camera_files.Geometry(
        depths=np.asarray(scene.depth, np.float32)[None],
        camera=camera,
        frames=scene.image[None],
        masks=scene.keep[None],
        original_size=original_hw,
    )
    camera_files.save_geometry(file, geometry)
    return file


def fit_scene(scene: Scene, hw: tuple[int, int]) -> Scene:
    """Crop a scene centrally to an aspect ratio and resize it, its cameras following.

    Args:
        scene: any size.
        hw: height and width wanted, in pixels.

    Returns:
        The scene at that size; pictures are area-averaged, depth and mask take the nearest pixel
        (an averaged depth would lie on no surface). The scene itself when it fits already.
    """
    if scene.image.shape[:2] == hw:
        return scene
    top, left, *cropped = _crop(scene.image.shape[:2], hw)
    window = (slice(top, top + cropped[0]), slice(left, left + cropped[1]))

    def adapt(camera: camera_lib.Camera) -> camera_lib.Camera:
        intrinsics = camera_lib.crop_intrinsics(camera.intrinsics, top, left)
        intrinsics = camera_lib.rescale_intrinsics(intrinsics, (cropped[0], cropped[1]), hw)
        return camera_lib.Camera(camera.cam_to_world, intrinsics)

    frames = scene.frames
    return Scene(
        name=scene.name,
        image=_resize(scene.image[window], hw, cv2.INTER_AREA),
        depth=_resize(np.asarray(scene.depth, np.float32)[window], hw, cv2.INTER_NEAREST),
        keep=_resize(scene.keep[window].astype(np.uint8), hw, cv2.INTER_NEAREST).astype(bool),
        camera=adapt(scene.camera),
        path=None if scene.path is None else adapt(scene.path),
        frames=None
        if frames is None
        else np.stack([_resize(frame[window], hw, cv2.INTER_AREA) for frame in frames]),
        depths=None if scene.depths is None else fit_grids(scene.depths, hw),
        keeps=None if scene.keeps is None else fit_grids(scene.keeps, hw),
    )


def _crop(size: tuple[int, ...], hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return top, left, height and width of the central crop that has the aspect of `hw`."""
    (height, width), aspect = size, hw[1] / hw[0]
    crop_height = min(height, round(width / aspect))
    crop_width = min(width, round(height * aspect))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def fit_grids(grids: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """Crop and resize depth or masks [f, H, W] as `fit_scene` does; their type is kept."""
    if grids.shape[1:] == hw:
        return grids
    top, left, height, width = _crop(grids.shape[1:], hw)
    window = (slice(top, top + height), slice(left, left + width))
    kind = np.float32 if grids.dtype.kind == "f" else np.uint8
    small = [_resize(grid[window].astype(kind), hw, cv2.INTER_NEAREST) for grid in grids]
    return np.stack(small).astype(grids.dtype)


def read_picture(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """Read a picture file as uint8 RGB; see `photo.read_photo`."""
    return photo_lib.read_photo(path).image


def read_array(path: Path, argument: str) -> np.ndarray:
    """Read a .npy, or the first array of a .npz, without pickle.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not an array file.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{argument}: got {path}, expected an existing .npy or .npz; check the path"
        )
    try:
        if path.suffix.lower() != ".npz":
            return npz.read_npy(path, npz.MAX_ARRAY_BYTES)
        with np.load(path, allow_pickle=False) as archive:
            name = archive.files[0]
        return npz.read_npz(path, [name])[name]
    except (ValueError, OSError, EOFError, IndexError, KeyError) as error:
        raise ValueError(
            f"{argument}: got {path} ({error}), expected a whole .npy or .npz without pickled "
            "objects; "
            "write it again with numpy.save"
        ) from error


def _one_mask(masks: Masks, say: Callable[[str], None]) -> Bool[np.ndarray, "H W"]:
    if len(masks.keep) > 1:
        raise ValueError(f"--mask: got {masks.note}, expected a mask of one picture")
    say(masks.note)
    return masks.keep[0]


def _from_geometry(path: Path) -> Scene:
    geometry = camera_files.load_geometry(path)
    count = geometry.camera.cam_to_world.shape[0]
    frames = geometry.frames if geometry.frames is not None else _sibling_frames(path, count)
    masks = geometry.masks
    many = len(frames) > 1
    if many and len(frames) != count:
        raise ValueError(
            f"frames of {path}: got {len(frames)} frames for {count} cameras, expected one for "
            "each (or a "
            "single start frame); the video may be truncated, export it again"
        )
    depth, recorded = np.asarray(geometry.depths[0], np.float32), len(geometry.depths) == count > 1
    return Scene(
        name=path.parent.name if path.stem == "geometry" else path.stem,
        image=np.asarray(frames[0]),
        depth=depth,
        keep=np.ones(depth.shape, bool) if masks is None else np.asarray(masks[0], bool),
        camera=camera_lib.index_camera(geometry.camera, 0),
        path=geometry.camera if count > 1 else None,
        frames=np.asarray(frames) if many else None,
        depths=np.asarray(geometry.depths) if recorded else None,
        keeps=np.asarray(masks, bool) if recorded and masks is not None else None,
    )


def _sibling_frames(path: Path, count: int) -> UInt8[np.ndarray, "f H W 3"]:
    clip, picture = path.parent / "clip.mp4", path.parent / "first_frame.png"
    if clip.is_file():
        return video.read_video(clip, frames=count)
    if picture.is_file():
        return read_picture(picture)[None]
    raise FileNotFoundError(
        f"frames of {path}: got none, expected an array `frames` in the file, or clip.mp4 or "
        "first_frame.png "
        "beside it; add one"
    )


def _check_size(name: str, array: Any, hw: tuple[int, int]) -> None:
    shape = np.shape(array)
    if shape != hw:
        raise ValueError(
            f"{name}: got shape {shape}, expected {hw} as the image has; resize the {name} or the "
            "image so "
            "that they agree"
        )


def _resize(array: np.ndarray, hw: tuple[int, int], how: int) -> np.ndarray:
    if how == cv2.INTER_AREA and array.shape[0] < hw[0]:
        how = cv2.INTER_LINEAR  # area averaging of an enlarged picture is nearest neighbour
    return cv2.resize(array, (hw[1], hw[0]), interpolation=how)
