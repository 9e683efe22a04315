"""Where the depth of pictures comes from, behind one protocol.

`--depth` and `--path-depth` name a source: a file of any format, `hf:MODEL` (a depth model of
Hugging Face in its own process), or `latent` (the world's own depth head). The engine's depth, and
any other that comes with a recording, is in the scene itself.
Conventions: uint8 RGB pictures; what comes back says what its values mean (`DepthMaps`).
Read next: `mirage_jax/rollout/depths.py` (depth along a path), `mirage_jax/rollout/photo.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import jax
import numpy as np
from jaxtyping import UInt8

from mirage_jax import world_model
from mirage_jax.geometry.camera import Camera
from mirage_jax.geometry.depth import resize_surface
from mirage_jax.geometry.depth_files import DepthMaps, DepthReading, read_depth
from mirage_jax.geometry.depth_files.depth_maps import Kind
from mirage_jax.rollout.hub_depth import HubDepth
from mirage_jax.rollout.world import World

LATENT, HUB = "latent", "hf:"
_DEFAULT_READING = DepthReading()


class DepthSource(Protocol):
    """Knows the depth of pictures: z-depth, distances along rays, or disparity."""

    @property
    def kind(self) -> Kind:
        """What its values mean."""

    def depth(self, frames: UInt8[np.ndarray, "f H W 3"]) -> DepthMaps:
        """Return maps [f, H, W], at the size of the pictures where that is the source's choice."""


@dataclasses.dataclass(frozen=True)
class FileDepth:
    """Depth in a file, one map for each picture or one for all."""

    maps: DepthMaps

    @property
    def kind(self) -> Kind:
        """What a value means."""
        return self.maps.kind

    def depth(self, frames: UInt8[np.ndarray, "f H W 3"]) -> DepthMaps:
        """Return the file's maps.

        Raises:
            ValueError: there are not as many as pictures.
        """
        if len(self.maps.values) != len(frames):
            raise ValueError(
                f"{self.maps.name}: got {len(self.maps.values)} pictures of depth, expected "
                f"{len(frames)}; choose the frames that belong to the picture"
            )
        return self.maps


@dataclasses.dataclass(frozen=True)
class LatentDepth:
    """The world's depth head, which reads depth off latents; scene units of its training.

    Attributes:
        world: with a depth head.
        camera: of the pictures, intrinsics in pixels.
    """

    world: World
    camera: Camera

    kind: Kind = "z"

    def depth(self, frames: UInt8[np.ndarray, "f H W 3"]) -> DepthMaps:
        """Encode each picture alone, read its depth with nothing remembered, and enlarge it.

        Raises:
            ValueError: the world has no depth head, or pictures are not of its size.
        """
        spec = self.world.spec
        if spec.depth_head is None:
            raise ValueError(
                f"--depth latent: the world {spec.name!r} has no depth head; give a file, or "
                "hf:MODEL"
            )
        if frames.shape[1:3] != spec.frame_hw:
            raise ValueError(
                f"--depth latent: got pictures of {frames.shape[1:3]}, expected {spec.frame_hw}, "
                "the world's frame size"
            )
        depth, known = _read_off(self.world, frames, self.camera)
        # Cells are coarse: what differs from cell to cell is mostly slant and noise, not an edge.
        depth = resize_surface(np.where(known, depth, 0.0), spec.frame_hw, relative_range=0.5)
        return DepthMaps(depth.astype(np.float32), "z", True, "--depth latent")


def _read_off(world: World, frames: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Return depth and validity [f, h, w] of single pictures."""
    spec = world.spec
    pictures = np.asarray(frames, np.float32)[:, None] / 127.5 - 1.0
    matrices = Camera(*(np.asarray(leaf, np.float32)[None] for leaf in camera))
    cell = world_model.grid_camera(matrices, spec.frame_hw, spec.grid_hw)
    count = len(pictures)
    cameras = Camera(*(np.repeat(leaf[None], count, axis=0) for leaf in cell))

    @jax.jit
    def run(params, pictures, cameras):
        held = spec.chunk.write.start == "held"  # as a rollout stores its start picture
        encode = world_model.encode_held if held else world_model.encode
        latents = encode(spec, params, pictures[:, 0] if held else pictures)
        latents = latents[:, None] if held else latents
        memory = world_model.empty_memory(spec, count)
        reference = jax.tree.map(lambda leaf: leaf[:, 0], cameras)
        seen = world_model.observe(spec, params, memory, cameras, spec.grid_hw, reference)
        return world_model.latent_depth(spec, params, latents, seen)

    depth, known = run(world.params, pictures, cameras)
    return np.asarray(depth)[:, 0], np.asarray(known)[:, 0]


@contextmanager
def open_source(
    text: str, reading: DepthReading = _DEFAULT_READING, device: str = "cpu"
) -> Iterator[DepthSource]:
    """Open the source that `--depth` names; `latent` needs a world: see `LatentDepth`.

    Args:
        text: a file, a folder of pictures, or "hf:MODEL".
        reading: answers to what a file, or a model's config, leaves open.
        device: for models.

    Yields:
        The source; processes end with the context.
    """
    if text.startswith(HUB):
        with HubDepth(text.removeprefix(HUB), reading.kind, device) as model:
            yield model
    else:
        yield FileDepth(read_depth(Path(text), reading))
