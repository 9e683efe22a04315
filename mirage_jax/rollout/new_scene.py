"""Makes the scene that a command names: a geometry.npz, or a picture whose depth has to be found.

Read next: `mirage_jax/rollout/scene.py`, `photo.py`, `depth_sources.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mirage_jax.geometry.camera import Camera, rescale_intrinsics
from mirage_jax.geometry.depth_files import DepthMaps, DepthReading
from mirage_jax.rollout import photo as photo_lib
from mirage_jax.rollout.depth_sources import LATENT, LatentDepth, open_source
from mirage_jax.rollout.scene import PictureOptions, Scene, fit_scene, load_scene, picture_scene
from mirage_jax.rollout.world import load_world

_DEFAULT_READING, _NOTHING = DepthReading(), PictureOptions()


@dataclasses.dataclass(frozen=True)
class SceneRequest:
    """What is asked for.

    Attributes:
        depth: of a picture: a file, "hf:MODEL", "latent", or None.
        reading: answers to what the depth leaves open.
        device: for models.
        picture: mask, lens and the like.
        world: folder of the world, for "latent".
        align: brings depth maps, given their camera, to the right scale; or None.
    """

    depth: str | None = None
    reading: DepthReading = _DEFAULT_READING
    device: str = "cpu"
    picture: PictureOptions = _NOTHING
    world: Path | None = None
    align: Callable[[DepthMaps, Camera], DepthMaps] | None = None


def open_scene(
    source: Path, request: SceneRequest, say: Callable[[str], None] = lambda line: None
) -> Scene:
    """Load a scene, or make it from a picture.

    Args:
        source: a geometry.npz, a folder with one, or a picture.
        request: see there.
        say: receives what the user should know.

    Raises:
        FileNotFoundError, ValueError: as for `load_scene`, and from the source of depth.
    """
    is_picture = source.is_file() and source.suffix.lower() in photo_lib.PICTURE_SUFFIXES
    if request.depth is None or not is_picture:
        if request.depth is not None:
            given = DepthMaps(np.zeros((1, 1, 1), np.float32))
            return load_scene(source, dataclasses.replace(request.picture, depth=given), say)
        return load_scene(source, request.picture, say)
    photo = photo_lib.read_photo(source)
    if request.depth == LATENT:
        return _with_latent_depth(source.stem, photo, request, say)
    with open_source(request.depth, request.reading, request.device) as found:
        maps = found.depth(photo.image[None])
    if request.align is not None:
        camera, _ = photo_lib.photo_camera(photo, request.picture.lens)
        sizes = photo.image.shape[:2], maps.values.shape[1:]
        matrix = rescale_intrinsics(camera.intrinsics, *sizes)
        maps = request.align(maps, Camera(camera.cam_to_world, matrix))
    return picture_scene(source.stem, photo, dataclasses.replace(request.picture, depth=maps), say)


def _with_latent_depth(
    name: str, photo: photo_lib.Photo, request: SceneRequest, say: Callable[[str], None]
) -> Scene:
    """Fit the picture to the world's size and read its depth off its latents."""
    if request.world is None:
        raise ValueError("--depth latent: got no world, expected the folder of one; give --weights")
    world = load_world(request.world)
    size = photo.image.shape[:2]
    flat = DepthMaps(np.ones((1, *size), np.float32), "z", True, "--depth latent")
    whole = dataclasses.replace(request.picture, depth=flat, drop_edges=False, near_far=None)
    scene = fit_scene(picture_scene(name, photo, whole, say), world.spec.frame_hw)
    depth = LatentDepth(world, scene.camera).depth(scene.image[None]).values[0]
    keep = scene.keep
    if request.picture.drop_edges:
        keep = keep & photo_lib.edge_mask(depth)
    say("depth read off the latents of a single picture is rough; a file or a model is better")
    return dataclasses.replace(scene, depth=depth, keep=keep)
